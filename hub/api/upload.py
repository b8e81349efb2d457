"""Uploads: ``PUT /api/v1/assets/<name>/content``, straight from the wire to the cache.

It stands beside Quart, whose request bodies are gathered without back-pressure. Rule: at most
the few pieces that Hypercorn queues are in memory, whatever the size; a client that stops
sending is cut off; at most UPLOADS_MAX at a time.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, cast

import trio
from quart import Request, Response
from werkzeug.datastructures import Headers

from hub.api import auth, problems, shape
from hub.api.bind import check_keys, may
from hub.early_answers import WholeRequest
from hub.errors import BadRequest, SignInNeeded, TooLarge, TooMany
from hub.ports import Services
from mesh.rest.operations import OPERATIONS

PATH: Final = re.compile(r"/api/v1/assets/([^/]{1,100})/content\Z")
UPLOADS_MAX: Final = 4
BUSY_S: Final = 10.0
PIECE_S: Final = 60.0
DRAIN_BYTES_MAX: Final = 64 << 20
DRAIN_S: Final = 10.0
"""What is read and thrown away after a refusal, at most."""
CONTENT_BYTES_MAX: Final = 256 << 30


class Uploads:
    """Takes content in."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.running = 0

    def takes(self, scope: dict[str, Any]) -> bool:
        """Tell whether a request is an upload."""
        return (
            scope["type"] == "http"
            and scope["method"] == "PUT"
            and PATH.match(scope["path"]) is not None
        )

    async def handle(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one upload over ASGI."""
        whole = WholeRequest(receive, send)
        try:
            response = await self._store(scope, whole.receive)
        except Exception as exc:
            response = problems.of_error(exc)
            if not whole.ended:
                await _drain(receive)
        content = await response.get_data(as_text=False)
        headers = [(b"content-type", (response.content_type or "").encode())]
        headers += [(b"content-length", str(len(content)).encode())]
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers}
        )
        await send({"type": "http.response.body", "body": content, "more_body": False})

    async def _store(self, scope: dict[str, Any], receive: Any) -> Response:
        request = as_request(scope)
        principal = auth.admitted(request, self._services)
        if principal is None:
            raise SignInNeeded("sign in first, or give an API token as a bearer")
        may(principal, OPERATIONS["uploadAsset"])
        check_keys(self._services, OPERATIONS["uploadAsset"])
        match = PATH.match(scope["path"])
        assert match is not None
        name = shape.plain_name(match[1], "an asset's name")
        if (request.content_length or 0) > CONTENT_BYTES_MAX:
            raise TooLarge(f"content is at most {CONTENT_BYTES_MAX} bytes")
        if self.running >= UPLOADS_MAX:
            raise TooMany(f"{UPLOADS_MAX} uploads run already", BUSY_S)
        self.running += 1
        try:
            async with aclosing(_pieces(receive)) as pieces:
                await self._services.assets.upload(name, pieces)
        finally:
            self.running -= 1
        await self._services.settle()
        return shape.item("asset", self._services.clock.now_ms(), {"name": name}, 201)


def as_request(scope: dict[str, Any]) -> Request:
    """Return an ASGI scope as the request object that the guard reads."""
    headers = Headers(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    )

    async def no_push(path: str, headers: Headers) -> None:
        """Push nothing."""

    return Request(
        scope["method"], scope["scheme"], scope["path"], scope["query_string"], headers, "",
        scope["http_version"], cast(Any, scope), send_push_promise=no_push,
    )  # fmt: skip


async def _drain(receive: Any) -> None:
    """Read on for a while, since a client that is still sending would miss the answer."""
    left = DRAIN_BYTES_MAX
    with trio.move_on_after(DRAIN_S):
        while left > 0:
            event = await receive()
            if event["type"] != "http.request" or not event.get("more_body"):
                return
            left -= len(event.get("body", b""))


async def _pieces(receive: Any) -> AsyncGenerator[bytes]:
    total = 0
    while True:
        try:
            with trio.fail_after(PIECE_S):
                event = await receive()
        except trio.TooSlowError:
            raise BadRequest(f"the upload stood still for {PIECE_S:.0f} s") from None
        if event["type"] != "http.request":
            raise BadRequest("the upload was broken off")
        total += len(event.get("body", b""))
        if total > CONTENT_BYTES_MAX:
            raise TooLarge(f"content is at most {CONTENT_BYTES_MAX} bytes")
        if event.get("body"):
            yield event["body"]
        if not event.get("more_body"):
            break
    if total == 0:
        raise BadRequest("the upload is empty; send the content as the request's body")
