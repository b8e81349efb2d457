"""Chunks in clear between nodes of one site: plain HTTP, bodies by sendfile.

Images are no secrets (machines get them in clear, too), and sealing them costs more than all
else about them. Rules: only members of the site are told, over a link, where to ask and with
which token; bytes leave after they were verified, and who takes them verifies them again, so
nobody on the wire can do more than refuse; whatever fails here goes over the link instead.
"""

import hashlib
import hmac
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from cache.api import WAIT_S, Ask, Cache, ChunkUnavailable, Later
from mesh.errors import Refused
from mesh.host.log import get_log
from mesh.proto.ids import ASSET_PATTERN
from node.boot.http import (
    FileBody,
    HttpLimits,
    HttpServer,
    Request,
    Response,
    Route,
    listen_socket,
)

PREFIX: Final = "/chunks/"
TOKEN_BYTES: Final = 16
LIMITS: Final = HttpLimits(
    connections_max=512, per_client_max=128, idle_s=30.0, stall_s=15.0, handler_s=3 * WAIT_S
)
HEAD_BYTES_MAX: Final = 4 << 10
ANSWER_BYTES_MAX: Final = 2 << 10
"""Of an answer that is no chunk."""
STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *([0-9]{1,9})\r")
CONNECT_S: Final = 3.0
STALL_S: Final = 15.0
"""Longer than a call waits at the other end."""
READY_BYTES: Final = 512 << 10
"""A body is taken in pieces of this size, so that few wake-ups carry much."""
log = get_log("clear")


class ClearFailed(Exception):
    """The other end did not answer as it should; the link may do."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a node gives the chunks of one asset in clear."""

    host: str
    port: int
    token: str


@dataclass(frozen=True, slots=True)
class Place:
    """A chunk of an asset in its file."""

    asset: str
    index: int
    offset: int
    size: int


class ClearServer:
    """The giving side; ``run`` opens the port."""

    def __init__(self, cache: Cache, is_near: Callable[[str], bool]) -> None:
        """``is_near``: whether a member belongs to our site."""
        self._cache, self._is_near = cache, is_near
        self._key, self._port = os.urandom(32), 0
        self.http = HttpServer(
            [Route("GET", PREFIX, self._get, secret_tail=True, quiet=True)], log, LIMITS
        )

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the call by which members learn where to ask."""
        return {"cache.clear": self._offer}

    async def run(
        self, address: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled; without a port everything goes over links."""
        try:
            listener = listen_socket(address, 0)
        except OSError as exc:
            log.warning("no chunks in clear", error=exc)
            task_status.started()
            return
        async with trio.open_nursery() as nursery:
            self._port = await nursery.start(self.http.run, listener)
            task_status.started()

    async def _offer(self, peer: str, body: Any) -> Any:
        asset = body.get("asset") if isinstance(body, dict) else None
        if not isinstance(asset, str) or not ASSET_PATTERN.match(asset):
            raise Refused("that call needs an asset id")
        if not self._port or not self._is_near(peer):
            raise Refused("there are no chunks in clear for you here")
        return {"port": self._port, "token": self._token(asset)}

    def _token(self, asset: str) -> str:
        keyed = hashlib.blake2b(asset.encode(), digest_size=TOKEN_BYTES, key=self._key)
        return keyed.hexdigest()

    async def _get(self, request: Request) -> Response:
        token, _, rest = request.path.removeprefix(PREFIX).partition("/")
        asset, _, number = rest.partition("/")
        known = hmac.compare_digest(token.encode(), self._token(asset).encode())
        if not known or not number.isascii() or not number.isdigit() or len(number) > 9:
            return Response.refusal(404, "there is no such chunk")
        index, wait_s = int(number), WAIT_S if "wait" in request.query else 0.0
        try:
            later = await self._cache.await_chunk(
                asset, index, wait_s, "first" in request.query
            )
        except ChunkUnavailable as exc:
            return Response.refusal(404, str(exc))
        if later is not None:
            return Response.json({"have": later.have})
        reader = self._cache.reader(asset)
        if reader is None:
            return Response.refusal(404, "the asset went")
        etag = asset.partition(":")[2]
        return Response(body=FileBody(reader.fd, reader.size, etag, wait=reader.wait))


