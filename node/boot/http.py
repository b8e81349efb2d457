"""The boot listener: a small HTTP/1.1 server for firmware, ramdisks and fresh systems.

It knows no routes of its own and nothing of machines. Rules: h11 keeps the protocol right,
every wait has a deadline and every queue a limit, so that one slow client costs one connection
and nothing else; a body that cannot be sent whole ends the connection instead of lying.
"""

import base64
import json
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

from mesh.errors import Refused, StoreBroken
from mesh.host.log import Log
from mesh.host.web_socket import Serve, serve_web_socket
from mesh.rest.problems import CONTENT_TYPE as PROBLEM
from mesh.rest.problems import of_status
from node.boot.http_body import FileBody, StreamStalled, send_bytes
from node.proto.http_range import select, unchanged

BODY_BYTES_MAX: Final = 1 << 20
HEAD_BYTES_MAX: Final = 16 << 10
QUERY_FIELDS_MAX: Final = 64
REQUESTS_PER_CONNECTION_MAX: Final = 10_000
RECEIVE_BYTES: Final = 16 << 10
LINGER_S: Final = 1.0
BACKLOG: Final = 1024

ANY: Final = "*"
"""Method of a route that looks at the method itself."""

__all__ = [
    "ANY",
    "FileBody",
    "HttpLimits",
    "HttpServer",
    "Request",
    "Response",
    "Route",
    "listen_socket",
]


@dataclass(frozen=True, slots=True)
class Request:
    """One request: ``path`` is percent-decoded, ``headers`` have lower case names."""

    method: str  # as the client wrote it; case counts (RFC 9110 section 9.1)
    path: str
    query: dict[str, str]  # the first value of each name, decoded
    headers: dict[str, str]
    body: bytes
    client_ip: str


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; length, ranges and connection headers are the server's business."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | FileBody = b""
    upgrade: Serve | None = None
    """Serves a WebSocket instead of this answer, to its end."""

    @classmethod
    def text(cls, text: str, status: int = 200) -> "Response":
        """Return plain text (UTF-8)."""
        return cls(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())

    @classmethod
    def json(cls, value: Any, status: int = 200) -> "Response":
        """Return a JSON document."""
        body = json.dumps(value, separators=(",", ":")).encode()
        return cls(status, {"Content-Type": "application/json"}, body)

    @classmethod
    def refusal(cls, status: int, sentence: str) -> "Response":
        """Return a refusal as a problem document (RFC 9457)."""
        body = json.dumps(of_status(status, sentence)).encode()
        return cls(status, {"Content-Type": PROBLEM}, body)


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path: exact, or everything below it when it ends in a slash.

    A route for GET answers HEAD too, one for ANY every method. With ``secret_tail`` what
    follows the prefix stays out of logs; a ``quiet`` one (polls) is logged only when it fails.
    """

    method: str
    prefix: str
    handler: Handler
    secret_tail: bool = False
    quiet: bool = False

    def matches(self, path: str) -> bool:
        """Say whether the route is responsible for a decoded path."""
        if self.prefix.endswith("/"):
            return path.startswith(self.prefix)
        return path == self.prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of the listener; seconds of silence after which a connection ends."""

    connections_max: int = 4096  # an idle one makes room for a new one
    per_client_max: int = 32  # a client is an address; at most connections_max
    head_s: float = 10.0  # from the first byte of a request to its last header
    idle_s: float = 60.0  # between requests
    body_s: float = 30.0  # to receive a request body, at most BODY_BYTES_MAX
    stall_s: float = 30.0  # without one more byte of an answer taken by the client
    handler_s: float = 60.0


