"""Smoke of the boot listener over loopback: curl, raw sockets and a slow client."""

import base64
import hashlib
import json
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from mesh.errors import Refused, StoreBroken
from mesh.host.log import get_log
from node.boot.http import (
    FileBody,
    HttpLimits,
    HttpServer,
    Request,
    Response,
    Route,
    listen_socket,
)
from node.boot.sockets import allow_many_sockets

CONTENT = bytes(range(256)) * 8192  # 2 MiB
GUARD_S = 20.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    return path


@asynccontextmanager
async def serving(
    routes: list[Route], limits: HttpLimits | None = None
) -> AsyncIterator[tuple[HttpServer, int]]:
    server = HttpServer(routes, get_log("http"), limits)
    with trio.fail_after(GUARD_S):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.run, listen_socket("127.0.0.1", 0))
            yield server, port
            nursery.cancel_scope.cancel()


def file_route(image: Path, wait: Callable[..., object] | None = None) -> Route:
    async def handler(request: Request) -> Response:
        return Response(
            body=FileBody(image, len(CONTENT), "v1", wait=wait)  # type: ignore[arg-type]
        )

    return Route("GET", "/file", handler)


async def echo(request: Request) -> Response:
    return Response.json(
        {"path": request.path, "query": request.query, "body": request.body.decode("latin-1")}
    )


