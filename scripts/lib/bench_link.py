"""How fast is one encrypted stream: our bulk link and trio's TLS, two processes, one run.

Both send MEGABYTES in 64 KiB pieces from this process to a child that counts them and answers
when all are there; rounds alternate, the best of each counts.
"""

import argparse
import json
import os
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mesh.link.flow import MessageStream
from mesh.link.tls import client_context, require_strong, server_context
from mesh.proto.link import STREAM_DATA_BYTES_MAX
from tests.support.link_mesh import Place, make_certificate
from tests.support.trust import Org

LIMIT_S: Final = 300.0
PIECES_A_MEGABYTE: Final = 16


def organisation() -> Org:
    org = Org()
    org.admit("a")
    org.admit("b")
    return org


async def count(_peer: str, body: Any, stream: MessageStream) -> None:
    """Take so many bytes, then say so."""
    left = int(body)
    while left > 0:
        left -= len(await stream.receive())
    await stream.send(b"done")


async def count_tls(stream: trio.SSLStream[trio.SocketStream]) -> None:
    left = int.from_bytes(await stream.receive_some(8), "big")
    while left > 0:
        data = await stream.receive_some(STREAM_DATA_BYTES_MAX)
        if not data:
            return
        left -= len(data)
    await stream.send_all(b"done")


async def child(folder: Path) -> None:
    place = Place(organisation(), "b", streams={"count": count})
    context = server_context(folder / "hub.pem", folder / "hub.key")

    async def serve(stream: trio.SocketStream) -> None:
        await count_tls(trio.SSLStream(stream, context, server_side=True))

    with trio.move_on_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(place.peers.run)
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            ports = [place.peers.port, listener.socket.getsockname()[1]]
            print(json.dumps(ports), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()


async def over_link(place: Place, peer: str, size: int) -> float:
    piece = bytes(STREAM_DATA_BYTES_MAX)
    async with place.peers.bulk(peer) as link:
        started = trio.current_time()
        async with link.stream("count", size) as stream:
            for _ in range(size // len(piece)):
                await stream.send(piece)
            await stream.receive()
        return size / (trio.current_time() - started)


async def over_tls(port: int, size: int) -> float:
    piece = bytes(STREAM_DATA_BYTES_MAX)
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), client_context(), https_compatible=True
    )
    await stream.do_handshake()
    require_strong(stream)
    started = trio.current_time()
    await stream.send_all(size.to_bytes(8, "big"))
    for _ in range(size // len(piece)):
        await stream.send_all(piece)
    await stream.receive_some(4)
    rate = size / (trio.current_time() - started)
    await trio.aclose_forcefully(stream)
    return rate


def cpu_s(pid: int) -> float:
    """Return the CPU time of this process and the child so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    child_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return child_s + sum(os.times()[:2])


async def measure(ports: list[int], pid: int, size: int, rounds: int) -> list[list[float]]:
    """Return rounds of MB/s and us of CPU a 64 KiB piece: link, then TLS."""
    org = organisation()
    place, peer = Place(org, "a", listen=False), Place(org, "b").id
    place.addresses[peer] = [("127.0.0.1", ports[0])]
    pieces = size / STREAM_DATA_BYTES_MAX
    figures: list[list[float]] = []
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(place.peers.run)
            for number in range(rounds):
                began = cpu_s(pid)
                tls = await over_tls(ports[1], size) / 1e6
                between = cpu_s(pid)
                link = await over_link(place, peer, size) / 1e6
                link_us = (cpu_s(pid) - between) / pieces * 1e6
                tls_us = (between - began) / pieces * 1e6
                print(
                    f"round {number + 1}: link {link:7.1f} MB/s {link_us:5.0f} us/64 KiB"
                    f"   trio TLS {tls:7.1f} MB/s {tls_us:5.0f} us/64 KiB",
                    flush=True,
                )
                figures.append([link, link_us, tls, tls_us])
            nursery.cancel_scope.cancel()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        trio.run(child, options.child)
        return
    with tempfile.TemporaryDirectory() as name:
        make_certificate(Path(name))
        with subprocess.Popen(
            [sys.executable, __file__, "--child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            try:
                ports = json.loads(process.stdout.readline())
                pieces = options.megabytes * PIECES_A_MEGABYTE
                size = pieces * STREAM_DATA_BYTES_MAX
                figures = trio.run(measure, ports, process.pid, size, options.rounds)
            finally:
                process.stdin.close()
    link, link_us, tls, tls_us = zip(*figures, strict=True)
    print(
        f"{options.rounds} rounds of {options.megabytes} MiB in pieces of"
        f" {STREAM_DATA_BYTES_MAX} bytes; trio {trio.__version__}, {ssl.OPENSSL_VERSION},"
        f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    values = {
        "mb_per_s": round(max(link)),
        "tls_mb_per_s": round(max(tls)),
        "ratio": round(max(link) / max(tls), 2),
        "cpu_us": round(min(link_us)),
        "tls_cpu_us": round(min(tls_us)),
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
