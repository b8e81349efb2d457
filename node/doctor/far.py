"""The far side: a listener that stands where a hub or peer will, and the knock at it.

So a firewall can be proved open before anything is installed there. The client sends one padded
line, the listener answers with the same number and where it saw the client. Rules: an answer is
shorter than its question (nobody can use it to flood a third party); whoever sends anything
else is closed without a word. On the hub's port the line goes inside TLS 1.3 with a throw-away
certificate, whose fingerprint shows whether somebody on the way opens TLS.
"""

import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import trio

from mesh.errors import Refused, RemoteError
from mesh.host.clock import SystemClock
from mesh.link.certificate import make_certificate
from mesh.link.tls import client_context, require_strong, server_context

Carrier = Literal["tls", "tcp", "udp"]
WORD: Final = b"rackmesh-doctor/1 "
NUMBER_CHARS: Final = 16
QUESTION_BYTES: Final = 128
ANSWER_BYTES_MAX: Final = 96
TALK_S: Final = 10.0
VISITORS_MAX: Final = 64
UDP_TRIES: Final = 4
UDP_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """One port of a listener: HOST:PORT/tls, /tcp or /udp."""

    host: str
    port: int
    carrier: Carrier

    def __str__(self) -> str:
        """Show it as it is typed."""
        return f"{self.host}:{self.port}/{self.carrier}"


def parse_target(text: str) -> Target:
    """Read HOST:PORT[/tls|/tcp|/udp]; tls when left out; Refused with one sentence."""
    where, _, carrier = text.partition("/")
    host, _, port = where.rpartition(":")
    sound = bool(host) and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536
    match carrier or "tls":
        case "tls" | "tcp" | "udp" as known if sound:
            return Target(host.strip("[]"), int(port), known)
        case _:
            raise Refused(f"{text[:80]!r} is no HOST:PORT/tls, HOST:PORT/tcp or HOST:PORT/udp")