async def talk(port: int, request: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        received = b""
        while data := await stream.receive_some(65536):
            received += data
        return received


async def curl(port: int, path: str, *options: str) -> bytes:
    done = await trio.run_process(
        ["curl", "-sS", "--max-time", "10", *options, f"http://127.0.0.1:{port}{path}"],
        capture_stdout=True,
    )
    return done.stdout


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
async def test_curl_fetches_a_whole_file_a_range_and_only_the_headers(image: Path) -> None:
    async with serving([file_route(image)]) as (_, port):
        assert await curl(port, "/file") == CONTENT
        assert await curl(port, "/file", "-r", "1000-1999") == CONTENT[1000:2000]
        assert await curl(port, "/file", "-r", "-5") == CONTENT[-5:]
        head = await curl(port, "/file", "-I")
        assert b"200" in head.split(b"\r\n")[0]
        assert b"content-length: 2097152" in head.lower()
        assert b'etag: "v1"' in head.lower()
        outside = await curl(
            port, "/file", "-r", "2097152-", "-o", os.devnull, "-w", "%{http_code}"
        )
        assert outside == b"416"


@needs_curl
async def test_curl_resumes_only_the_same_entity(image: Path) -> None:
    async with serving([file_route(image)]) as (_, port):
        same = await curl(port, "/file", "-r", "10-19", "-H", 'If-Range: "v1"')
        other = await curl(port, "/file", "-r", "10-19", "-H", 'If-Range: "v0"')
        assert same == CONTENT[10:20]
        assert other == CONTENT


async def test_one_connection_serves_head_get_range_and_post_in_turn(image: Path) -> None:
    routes = [file_route(image), Route("POST", "/echo", echo)]
    async with serving(routes) as (server, port):
        answer = await talk(
            port,
            b"HEAD /file HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /file HTTP/1.1\r\nHost: a\r\nRange: bytes=0-3\r\n\r\n"
            b"POST /echo?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close"
            b"\r\n\r\nhi",
        )
        assert answer.count(b"HTTP/1.1 ") == 3
        assert b"206 \r\n" in answer
        assert b"content-range: bytes 0-3/2097152" in answer.lower()
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == {
            "path": "/echo",
            "query": {"x": "1"},
            "body": "hi",
        }
        assert server.statistics()["requests"] == 3


async def test_colons_that_firmware_percent_encodes_are_decoded() -> None:
    async with serving([Route("GET", "/a/", echo)]) as (_, port):
        answer = await talk(
            port,
            b"GET /a/x%3Ay?mac=52%3A54%3a00 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        said = json.loads(answer.rpartition(b"\r\n\r\n")[2])
        assert said["path"] == "/a/x:y"
        assert said["query"] == {"mac": "52:54:00"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"404"),
        (b"POST /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"405"),
        (b"PUT /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"405"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", b"413"),
        (b"GET /%ff HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"GET /echo%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 50_000 + b"\r\n\r\n", b"431"),
        (b"POST /refuse HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"409"),
        (b"POST /break HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"500"),
    ],
)
async def test_what_cannot_be_served_gets_its_status(
    image: Path, request_bytes: bytes, status: bytes
) -> None:
    async def refuse(request: Request) -> Response:
        raise Refused("not now")

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    routes = [
        file_route(image),
        Route("POST", "/echo", echo),
        Route("POST", "/refuse", refuse),
        Route("POST", "/break", broken),
    ]
    async with serving(routes) as (_, port):
        answer = await talk(port, request_bytes)
        assert answer.split(b" ")[1] == status


async def test_a_broken_store_ends_the_process() -> None:
    async def broken(request: Request) -> Response:
        raise StoreBroken("disk")

    with pytest.RaisesGroup(StoreBroken, flatten_subgroups=True, allow_unwrapped=True):
        async with serving([Route("GET", "/x", broken)]) as (_, port):
            await talk(port, b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await trio.sleep_forever()


async def test_a_file_is_served_while_it_arrives(image: Path) -> None:
    arrived = trio.Event()
    asked: list[tuple[int, int]] = []

    async def wait(offset: int, length: int) -> None:
        asked.append((offset, length))
        if offset:
            await arrived.wait()

    async with serving([file_route(image, wait)]) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            received = b""
            while len(received) < 100_000:
                received += await stream.receive_some(65536)
            arrived.set()
            while data := await stream.receive_some(65536):
                received += data
        assert received.partition(b"\r\n\r\n")[2] == CONTENT
        assert sum(length for _, length in asked) >= len(CONTENT)


async def test_an_asset_that_fails_ends_the_connection_short(image: Path) -> None:
    async def wait(offset: int, length: int) -> None:
        if offset:
            raise OSError("origin gone")

    async with serving([file_route(image, wait)]) as (server, port):
        answer = await talk(port, b"GET /file HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert len(answer) < len(CONTENT)
        assert server.statistics()["stalled_connections"] == 1


async def test_a_client_that_takes_nothing_is_given_up_and_blocks_nobody(
    image: Path,
) -> None:
    limits = HttpLimits(stall_s=0.3)
    image.write_bytes(CONTENT)
    with image.open("r+b") as file:
        file.truncate(1 << 30)

    async def handler(request: Request) -> Response:
        return Response(body=FileBody(image, 1 << 30, "big"))

    routes = [Route("GET", "/big", handler), Route("POST", "/echo", echo)]
    async with serving(routes, limits) as (server, port):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port))
            slow.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            while not server.counts["stalled_connections"]:
                answer = await talk(
                    port,
                    b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                    b"Content-Length: 0\r\n\r\n",
                )
                assert answer.startswith(b"HTTP/1.1 200")


async def test_a_client_that_never_finishes_its_request_is_given_up() -> None:
    async with serving([], HttpLimits(head_s=0.05)) as (server, port):
        assert await talk(port, b"GET / HTTP/1.1\r\nHost:") == b""
        assert server.counts["slow_requests"] == 1


async def test_one_client_has_a_bounded_number_of_connections() -> None:
    async with serving([Route("POST", "/echo", echo)], HttpLimits(per_client_max=1)) as (
        server,
        port,
    ):
        first = await trio.open_tcp_stream("127.0.0.1", port)
        async with first:
            request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            await first.send_all(request)
            assert (await first.receive_some(65536)).startswith(b"HTTP/1.1 200")
            second = await trio.open_tcp_stream("127.0.0.1", port)
            async with second:
                assert await second.receive_some(1) == b""
        assert server.counts["refused_connections"] == 1


async def answered(stream: trio.SocketStream, request: bytes, end: bytes) -> bool:
    """Ask on a kept connection; say whether the whole answer came."""
    await stream.send_all(request)
    received = b""
    while not received.endswith(end):
        data = await stream.receive_some(65536)
        if not data:
            return False
        received += data
    return received.startswith(b"HTTP/1.1 20")


async def test_the_connection_that_is_idle_longest_makes_room_for_a_new_one() -> None:
    asked = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"}"
    route = Route("POST", "/echo", echo)
    async with serving([route], HttpLimits(connections_max=3)) as (server, port):
        kept = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        for stream in (*kept, kept[0]):  # the first is not idle longest any more
            assert await answered(stream, *asked)
        kept.append(await trio.open_tcp_stream("127.0.0.1", port))
        assert await answered(kept[3], *asked)
        assert await kept[1].receive_some(1) == b"", "the second was idle longest"
        for stream in (kept[0], kept[2], kept[3]):
            assert await answered(stream, *asked)
        assert server.counts["idle_connections_ended"] == 1
        for stream in kept:
            await stream.aclose()


async def test_thousands_of_keep_alive_clients_are_served_in_turn(image: Path) -> None:
    allow_many_sockets()
    asked = b"GET /file HTTP/1.1\r\nHost: a\r\nRange: bytes=5-8\r\n\r\n", CONTENT[5:9]
    limits = HttpLimits(per_client_max=3000)
    async with serving([file_route(image)], limits) as (server, port), AsyncExitStack() as kept:
        streams = [
            await kept.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            for _ in range(2000)
        ]
        for _ in range(2):
            assert all([await answered(stream, *asked) for stream in streams])
        assert server.statistics()["connections"] == 2000


async def test_every_part_carries_the_digest_of_the_whole(image: Path) -> None:
    """RFC 9530 section 3: of the representation, not of what was asked for."""
    sha256 = hashlib.sha256(CONTENT).digest()

    async def handler(request: Request) -> Response:
        return Response(body=FileBody(image, len(CONTENT), "v1", sha256=sha256))

    expected = f"repr-digest: sha-256=:{base64.b64encode(sha256).decode()}:"
    async with serving([Route("GET", "/file", handler)]) as (_, port):
        for options in (("-I",), ("-r", "5-8", "-D", "-"), ("-D", "-", "-o", os.devnull)):
            said = (await curl(port, "/file", *options)).decode("latin-1")
            assert expected in said.replace("Repr-Digest", "repr-digest"), options


async def test_expect_100_is_answered_before_the_body_is_read() -> None:
    async with serving([Route("POST", "/echo", echo)]) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(
                b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
                b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
            )
            assert b" 100 " in await stream.receive_some(1000)
            await stream.send_all(b"ok")
            answer = b""
            while data := await stream.receive_some(1000):
                answer += data
            assert b'"body":"ok"' in answer


@pytest.mark.parametrize("seed", range(4))
async def test_garbage_never_stops_the_server_with_seed(seed: int, image: Path) -> None:
    rng = random.Random(seed)
    good = b"POST /echo?a=%41 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    async with serving([file_route(image), Route("POST", "/echo", echo)]) as (server, port):
        for _ in range(50):
            data = bytearray(good * rng.randint(1, 3))
            for _ in range(rng.randint(1, 12)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(data[: rng.randrange(len(data))])
                await stream.send_eof()
                with suppress(trio.BrokenResourceError):
                    while await stream.receive_some(65536):
                        pass
        request = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert (await talk(port, request)).startswith(b"HTTP/1.1 200")
        while server.statistics()["connections"]:
            await trio.lowlevel.checkpoint()


def test_what_follows_a_secret_prefix_stays_out_of_logs() -> None:
    server = HttpServer([Route("POST", "/phone/v1/", echo, secret_tail=True)], get_log("http"))
    assert server.loggable("/phone/v1/SECRET") == "/phone/v1/***"
    assert server.loggable("/boot/v1/script") == "/boot/v1/script"