class ClearClient:
    """The taking side of one node: a few connections that are kept as long as it lives."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._idle: list[trio.socket.SocketType] = []
        self._closed = False

    def close(self) -> None:
        """Close all connections, those in use when they become idle."""
        self._closed = True
        for sock in self._idle:
            sock.close()
        self._idle.clear()

    async def chunk(self, place: Place, ask: Ask) -> bytearray | Later:
        """Return a chunk's bytes (unverified), or that a fellow will have it.

        Raises ChunkUnavailable: it does not come there; ClearFailed: anything else.
        """
        sock = self._idle.pop() if self._idle else await self._connect()
        try:
            found = await self._exchange(sock, place, ask)
        except (OSError, trio.TooSlowError, ValueError) as exc:
            sock.close()
            raise ClearFailed(str(exc) or "no answer") from exc
        except BaseException:
            sock.close()
            raise
        if self._closed:
            sock.close()
        else:
            self._idle.append(sock)
        if found is None:
            raise ChunkUnavailable(f"chunk {place.index} of {place.asset} is not there")
        if isinstance(found, Later) and not ask.shared:
            raise ChunkUnavailable(f"chunk {place.index} of {place.asset} is not there yet")
        return found

    async def _connect(self) -> trio.socket.SocketType:
        sock = trio.socket.socket()
        try:
            with trio.fail_after(CONNECT_S):
                await sock.connect((self._offer.host, self._offer.port))
        except (OSError, trio.TooSlowError) as exc:
            sock.close()
            raise ClearFailed(str(exc) or "no answer") from exc
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    async def _exchange(
        self, sock: trio.socket.SocketType, place: Place, ask: Ask
    ) -> bytearray | Later | None:
        """Ask once; None: refused."""
        query = "?wait" * ask.shared + "&first" * (ask.shared and ask.first)
        last = place.offset + place.size - 1
        head = (
            f"GET {PREFIX}{self._offer.token}/{place.asset}/{place.index}{query} HTTP/1.1\r\n"
            f"Host: {self._offer.host}\r\nRange: bytes={place.offset}-{last}\r\n\r\n"
        )
        await sock.send(head.encode())
        status, length, begun = await _read_head(sock)
        if status == 206 and length == place.size:
            return await _read_body(sock, length, begun)
        if length > ANSWER_BYTES_MAX:
            raise ValueError(f"an answer of {length} bytes")
        body = await _read_body(sock, length, begun)
        if status == 404:
            return None
        match json.loads(body) if status == 200 else None:
            case {"have": int() | None as have}:
                return Later(have)
            case _:
                raise ValueError(f"status {status}")


async def _read_head(sock: trio.socket.SocketType) -> tuple[int, int, bytes]:
    """Return status, length of the body and what of it came along; raises as ``chunk`` does.

    Nothing else of a head is looked at: what comes is verified, whatever it says of itself.
    """
    data = b""
    with trio.fail_after(STALL_S):
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_BYTES_MAX:
                raise ValueError("a head without an end")
            piece = await sock.recv(HEAD_BYTES_MAX)
            if not piece:
                raise OSError("the connection ended")
            data += piece
    head = data[: end + 2]
    status, lengths = STATUS.match(head), LENGTH.findall(head)
    if status is None or len(lengths) != 1:
        raise ValueError("an answer without status or length")
    return int(status[1]), int(lengths[0]), data[end + 4 :]


async def _read_body(sock: trio.socket.SocketType, length: int, begun: bytes) -> bytearray:
    if len(begun) > length:
        raise ValueError("more than was asked for")
    body = bytearray(length)
    body[: len(begun)] = begun
    view, at = memoryview(body), len(begun)
    while at < length:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(READY_BYTES, length - at))
        with trio.fail_after(STALL_S):
            await trio.lowlevel.wait_readable(sock.fileno())
            count = await sock.recv_into(view[at:])
        if not count:
            raise OSError("the connection ended")
        at += count
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return body