def question() -> bytes:
    """Return a new question."""
    number = os.urandom(NUMBER_CHARS // 2).hex().encode()
    return (WORD + number).ljust(QUESTION_BYTES - 1) + b"\n"


def answer_to(data: bytes, seen: str) -> bytes | None:
    """Return the answer to a question, or None for anything else."""
    number = data[len(WORD) : len(WORD) + NUMBER_CHARS]
    if len(data) != QUESTION_BYTES or not data.startswith(WORD) or not number.isalnum():
        return None
    return (WORD + number + b" " + seen.encode()[:48])[: ANSWER_BYTES_MAX - 1] + b"\n"


def fits(asked: bytes, answer: bytes) -> bool:
    """Tell whether an answer belongs to a question."""
    return answer.startswith(asked[: len(WORD) + NUMBER_CHARS] + b" ")


# -- knocking ------------------------------------------------------------------------------


async def knock(target: Target, fingerprint: bytes | None) -> float:
    """Ask a listener; return the milliseconds it took. Raises RemoteError, OSError.

    ``fingerprint``: SHA-256 that the listener printed; None does not look.
    """
    began = trio.current_time()
    asked, answer = question(), b""
    with trio.move_on_after(TALK_S) as limit:
        if target.carrier == "udp":
            answer = await _knock_udp(target, asked)
        else:
            stream = await trio.open_tcp_stream(target.host, target.port)
            async with stream:
                answer = await _talk(stream, target, asked, fingerprint)
    if limit.cancelled_caught:
        raise RemoteError(f"no answer within {TALK_S:.0f} s: something on the way drops it")
    if not fits(asked, answer):
        raise RemoteError(
            "something else listens there" if answer else "closed without an answer"
        )
    return (trio.current_time() - began) * 1000


async def _talk(
    stream: trio.SocketStream, target: Target, asked: bytes, fingerprint: bytes | None
) -> bytes:
    if target.carrier == "tcp":
        await stream.send_all(asked)
        return bytes(await stream.receive_some(ANSWER_BYTES_MAX))
    tls = trio.SSLStream(stream, client_context(), https_compatible=True)
    try:
        await tls.do_handshake()
        require_strong(tls, fingerprint)
        await tls.send_all(asked)
        return bytes(await tls.receive_some(ANSWER_BYTES_MAX))
    except (trio.BrokenResourceError, ssl.SSLError) as exc:
        raise RemoteError(f"no TLS 1.3 there: {exc.__cause__ or exc}") from exc


async def _knock_udp(target: Target, asked: bytes) -> bytes:
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sock:
        await sock.connect((target.host, target.port))
        for _ in range(UDP_TRIES):
            with trio.move_on_after(UDP_WAIT_S):
                await sock.send(asked)
                return bytes(await sock.recv(ANSWER_BYTES_MAX))
    raise RemoteError(f"no answer to {UDP_TRIES} datagrams: something on the way drops them")


# -- listening -----------------------------------------------------------------------------


class Listener:
    """The listener of ``doctor listen``; ``tell(carrier, port, peer)`` hears of visitors."""

    def __init__(self, tell: Callable[[Carrier, int, str], None]) -> None:
        self._tell = tell
        self._visitors = trio.CapacityLimiter(VISITORS_MAX)
        with tempfile.TemporaryDirectory() as name:
            key, certificate = make_certificate(["doctor"], SystemClock().now_ms())
            paths = Path(name, "key"), Path(name, "crt")
            for path, content in zip(paths, (key, certificate), strict=True):
                path.touch(0o600)
                path.write_bytes(content)
            self._context = server_context(paths[1], paths[0])
        self.certificate = certificate

    async def run(
        self,
        address: str,
        ports: dict[Carrier, int],
        *,
        task_status: trio.TaskStatus[dict[Carrier, int]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen for ever; reports the real ports. Raises OSError when one cannot be had."""
        real: dict[Carrier, int] = {}
        async with trio.open_nursery() as nursery:
            for carrier, port in ports.items():
                kind = trio.socket.SOCK_DGRAM if carrier == "udp" else trio.socket.SOCK_STREAM
                sock = trio.socket.socket(trio.socket.AF_INET, kind)
                if carrier != "udp":
                    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
                await sock.bind((address, port))
                real[carrier] = int(sock.getsockname()[1])
                if carrier == "udp":
                    nursery.start_soon(self._serve_udp, sock, real[carrier])
                else:
                    sock.listen(VISITORS_MAX)
                    nursery.start_soon(self._serve_tcp, sock, carrier, real[carrier])
            task_status.started(real)

    async def _serve_tcp(
        self, sock: trio.socket.SocketType, carrier: Carrier, port: int
    ) -> None:
        async def one(stream: trio.SocketStream) -> None:
            try:
                self._visitors.acquire_on_behalf_of_nowait(stream)
            except trio.WouldBlock:
                await trio.aclose_forcefully(stream)
                return
            try:
                with trio.move_on_after(TALK_S):
                    await self._visit(stream, carrier, port)
            finally:
                self._visitors.release_on_behalf_of(stream)
                await trio.aclose_forcefully(stream)

        await trio.serve_listeners(one, [trio.SocketListener(sock)])

    async def _visit(self, plain: trio.SocketStream, carrier: Carrier, port: int) -> None:
        peer = _text(plain.socket.getpeername())
        stream: trio.abc.Stream = plain
        if carrier == "tls":
            stream = trio.SSLStream(
                plain, self._context, server_side=True, https_compatible=True
            )
        try:
            data = b""
            while len(data) < QUESTION_BYTES:
                piece = await stream.receive_some(QUESTION_BYTES - len(data))
                if not piece:
                    return
                data += piece
            reply = answer_to(data, peer)
            if reply is not None:
                await stream.send_all(reply)
                self._tell(carrier, port, peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            return

    async def _serve_udp(self, sock: trio.socket.SocketType, port: int) -> None:
        with sock:
            while True:
                try:
                    data, source = await sock.recvfrom(QUESTION_BYTES + 1)
                    reply = answer_to(data, _text(source))
                    if reply is not None:
                        await sock.sendto(reply, source)
                        self._tell("udp", port, _text(source))
                except OSError:
                    continue  # an ICMP error of an earlier answer


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
