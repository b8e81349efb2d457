"""The OpenAPI 3.1 document, made from the table of operations and the types that validate.

It adds nothing that the table and the types do not say. Rule: what is described is what is
checked, since both come from the same types.
"""

import inspect
import re
from functools import cache
from typing import Any, Final

import msgspec

from mesh.rest import types
from mesh.rest.calls import KEY_HEADER, PART_CHARS_MAX
from mesh.rest.lists import LISTS
from mesh.rest.operations import OPERATIONS, PREFIX, Operation, Server
from mesh.rest.requests import KEY_CHARS_MAX, Closed

_REF: Final = "#/components/schemas/{name}"
_KEY: Final = {
    "name": KEY_HEADER,
    "in": "header",
    "description": "Makes the request repeatable for 24 hours: the same key, the same answer.",
    "schema": {
        "type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": "^[!-~]+$",
    },
}  # fmt: skip
_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "An API token."},
    "session": {
        "type": "apiKey", "in": "cookie", "name": "__Host-rackmesh",
        "description": "A browser's session; its writes also need the header X-CSRF-Token.",
    },
}  # fmt: skip
_STREAMS: Final = {
    "lines": ("application/x-ndjson", "text/event-stream"),
    "events": ("text/event-stream",),
}


@cache
def document(server: Server, build: str) -> dict[str, Any]:
    """Return the document of the operations that a hub or a node serves."""
    here = [operation for operation in OPERATIONS.values() if server in operation.at]
    shapes: list[Any] = [types.Problem]
    for operation in here:
        shapes += [operation.answer, operation.body]
    wanted = [shape for shape in shapes if shape is not None]
    _, components = msgspec.json.schema_components(wanted, ref_template=_REF)
    for schema in components.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    paths: dict[str, dict[str, Any]] = {}
    for operation in here:
        entry = paths.setdefault(operation.path, {})
        entry[operation.method.lower()] = _operation(operation, server)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Rackmesh {server}",
            "version": build,
            "summary": "Racks of bare-metal servers at many small sites.",
            "description": "Times are Unix milliseconds (_ms), sizes bytes; what is unknown is"
            " null. Errors are problem documents (RFC 9457) with a stable code.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": PREFIX}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _operation(operation: Operation, server: Server) -> dict[str, Any]:
    parts = re.findall(r"\{(\w+)\}", operation.path)
    parameters = [
        {
            "name": name, "in": "path", "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": PART_CHARS_MAX},
        }
        for name in parts
    ] + _query(operation.query)  # fmt: skip
    if operation.repeats:
        parameters.append(_KEY)
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "parameters": parameters,
        "responses": {
            str(operation.status): _answer(operation),
            "default": {
                "description": "What is wrong, in one sentence.",
                "content": {"application/problem+json": {"schema": _shape(types.Problem)}},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }
    if operation.role is None or server == "node":  # a node asks only who is at its socket
        found["security"] = []
    if operation.form == "list":
        found["description"] = _asked(operation.noun)
    if operation.role is not None:
        found["x-rackmesh-role"] = operation.role
    if operation.body is not None or operation.content is not None:
        kind = operation.content or "application/json"
        schema = _shape(operation.body) if operation.body is not None else {}
        found["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return found


def _asked(noun: str) -> str:
    """Say what can be asked of a list."""
    of = LISTS[noun]
    return (
        f"Filter keys: {', '.join(sorted(of.keys))}; bare words are looked for in"
        f" {', '.join(of.text)}. Sorts by {', '.join(sorted(of.sorts))}; default: {of.order}."
    )


def _query(form: type[Closed]) -> list[dict[str, Any]]:
    """Return the fields of a query as parameters."""
    schema = msgspec.json.schema(form)
    own = schema["$defs"][form.__name__] if "$defs" in schema else schema
    required = own.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _present(shape)}
        for name, shape in own["properties"].items()
    ]


def _present(shape: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a query field as it is when it is given: not null."""
    shape = {key: value for key, value in shape.items() if value is not None}
    options = [one for one in shape.get("anyOf", []) if one != {"type": "null"}]
    return options[0] if len(options) == 1 else shape


def _answer(operation: Operation) -> dict[str, Any]:
    if operation.form == "socket":
        return {"description": "The WebSocket: binary is characters, text JSON objects."}
    if operation.form == "nothing":
        return {"description": "Done.", "content": {"application/json": {"schema": {}}}}
    if operation.form == "bytes":
        kind = "application/octet-stream"
        return {"description": operation.summary, "content": {kind: {"schema": {}}}}
    shape = _shape(operation.answer)
    if operation.form in _STREAMS:
        kinds = _STREAMS[operation.form]
        text = {"schema": {"type": "string"}}
        return {
            "description": f"A stream; each entry is a {operation.answer.__name__}.",
            "content": dict.fromkeys(kinds, text),
        }
    if operation.form == "list":
        shape = _envelope(
            operation, items={"type": "array", "items": shape},
            next={"type": ["string", "null"], "description": "cursor of the next page"},
        )  # fmt: skip
    elif operation.form == "item":
        shape = _envelope(operation, item=shape)
    words = operation.summary
    if operation.form == "item":
        words = operation.answer.__doc__ or words
    return {
        "description": words.splitlines()[0],
        "content": {"application/json": {"schema": shape}},
    }


def _envelope(operation: Operation, **more: Any) -> dict[str, Any]:
    properties = {
        "schema": {"const": f"rackmesh/{operation.noun}/1"},
        "as_of_ms": {"type": "integer"},
        **more,
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _shape(kind: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return dict(schema)
