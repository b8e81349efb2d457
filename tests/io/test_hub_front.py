"""The doors on loopback: what goes to the mesh, what to the web, who is let in locally."""

import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hub.api.upload import Uploads
from hub.app import make_app
from hub.front import Front, WebSide, listen_tcp
from hub.tls import load_or_make_tls
from mesh.errors import Refused
from mesh.host.local_socket import listen_local, peer_uid
from mesh.link.tls import client_context
from tests.support.hub_bench import API_TOKEN, Bench, fill, hub_bench


@dataclass
class House:
    bench: Bench
    port: int
    socket: Path
    mesh: list[bytes]

    async def ask(
        self, head: str, body: bytes = b"", context: ssl.SSLContext | None = None
    ) -> bytes:
        stream: Any = await trio.open_tcp_stream("127.0.0.1", self.port)
        context = context or client_context()
        stream = trio.SSLStream(stream, context, server_hostname="x", https_compatible=True)
        return await _exchange(stream, head, body)

    async def ask_local(self, head: str) -> bytes:
        return await _exchange(await trio.open_unix_socket(str(self.socket)), head, b"")


async def _exchange(stream: Any, head: str, body: bytes) -> bytes:
    with trio.fail_after(10):
        async with stream:
            request = head.replace("\n", "\r\n") + "\r\nHost: hub\r\nConnection: close\r\n\r\n"
            await stream.send_all(request.encode() + body)
            answer = b""
            while data := await stream.receive_some():
                answer += data
            return answer


@asynccontextmanager
async def house(folder: Path) -> AsyncGenerator[House]:
    async with hub_bench(folder) as bench, trio.open_nursery() as nursery:
        fill(bench)
        await bench.ingest.read_all()
        seen: list[bytes] = []

        async def mesh_door(stream: Any) -> None:
            seen.append(bytes(await stream.receive_some()))
            await stream.aclose()

        web = WebSide(make_app(bench.services), Uploads(bench.services))
        tls = load_or_make_tls(folder, ["127.0.0.1", "localhost"], 1_700_000_000_000)
        front = Front(web, tls, mesh_door)
        port, local = await listen_tcp("127.0.0.1", 0), await listen_local(folder / "api.sock")
        await nursery.start(front.serve, port, local)
        number = port.socket.getsockname()[1]
        yield House(bench, number, folder / "api.sock", seen)
        front.stop()


async def test_the_mesh_path_goes_to_the_mesh_and_the_rest_to_the_web(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        await at.ask("GET /mesh/1 HTTP/1.1\nUpgrade: websocket")
        assert at.mesh[0].startswith(b"GET /mesh/1 HTTP/1.1\r\n")
        answer = await at.ask("GET /healthz HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"ok\n")
        assert b"server:" not in answer.lower()
        assert len(at.mesh) == 1


async def test_only_tls_1_3_with_256_bits_is_served(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        old = client_context()
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(trio.BrokenResourceError):
            await at.ask("GET /healthz HTTP/1.1", context=old)
        stream = await trio.open_tcp_stream("127.0.0.1", at.port)
        secured = trio.SSLStream(stream, client_context(), https_compatible=True)
        await secured.do_handshake()
        assert secured.cipher()[2] == 256
        await trio.aclose_forcefully(stream)


async def test_a_local_user_needs_no_password_and_the_socket_is_private(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as at:
        assert at.socket.stat().st_mode & 0o777 == 0o600
        answer = await at.ask_local("GET /api/v1/servers HTTP/1.1")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"web-1"' in answer
        assert (await at.ask("GET /api/v1/servers HTTP/1.1")).startswith(b"HTTP/1.1 401")


async def test_the_kernel_says_who_is_at_the_socket(tmp_path: Path) -> None:
    listener = await listen_local(tmp_path / "s.sock")
    async with listener, await trio.open_unix_socket(str(tmp_path / "s.sock")):
        async with await listener.accept() as stream:
            assert peer_uid(stream.socket) == os.geteuid()


async def test_an_upload_streams_past_the_body_limit(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        content = os.urandom(3 << 20)
        head = "PUT /api/v1/assets/img/content HTTP/1.1\n" + f"Content-Length: {len(content)}"
        assert (await at.ask(head, content)).startswith(b"HTTP/1.1 401")
        head += f"\nAuthorization: Bearer {API_TOKEN}"
        assert (await at.ask(head, content)).startswith(b"HTTP/1.1 201")
        assert at.bench.fake.uploads["img"] == content


async def test_garbage_ends_only_its_own_connection(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        for garbage in (b"", b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\n\r\n"):
            async with await trio.open_tcp_stream("127.0.0.1", at.port) as stream:
                await stream.send_all(garbage)
        await at.ask("\x00\x01 nonsense")
        assert (await at.ask("GET /healthz HTTP/1.1")).startswith(b"HTTP/1.1 200")


async def test_a_taken_port_is_one_sentence() -> None:
    async with await listen_tcp("127.0.0.1", 0) as listener:
        number = listener.socket.getsockname()[1]
        with pytest.raises(Refused, match=f"port {number}"):
            await listen_tcp("127.0.0.1", number)


async def test_stopping_ends_open_event_streams_in_bounded_time(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with house(tmp_path) as at:
            stream = await trio.open_unix_socket(str(at.socket))
            await stream.send_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await stream.aclose()


def test_the_certificate_is_made_once(tmp_path: Path) -> None:
    first = load_or_make_tls(tmp_path, ["hub.example", "::1"], 1_700_000_000_000)
    again = load_or_make_tls(tmp_path, ["other.example"], 1_700_000_000_000)
    assert first.sha256 == again.sha256
    assert first.fingerprint.count(":") == 31
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "tls.key").write_text("damaged")
    with pytest.raises(Refused, match="TLS certificate"):
        load_or_make_tls(tmp_path, [], 0)


async def test_a_refusal_waits_for_the_body_and_the_connection_lives_on(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        stream = await trio.open_unix_socket(str(at.socket))
        async with stream:
            for method, path in (("POST", "/nowhere"), ("QUERY", "/servers")) * 10:
                head = (
                    f"{method} /api/v1{path} HTTP/1.1\r\nHost: hub\r\nContent-Length: 2\r\n\r\n"
                )
                await stream.send_all(head.encode())
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_all(b"{}")
                answer = b""
                with trio.fail_after(10):
                    while not answer.endswith(b"}"):
                        data = await stream.receive_some()
                        assert data, "the connection was closed"
                        answer += data
                assert answer.startswith(b"HTTP/1.1 40"), answer


async def test_stopping_cuts_off_who_asks_and_never_reads(tmp_path: Path) -> None:
    with trio.fail_after(15):
        async with house(tmp_path) as at:
            stream = await trio.open_unix_socket(str(at.socket))
            ask = b"GET /static/vendor/htmx/htmx.min.js HTTP/1.1\r\nHost: x\r\n\r\n"
            with trio.move_on_after(1):
                await stream.send_all(ask * 50_000)
        await stream.aclose()
