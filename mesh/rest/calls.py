"""One call of an operation: what came in, checked; what goes out, in its form.

Hub and node read and answer through these functions, so both refuse the same input with the
same sentence. Rule: a handler sees only what fits the operation's types and limits.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from mesh.rest.lists import LISTS, Page, Plan, plan
from mesh.rest.operations import Operation
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import Closed, Key, ListQuery

VALUE_CHARS_MAX: Final = 60
PART_CHARS_MAX: Final = 100
KEY_HEADER: Final = "Idempotency-Key"
_AT: Final = re.compile(r" - at `(?:key in )?\$?([^`]*)`\Z")


Keep = Callable[[Any, Any], None]
"""Called in the transaction (first argument) that carries a request out, with its item."""


class _KeyHeader(Closed):
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler is given."""

    operation: Operation
    who: str
    """Who asks, for the author of orders."""
    parts: Mapping[str, str]
    """The named parts of the path."""
    query: Any
    """An object of ``operation.query``."""
    body: Any
    """An object of ``operation.body``; None without one."""
    plan: Plan | None
    """Of a list: the page that is asked for."""
    key: str | None
    """The request's idempotency key."""
    keep: Keep | None = None
    """Remembers the answer under the key, in a transaction of the handler's."""


def read_call(
    operation: Operation,
    who: str,
    parts: Mapping[str, str],
    query: Mapping[str, str],
    body: bytes,
    key: str | None,
) -> Call:
    """Return the checked call; raises RequestProblem with one sentence.

    ``key`` is what stands in the header KEY_HEADER.
    """
    for name, value in parts.items():
        if len(value) > PART_CHARS_MAX or not value.isprintable():
            raise RequestProblem("not-found", f"there is no {name} {value[:PART_CHARS_MAX]!r}")
    asked = _query(operation.query, query)
    content = _body(operation.body, body) if operation.body is not None else None
    return Call(
        operation=operation,
        who=who,
        parts=parts,
        query=asked,
        body=content,
        key=_key(key, content) if operation.repeats else None,
        plan=plan(operation.noun, asked)
        if isinstance(asked, ListQuery) and operation.noun in LISTS
        else None,
    )


def _key(header: str | None, body: Any) -> str | None:
    inner = getattr(body, "idempotency_key", None)
    if header is None:
        return inner
    if inner not in (None, header):
        raise RequestProblem(
            "bad-request", f"{KEY_HEADER} and idempotency_key differ: one of them is enough"
        )
    return str(_convert(_KeyHeader, {"key": header}, KEY_HEADER, strict=True).key)


def given(body: Closed) -> dict[str, Any]:
    """Return the fields of a request that were given, without its key."""
    pairs = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return {name: v for name, v in pairs if v is not None and name != "idempotency_key"}


def answer_of(operation: Operation, now_ms: int, value: Any) -> dict[str, Any]:
    """Return the document that answers a list or an item."""
    document: dict[str, Any] = {"schema": f"rackmesh/{operation.noun}/1", "as_of_ms": now_ms}
    if operation.form == "list":
        assert isinstance(value, Page)
        return {**document, "items": value.items, "next": value.next}
    return {**document, "item": value}


def _query(form: type[Closed], query: Mapping[str, str]) -> Any:
    return _convert(form, query, "the query", strict=False)


def _body(form: type[Closed], body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestProblem("bad-request", "the body must be JSON") from exc
    if not isinstance(value, dict):
        raise RequestProblem("bad-request", "the body must be a JSON object")
    fields = form.__struct_fields__  # of these null is the same as missing
    said = {n: entry for n, entry in value.items() if entry is not None or n not in fields}
    return _convert(form, said, "the body", strict=True)


def _convert(form: type[Closed], value: Mapping[str, Any], what: str, strict: bool) -> Any:
    try:
        found = msgspec.convert(value, form, strict=strict)
    except msgspec.ValidationError as exc:
        raise RequestProblem("bad-request", _sentence(str(exc), form, value, what)) from exc
    for name, choices in _choices(form).items():
        given = getattr(found, name)
        if given is not None and given not in choices:
            raise RequestProblem(
                "bad-request",
                f"{name} is {given[:VALUE_CHARS_MAX]!r}: expected one of {', '.join(choices)}",
            )
    return found


@cache
def _choices(form: type[Closed]) -> dict[str, list[str]]:
    """Return the fields whose type names what may stand there (``enum`` in its Meta)."""
    found = ((name, _note(form, name, "enum")) for name in form.__struct_fields__)
    return {name: choices for name, choices in found if choices is not None}


def _sentence(error: str, form: type[Closed], value: Mapping[str, Any], what: str) -> str:
    """Return a sentence that names the field, its value and what would be right."""
    at = _AT.search(error)
    said = _AT.sub("", error).replace("`", "")
    unknown = re.match(r"Object contains unknown field (.*)", said, re.DOTALL)
    if unknown and not at:
        known = ", ".join(form.__struct_fields__) or "none"
        return f"{what} has no field {unknown[1][:VALUE_CHARS_MAX]!r}; known: {known}"
    path = (at[1] if at else "").lstrip(".")
    name = re.split(r"[.\[]", path)[0]
    said = said[:1].lower() + said[1:]
    if name not in value:
        return f"{what} is not right: {said}"
    have = repr(value[name])
    have = have if len(have) <= VALUE_CHARS_MAX else have[:VALUE_CHARS_MAX] + "..."
    meant = _note(form, name, "description")
    if meant and "matching regex" in said:
        said, meant = f"expected {meant}", None
    return f"{path} is {have}: {said}" + (f" ({meant})" if meant else "")


def _note(form: type[Closed], name: str, key: str) -> Any:
    """Return what the Meta of a field's type says beside its limits, as its description."""
    field = next(f for f in msgspec.inspect.type_info(form).fields if f.name == name)  # type: ignore[attr-defined]
    kinds = [field.type, *getattr(field.type, "types", ())]
    kinds += [kind.item_type for kind in kinds if hasattr(kind, "item_type")]
    notes = (getattr(kind, "extra_json_schema", None) or {} for kind in kinds)
    return next((note[key] for note in notes if key in note), None)
