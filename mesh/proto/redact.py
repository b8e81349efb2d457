"""Taking secrets out of texts that leave the house (a support bundle).

It knows the forms of our secrets and of common ones, and the very values that it is given.
Rules: when in doubt something is taken out; what was taken is replaced by a mark of fixed
length, so nothing can be told of the secret; taking out twice changes nothing.
"""

import base64
import re
from collections.abc import Iterable
from typing import Final

MARK: Final = "[redacted]"
KNOWN_CHARS_MIN: Final = 6
"""Shorter values would take half of every text with them."""

_WORDS: Final = (
    r"pass(?:word|phrase|wd)|secrets?|api[_-]?tokens?|tokens?|credentials?|private[_-]?key"
    r"|authorization|cookie|csrf|user[_-]?data"
)
_VALUE: Final = r'(?:"(?:[^"\\]|\\.)*"|\'[^\']*\'|[^\s,;&}\]]+)'
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"\brm1\.[A-Za-z0-9_-]{8,}",  # join token
        r"\$(?:argon2(?:id|i|d)|scrypt|[1256y]|2[aby])\$[^\s\"']+",  # password hashes
    )
)
_KEYED: Final = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"([\w.-]*(?:{_WORDS})[\w-]*[\"']?\s*[:=]\s*)(?:(?:Bearer|Basic)\s+)?{_VALUE}",
        r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}",
        r"((?:[?&]|rackmesh\.|\b)cap=)[^\s&\"'\\]+",  # boot capability
        r"(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)",  # user:password@ in a URL
    )
)


class Redactor:
    """Takes known values and known forms out of texts; ``taken`` counts them."""

    def __init__(self, known: Iterable[bytes]) -> None:
        """``known``: contents of secret files, text or bytes."""
        spellings = {form for value in known for form in _spellings(value)}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._known = (
            re.compile("|".join(re.escape(form) for form in longest_first))
            if longest_first
            else None
        )
        self.taken = 0

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text, count = self._known.subn(MARK, text)
            self.taken += count
        for form in _FORMS:
            text, count = form.subn(MARK, text)
            self.taken += count
        for form in _KEYED:
            text, count = form.subn(_mark, text)
            self.taken += count
        return text


def _mark(found: re.Match[str]) -> str:
    value = found.group(0)[len(found.group(1)) :]
    quote = value[0] if value[:1] in ('"', "'") else ""
    return f"{found.group(1)}{quote}{MARK}{quote}"


def _spellings(value: bytes) -> set[str]:
    """Return how a value may stand in a text: as it is, line by line, in hex and base64."""
    value = value.strip()
    found = {value.hex(), value.hex().upper()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
        text = encode(value).decode()
        found |= {text, text.rstrip("=")}
    try:
        found |= {line.strip() for line in value.decode().splitlines()}
    except UnicodeDecodeError:
        pass
    return {text for text in found if len(text) >= KNOWN_CHARS_MIN}
