"""Nonsense on every open port of a live fleet: it is dropped, and the work goes on."""

import json
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.support.fleet import Fleet, run

SEED = 20261123
ROUNDS = 30
BIG = 1 << 20
PATHS = (b"/", b"/mesh/1", b"/api/v1/servers", b"/assets/b3:x", b"/agent/v1/hello",
         b"/boot/v1/script?mac=zz", b"/phone/v1/" + b"A" * 300, b"/redfish/v1/Systems/sim-1",
         b"/boot/v1/file/../../../etc/passwd")  # fmt: skip


def requests(rng: random.Random) -> Iterator[bytes]:
    """Things that begin like HTTP, and things that do not."""
    for path in PATHS:
        yield b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        yield b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n{"
        yield b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\xff\x00[["
        yield b"POST " + path + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"
        yield b"PUT " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"
        yield b"GET " + path + b" HTTP/1.1\r\nRange: bytes=9-1,-,x\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * BIG
    yield b"GET /mesh/1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + bytes(
        99
    )
    yield bytes(BIG)
    for kind in (1, 2, 3, 255):
        yield bytes([0, 48, kind]) + rng.randbytes(48)
        yield bytes([255, 255, kind]) + rng.randbytes(200)
    for _ in range(ROUNDS):
        yield rng.randbytes(rng.choice((1, 7, 64, 1500, 70_000)))


def throw(host: str, port: int, data: bytes, wrap: ssl.SSLContext | None = None) -> None:
    """Send and hang up, without waiting long for what they say."""
    with suppress(OSError), socket.create_connection((host, port), 2) as plain:
        plain.settimeout(0.05)
        stream = wrap.wrap_socket(plain, server_hostname="x") if wrap else plain
        with stream, suppress(OSError):
            stream.sendall(data)
            stream.recv(4096)


def datagrams(rng: random.Random) -> Iterator[bytes]:
    """DHCP and TFTP packets that are cut, oversized, or filled with noise."""
    cookie = b"\x63\x82\x53\x63"
    for _ in range(ROUNDS):
        head = bytes([1, 1, rng.choice((0, 6, 16, 255)), 0]) + rng.randbytes(232)
        yield head + cookie + rng.randbytes(rng.choice((0, 1, 60, 1200)))
        yield head + cookie + bytes([53, 1, rng.randrange(9), 93, 2, 0xFF, 0xFF, 82, 255, 1])
        yield head[: rng.randrange(len(head))]
        yield bytes([0, rng.choice((0, 1, 2, 3, 5, 6, 9))]) + rng.randbytes(rng.randrange(900))
        yield b"\0\1../../etc/passwd\0octet\0blksize\x00999999\0"
        yield b"\0\1vmlinuz\0netascii"
        yield rng.randbytes(rng.choice((0, 1, 3, 241, 60_000)))


@pytest.mark.slow
def test_garbage_on_every_port_breaks_nothing(site: Fleet) -> None:
    site.make_available("srv3")
    rng = random.Random(SEED)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    https = json.loads((site.hub / "run" / "ports.json").read_text())["https"]
    ports = json.loads((site.two / "run" / "ports.json").read_text())
    bmc = int(site.machines()[0]["bmc"].split(":")[2].partition("/")[0])
    targets: list[tuple[int, ssl.SSLContext | None]] = [
        (https, None), (https, trusting), (ports["mesh"], None), (ports["http"], None),
        (bmc, None),
    ]  # fmt: skip
    for port, wrap in targets:
        for data in requests(rng):
            throw("127.0.0.1", port, data, wrap)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        for name in ("dhcp", "tftp"):
            for data in datagrams(rng):
                udp.sendto(data, ("127.0.0.1", ports[name]))
    site.processes.check()
    for data in (site.one, site.two):
        site.wait_linked(data)
    site.succeeded(site.deploy_order("srv3"))
    assert site.disk_holds_image(2)
    pending = site.get(site.two, "/pending")
    known = {machine["mac"] for machine in site.machines()}
    assert {item["mac"] for item in pending} <= known, "noise makes no machines"
    site.no_traceback()


def test_garbage_at_the_command_line_is_one_sentence(site: Fleet) -> None:
    checks: list[tuple[tuple[str, ...], Callable[[int], bool]]] = [
        (("server", "show", "../../etc"), lambda code: code == 4),
        (("server", "show", ""), lambda code: code == 2),
        (("server", "show", "\u202e\x1b[31m"), lambda code: code == 4),
        (("job", "show", "x" * 5000), lambda code: code == 4),
        (("asset", "add", "bad name!", "http://x/"), lambda code: code == 2),
        (("secret", "set", "s", "--site", "No Such"), lambda code: code == 2),
        (("api", "GET", "no-slash"), lambda code: code == 2),
        (("api", "GET", "//other.example/x"), lambda code: code == 2),
        (("api", "GET", "/nothing/here"), lambda code: code == 4),
    ]
    both = [(words, right, data) for words, right in checks for data in (site.hub, site.two)]
    for words, right, data in both:
        if data == site.two and words[0] in ("asset", "secret"):
            continue  # a node's own API has no such writes
        said = run(*words, "--data", data, stdin="x")
        assert right(said.code), (words, said)
        assert len(said.err.strip().splitlines()) == 1, (words, said.err)
        assert "\x1b" not in said.err
        assert len(said.err) < 1000
    site.no_traceback()