class HttpServer:
    """Serves routes on one listener; ``run`` returns only when it is cancelled."""

    def __init__(
        self, routes: Sequence[Route], log: Log, limits: HttpLimits | None = None
    ) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: len(route.prefix), reverse=True))
        self.limits = limits or HttpLimits()
        self.counts: Counter[str] = Counter()
        self._log = log
        self._open: Counter[str] = Counter()
        self.idle: dict[trio.CancelScope, None] = {}  # who waits for requests, longest first

    def statistics(self) -> dict[str, int]:
        """Return counters of requests, answers by class, bytes sent and refusals."""
        return {**self.counts, "connections": self._open.total()}

    async def run(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept for ever; reports the port."""
        async with trio.open_nursery() as nursery:
            task_status.started(int(listener.socket.getsockname()[1]))
            await trio.serve_listeners(self.serve, [listener], handler_nursery=nursery)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end; a unix socket's client is called ``local``."""
        try:
            name = stream.socket.getpeername()
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        client_ip = str(name[0]) if isinstance(name, tuple) else "local"
        if self._open[client_ip] >= self.limits.per_client_max or not self._has_room():
            self.counts["refused_connections"] += 1
            await trio.aclose_forcefully(stream)
            return
        self._open[client_ip] += 1
        try:
            await _Connection(self, stream, client_ip).serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            self.counts["broken_connections"] += 1
        except StreamStalled:
            self.counts["stalled_connections"] += 1
        except StoreBroken:
            raise
        except Exception as exc:  # ours to mend, but one client ends one connection
            self.counts["failed_connections"] += 1
            self._log.error("connection failed", ip=client_ip, error=repr(exc))
        finally:
            self._open[client_ip] -= 1
            if not self._open[client_ip]:
                del self._open[client_ip]
            await trio.aclose_forcefully(stream)

    def _has_room(self) -> bool:
        """Tell whether one more connection is taken; the one that is idle longest goes then."""
        if self._open.total() < self.limits.connections_max:
            return True
        if not self.idle:
            return False
        longest = next(iter(self.idle))
        del self.idle[longest]
        longest.cancel()
        self.counts["idle_connections_ended"] += 1
        return True

    async def answer(self, request: Request) -> Response:
        """Find the route and run its handler; whatever goes wrong becomes an answer."""
        found = [route for route in self.routes if route.matches(request.path)]
        if not found:
            return Response.refusal(404, "there is nothing under this path")
        method = "GET" if request.method == "HEAD" else request.method
        for route in found:
            if route.method not in {method, ANY}:
                continue
            try:
                with trio.move_on_after(self.limits.handler_s):
                    return await route.handler(request)
                return Response.refusal(503, "the node is too busy to answer; ask again")
            except StoreBroken:
                raise
            except Refused as refused:
                return Response.refusal(409, str(refused))
            except Exception as exc:
                self._log.error(
                    "request failed", path=self.loggable(request.path), error=repr(exc)
                )
                return Response.refusal(500, "the node failed to answer; see its log")
        allowed = ", ".join(sorted({route.method for route in found}))
        refusal = Response.refusal(405, f"this path takes {allowed}")
        return Response(405, {**refusal.headers, "Allow": allowed}, refusal.body)

    def loggable(self, path: str) -> str:
        """Return the path without what is secret in it, also where a client got it wrong."""
        for route in self.routes:
            head, found, _ = path.lower().partition(route.prefix)
            if route.secret_tail and found:
                return path[: len(head)] + route.prefix + "***"
        return path

    def finished(self, request: Request, status: int, sent: int, seconds: float) -> None:
        """Count and log one finished answer."""
        self.counts["requests"] += 1
        self.counts[f"answers_{status // 100}xx"] += 1
        self.counts["bytes_sent"] += sent
        quiet = status < 400 and any(r.quiet for r in self.routes if r.matches(request.path))
        (self._log.debug if quiet else self._log.info)(
            "request",
            method=request.method,
            path=self.loggable(request.path),
            ip=request.client_ip,
            status=status,
            bytes=sent,
            s=round(seconds, 3),
        )


class _Connection:
    """One client connection: requests one after the other until someone closes it."""

    def __init__(self, server: HttpServer, stream: trio.SocketStream, client_ip: str) -> None:
        self._server = server
        self._limits = server.limits
        self._stream = stream
        self._client_ip = client_ip
        self._head_only = False
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def serve(self) -> None:
        """Serve requests until the connection ends."""
        for _ in range(REQUESTS_PER_CONNECTION_MAX):
            try:
                if not await self._one_request():
                    return
                if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                    return
                self._h11.start_next_cycle()
            except h11.RemoteProtocolError as exc:
                self._server.counts["malformed_requests"] += 1
                if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    status = exc.error_status_hint or 400
                    refusal = Response.refusal(
                        status, "this is not a request that we understand"
                    )
                    await self._send_plain(refusal, close=True)
                return

    async def _event(self, timeout_s: float) -> Any:
        """Return the next h11 event, or None when the client is too slow."""
        with trio.move_on_after(timeout_s):
            while True:
                event = self._h11.next_event()
                if event is not h11.NEED_DATA:
                    return event
                if self._h11.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await send_bytes(
                        self._stream, self._h11.send(go_on) or b"", self._limits.stall_s
                    )
                self._h11.receive_data(await self._stream.receive_some(RECEIVE_BYTES))
        return None

    async def _first_bytes(self) -> bool:
        """Wait for the next request to begin; False when none comes."""
        if self._h11.trailing_data[0]:
            return True
        idle = self._server.idle
        with trio.move_on_after(self._limits.idle_s) as scope:
            idle[scope] = None
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            finally:
                idle.pop(scope, None)
            self._h11.receive_data(data)
            return True
        return False

    async def _one_request(self) -> bool:
        self._head_only = False  # what the request before this one was says nothing
        if not await self._first_bytes():
            return False
        head = await self._event(self._limits.head_s)
        if not isinstance(head, h11.Request):
            if head is None:
                self._server.counts["slow_requests"] += 1
            return False
        began = trio.current_time()
        request, refusal = await self._read(head)
        if refusal is not None:
            await self._send_plain(refusal, close=True)
            self._server.finished(request, refusal.status, 0, trio.current_time() - began)
            return False
        response = await self._server.answer(request)
        if response.upgrade is not None:
            target, rest = head.target.decode("latin-1"), self._h11.trailing_data[0]
            await serve_web_socket(self._stream, head.headers, target, rest, response.upgrade)
            self._server.finished(request, 101, 0, trio.current_time() - began)
            return False
        sent = 0
        try:
            if isinstance(response.body, FileBody):
                status, sent = await self._send_file_response(request, response, response.body)
            else:
                sent = await self._send_plain(response)
                status = response.status
        finally:
            if isinstance(response.body, FileBody):
                response.body.release()
        self._server.finished(request, status, sent, trio.current_time() - began)
        return True

    async def _read(self, head: h11.Request) -> tuple[Request, Response | None]:
        """Read the body; the second value is the refusal when it cannot be taken."""
        method = head.method.decode("ascii", "replace")
        self._head_only = head.method == b"HEAD"
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers
        }
        target = head.target.decode("latin-1")
        path, query = split_target(target)
        request = Request(method, path or "/", query, headers, b"", self._client_ip)
        if path is None or "\0" in path:
            return request, Response.refusal(400, "the request target cannot be read")
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > BODY_BYTES_MAX:
            return request, _too_large()
        body = bytearray()
        with trio.move_on_after(self._limits.body_s):
            while True:
                event = await self._event(self._limits.body_s)
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > BODY_BYTES_MAX:
                        return request, _too_large()
                elif isinstance(event, h11.EndOfMessage):
                    whole = Request(method, path, query, headers, bytes(body), self._client_ip)
                    return whole, None
                else:
                    break
        self._server.counts["slow_requests"] += 1
        return request, Response.refusal(408, "the request body did not arrive in time")

    async def _send_plain(self, response: Response, *, close: bool = False) -> int:
        assert isinstance(response.body, bytes)
        headers = dict(response.headers)
        if response.status != 304:
            headers["Content-Length"] = str(len(response.body))
        if close:
            headers["Connection"] = "close"
        await self._send_head(response.status, headers)
        out = b""
        if response.body and not self._head_only:  # h11 would raise: it expects none
            out = self._h11.send(h11.Data(data=response.body)) or b""
        out += self._h11.send(h11.EndOfMessage()) or b""
        await send_bytes(self._stream, out, self._limits.stall_s)
        if close:
            await self._linger()
        return len(out)

    async def _linger(self) -> None:
        """Let the client read a refusal: closing over unread bytes would reset it away."""
        with trio.move_on_after(LINGER_S):
            await self._stream.send_eof()
            left = BODY_BYTES_MAX
            while left > 0:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if not data:
                    return
                left -= len(data)

    async def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
        fields = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        head = h11.Response(status_code=status, headers=fields)
        await send_bytes(self._stream, self._h11.send(head) or b"", self._limits.stall_s)

    async def _send_file_response(
        self, request: Request, response: Response, body: FileBody
    ) -> tuple[int, int]:
        """Send a file, a part of it, or only its headers; return status and body bytes."""
        etag = f'"{body.etag}"'
        headers = {**response.headers, "ETag": etag, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = body.content_type
        if body.sha256 is not None:  # of the whole, for every part of it (RFC 9530 section 3)
            digest = base64.b64encode(body.sha256).decode()
            headers["Repr-Digest"] = f"sha-256=:{digest}:"
        if unchanged(etag, request.headers.get("if-none-match")):
            await self._send_plain(Response(304, {"ETag": etag}))
            return 304, 0
        asked = request.headers.get("range") if request.method == "GET" else None
        span = select(body.size, etag, asked, request.headers.get("if-range"))
        if span is None:
            refusal = Response.refusal(416, f"the file has {body.size} bytes")
            headers = {**refusal.headers, "Content-Range": f"bytes */{body.size}"}
            await self._send_plain(Response(416, headers, refusal.body))
            return 416, 0
        status = response.status
        if span.partial:
            status = 206
            last = span.offset + span.length - 1
            headers["Content-Range"] = f"bytes {span.offset}-{last}/{body.size}"
        headers["Content-Length"] = str(span.length)
        try:
            descriptor = body.open()
        except OSError:
            refusal = Response.refusal(404, "the file is gone")
            await self._send_plain(refusal)
            return 404, 0
        try:
            await self._send_head(status, headers)
            if request.method == "HEAD" or not span.length:
                self._h11.send(h11.EndOfMessage())
                return status, 0
            placed = h11.Data(data=_Placeholder(span.length))  # type: ignore[arg-type]
            self._h11.send_with_data_passthrough(placed)
            await body.send(self._stream, descriptor, span, self._limits.stall_s)
            self._h11.send(h11.EndOfMessage())
        finally:
            body.close(descriptor)
        return status, span.length


class _Placeholder:
    """Stands in h11's books for bytes that the kernel sends."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


def _too_large() -> Response:
    return Response.refusal(413, f"a request body has at most {BODY_BYTES_MAX} bytes")


def split_target(target: str) -> tuple[str | None, dict[str, str]]:
    """Split a request target into decoded path (None: not readable) and query."""
    try:
        parts = urlsplit(target if not target.startswith("//") else "/." + target)
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
        path = unquote(parts.path, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        return None, {}
    query: dict[str, str] = {}
    for name, value in pairs:
        query.setdefault(name, value)
    return (path if path.startswith("/") else None), query


def listen_socket(address: str, port: int) -> trio.SocketListener:
    """Open the listener on a numeric IPv4 address; raises OSError."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
