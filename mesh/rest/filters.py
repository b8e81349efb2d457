"""Filters of lists: ``site:fra1 state:!active web``, the same in API, command line and console.

A filter is words between blanks. ``key:value`` keeps what has that value, ``key:!value`` what
has not; the same key again means any of the values (with ``!`` none of them); different keys
must all hold. Bare words must each occur in the text of the resource. ``*`` in a value stands
for anything, ``none`` for what is missing, ``"..."`` keeps blanks and colons together. Case
does not matter. Rule: what cannot be meant is refused with one sentence, never guessed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.rest.problems import RequestProblem

CHARS_MAX: Final = 2000
TOKENS_MAX: Final = 50
NONE: Final = "none"
_KEY: Final = re.compile(r"([A-Za-z][A-Za-z_]*):(.*)\Z", re.DOTALL)
_MAC: Final = re.compile(r"(?:[0-9a-f]{2}:)+[0-9a-f]{0,2}\Z", re.IGNORECASE)

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter; the empty one keeps everything."""

    wanted: Mapping[str, tuple[str, ...]]
    """Key -> values in lower case, any of which is right."""
    unwanted: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]

    def __bool__(self) -> bool:
        """Tell whether it leaves anything out."""
        return bool(self.wanted or self.unwanted or self.words)

    def exact(self, key: str) -> tuple[str, ...] | None:
        """Return the values of a key when only these can be right, None when others may be."""
        values = self.wanted.get(key)
        plain = values is not None and not any("*" in v or v == NONE for v in values)
        return values if plain else None


NOTHING: Final = Filter({}, {}, ())


def parse(text: str, keys: Iterable[str]) -> Filter:
    """Return the filter that a text means; ``keys`` are the ones that this list has.

    Raises RequestProblem with one sentence.
    """
    if len(text) > CHARS_MAX:
        raise _wrong(f"the filter has {len(text)} characters, at most {CHARS_MAX} are read")
    known = frozenset(keys)
    wanted: dict[str, list[str]] = {}
    unwanted: dict[str, list[str]] = {}
    words: list[str] = []
    tokens = list(_tokens(text))
    if len(tokens) > TOKENS_MAX:
        raise _wrong(f"the filter has {len(tokens)} words, at most {TOKENS_MAX} are read")
    for key, value in tokens:
        if key is None:
            words.append(value.lower())
            continue
        if key not in known:
            raise _wrong(
                f"there is no filter key {key[:40]!r} here; known: {', '.join(sorted(known))}"
            )
        chosen = unwanted if value.startswith("!") else wanted
        value = value.removeprefix("!").lower()
        if not value:
            raise _wrong(f"the filter key {key} has no value; write {key}:VALUE")
        chosen.setdefault(key, []).append(value)
    return Filter(
        {key: tuple(values) for key, values in wanted.items()},
        {key: tuple(values) for key, values in unwanted.items()},
        tuple(words),
    )


def matches(kept: Filter, item: Item, keys: Mapping[str, str], text: Iterable[str]) -> bool:
    """Tell whether a resource passes.

    ``keys`` says in which field of the resource each key looks, ``text`` in which fields bare
    words are looked for.
    """
    for key, patterns in kept.wanted.items():
        values = _values(_field(item, keys[key]))
        if not any(_like(value, pattern) for pattern in patterns for value in values):
            return False
    for key, patterns in kept.unwanted.items():
        values = _values(_field(item, keys[key]))
        if any(_like(value, pattern) for pattern in patterns for value in values):
            return False
    if not kept.words:
        return True
    said = "\n".join(value for name in text for value in _values(item.get(name)))
    return all(word in said for word in kept.words)


def _field(item: Item, path: str) -> Any:
    """Return a field; ``sites.state`` is that field of every entry of a list."""
    name, _, inner = path.partition(".")
    value = item.get(name)
    if inner and isinstance(value, list):
        return [entry.get(inner) for entry in value if isinstance(entry, Mapping)]
    return value


def _values(value: Any) -> list[str]:
    match value:
        case None | [] | "":
            return [NONE]
        case True:
            return ["yes", "true"]
        case False:
            return ["no", "false"]
        case list():
            return [text for entry in value for text in _values(entry)]
        case _:
            return [str(value).lower()]


def _like(value: str, pattern: str) -> bool:
    """Tell whether a value is what a pattern with ``*`` means, in linear time."""
    first, *rest = pattern.split("*")
    if not rest:
        return value == pattern
    *middle, last = rest
    if not value.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = value.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(value) - at >= len(last) and value.endswith(last)


def _tokens(text: str) -> Iterable[tuple[str | None, str]]:
    """Yield (key or None, value) of every word."""
    for word, quoted_from in _words(text):
        found = None if _MAC.match(word) else _KEY.match(word)
        if found is None or quoted_from == 0:
            if word:
                yield None, word
        else:
            yield found[1].lower(), found[2]


def _words(text: str) -> Iterable[tuple[str, int | None]]:
    """Yield the words without their quotes, and where in each the first quote stood."""
    word, began, quoted_from, within = "", False, None, False
    for char in text:
        if char == '"':
            quoted_from = len(word) if quoted_from is None else quoted_from
            began, within = True, not within
        elif char.isspace() and not within:
            if began:
                yield word, quoted_from
            word, began, quoted_from = "", False, None
        else:
            word, began = word + char, True
    if within:
        raise _wrong(f"a quote is opened and not closed in the filter {text[:60]!r}")
    if began:
        yield word, quoted_from


def _wrong(sentence: str) -> RequestProblem:
    return RequestProblem("bad-request", sentence)
