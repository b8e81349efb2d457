"""A scan for BMCs on loopback: whom it finds, and what it makes of services that misbehave."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from drivers.proto.scan import Done, Hit, Scan, ScanLimits
from drivers.scan import scan_bmcs
from node.rack.config import RackConfig
from node.rack.main import RackInfo, run_rack
from tests.support import ipmi_sim as sim
from tests.support.hostile_bmc import (
    CLOSE,
    DRIP,
    HANG,
    always,
    answer,
    hostile_bmc,
)
from tests.support.redfish_emulator import need_emulator, redfish_emulator
from tests.support.self_signed import self_signed

QUICK = ScanLimits(ping_wait_s=0.3)


async def scanned(
    hosts: list[str], limits: ScanLimits = QUICK, **how: object
) -> tuple[Done, list[Hit], list[tuple[int, int]]]:
    hits, seen = list[Hit](), list[tuple[int, int]]()

    async def found(hit: Hit) -> None:
        hits.append(hit)

    async def progress(asked: int, total: int) -> None:
        seen.append((asked, total))

    with trio.fail_after(60):
        how = {"ports": (), "root_s": 2.0, **how}
        how.setdefault("rmcp_port", sim.free_port())
        done = await scan_bmcs(hosts, found, progress, scan=Scan(hosts, limits), **how)  # type: ignore[arg-type]
    return done, hits, seen


@asynccontextmanager
async def a_rack(folder: Path) -> AsyncGenerator[int]:
    config = RackConfig(servers=1, node_data=folder, data=folder / "rack")
    async with trio.open_nursery() as nursery:
        info: RackInfo = await nursery.start(partial(run_rack, config))
        yield int(info.servers[0].bmc.split(":")[2].split("/")[0])
        nursery.cancel_scope.cancel()


async def test_a_loopback_range_is_scanned_and_the_virtual_bmc_found(tmp_path):
    hosts = [f"127.0.0.{n}" for n in range(1, 15)]
    async with a_rack(tmp_path) as port:
        done, hits, seen = await scanned(hosts, ports=(port,))
    assert done == Done(14, 14)
    assert seen[-1] == (14, 14)
    assert seen == sorted(seen)
    (hit,) = hits
    assert (hit.host, hit.ipmi) == ("127.0.0.1", None)
    assert hit.root is not None
    assert hit.root.url == f"http://127.0.0.1:{port}"
    assert (hit.root.vendor, hit.root.version) == ("Rackmesh", "1.15.0")
    assert hit.root.tls_sha256 is None


async def test_ipmi_is_told_by_its_ping_without_a_login(tmp_path):
    sim.need_ipmi_sim()
    async with sim.ipmi_sim(tmp_path / "sim") as port:
        done, hits, _ = await scanned(["127.0.0.1", "127.0.0.2"], rmcp_port=port)
        assert done == Done(2, 2)
        (hit,) = hits
        assert (hit.host, hit.root) == ("127.0.0.1", None)
        assert hit.ipmi is not None
        assert hit.ipmi.version == "2.0"


async def test_sushy_tools_is_found_as_well(tmp_path):
    need_emulator()
    async with redfish_emulator(tmp_path) as url:
        port = int(url.split(":")[2].split("/")[0])
        _, (hit,), _ = await scanned(["127.0.0.1"], ports=(port,))
        assert hit.root is not None
        assert hit.root.uuid


def pages(body: bytes) -> bytes:
    return answer(200, body, {"Content-Type": "text/html"})


MISDEEDS = {
    "says nothing": HANG,
    "hangs up": CLOSE,
    "never ends": DRIP,
    "is huge": answer(200, b"[" * (2 << 20)),
    "nests without end": answer(200, b'{"a":' * 100_000),
    "is a web page": pages(b"<html>"),
    "is other json": answer(200, {"hello": 1, "RedfishVersion": 7}),
    "sends elsewhere": answer(302, b"", {"Location": "http://127.0.0.9/redfish/v1/"}),
    "turns in circles": answer(302, b"", {"Location": "/redfish/v1/"}),
    "is a printer with a password": answer(401, b"", {"WWW-Authenticate": "Basic"}),
    "is busy for ever": answer(503, b"", {"Retry-After": "99999"}),
    "speaks no http": b"SSH-2.0-OpenSSH_9.2\r\n",
}


async def test_services_that_misbehave_are_no_bmcs_and_hold_nobody_up(tmp_path):
    """All at once, each on a port of its own; the good one among them is found."""
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for reply in MISDEEDS.values():
            bmc = await stack.enter_async_context(hostile_bmc(always(reply)))
            ports.append(int(bmc.url.rpartition(":")[2]))
        rack = await stack.enter_async_context(a_rack(tmp_path))
        hits: list[Hit] = []
        async with trio.open_nursery() as nursery:

            async def one(port: int) -> None:
                with trio.fail_after(40):
                    done, found, _ = await scanned(["127.0.0.1"], ports=(port,))
                assert done == Done(1, 1)
                hits.extend(found)

            for port in (*ports, rack):
                nursery.start_soon(one, port)
    assert [hit.root.url for hit in hits if hit.root] == [f"http://127.0.0.1:{rack}"]


async def test_a_service_that_wants_a_user_for_its_root_is_one_all_the_same():
    refuses = answer(401, {"error": {}}, {"OData-Version": "4.0"})
    async with hostile_bmc(always(refuses)) as bmc:
        port = int(bmc.url.rpartition(":")[2])
        _, (hit,), _ = await scanned(["127.0.0.1"], ports=(port,))
        assert hit.root is not None
        assert "authorization" not in {name for *_, head, _ in bmc.requests for name in head}


async def test_the_certificate_is_noted_and_not_believed(tmp_path):
    context, certificate = self_signed(tmp_path, "bmc.example")
    root = answer(200, {"RedfishVersion": "1.6.0", "Vendor": "Contoso"})
    async with hostile_bmc(always(root), context) as bmc:
        port = int(bmc.url.rpartition(":")[2])
        _, (hit,), _ = await scanned(["127.0.0.1"], ports=(port,))
    assert hit.root is not None
    assert hit.root.url == f"https://127.0.0.1:{port}"
    der = certificate.public_bytes(Encoding.DER)
    assert hit.root.tls_sha256 == hashlib.sha256(der).hexdigest()


async def test_datagrams_of_strangers_and_garbage_are_dropped():
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as liar:
        await liar.bind(("127.0.0.1", 0))
        port = liar.getsockname()[1]

        async def answer_with_garbage() -> None:
            while True:
                data, peer = await liar.recvfrom(100)
                for reply in (b"", b"\x06", data, data * 30, b"\x06\0\xff\x07" + b"\xff" * 60):
                    await liar.sendto(reply, peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_with_garbage)
            done, hits, _ = await scanned(["127.0.0.1"], rmcp_port=port)
            nursery.cancel_scope.cancel()
    assert (done, hits) == (Done(1, 1), [])
