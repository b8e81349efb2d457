"""A node on a wire of its own: a real DHCP client, TFTP and HTTP by curl, a second node."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.errors import LocalError
from mesh.host.clock import FixedClock
from mesh.proto import tables
from node.boot.files import BootFiles
from node.boot.service import BootConfig, BootServices
from tests.support.boot_node import SCOPE, SCRIPT, Decisions, NoAssets, Node, boot_node
from tests.support.boot_site import MAC
from tests.support.netns import Namespace, namespace, wire

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
needs_busybox = pytest.mark.skipif(
    shutil.which("busybox") is None, reason="busybox (with udhcpc) is not installed"
)

NODE = "10.77.0.1"
SUBNET = {
    "cidr": "10.77.0.0/24",
    "first": "10.77.0.100",
    "last": "10.77.0.199",
    "router": NODE,
    "dns": [NODE],
    "lease_s": 600,
    "salt": "5a17",
}
CONFIG = BootConfig(site="lab", interface="srv0")
INITRD = bytes(range(256)) * 5000  # 1.2 MiB
CLIENT_SCRIPT = """#!/bin/sh
echo "$1 $ip $mask $router $serverid $siaddr $lease $boot_file" >> {log}
[ "$1" = bound ] && ip address add "$ip/$mask" dev "$interface"
exit 0
"""


@asynccontextmanager
async def on_a_wire(tmp_path: Path) -> AsyncIterator[tuple[Node, Namespace, Namespace]]:
    """Yield the node, the namespace it serves in, and the client's."""
    with namespace() as server, namespace() as client:
        wire(server, "srv0", client, "cli0")
        server.run("ip", "address", "add", f"{NODE}/24", "dev", "srv0")
        client.run("ip", "link", "set", "cli0", "address", MAC)
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot" / "initrd").write_bytes(INITRD)
        files = BootFiles(tmp_path / "boot", {"undionly.kpxe": b"loader" * 1000})
        with server.entered():
            async with boot_node(tmp_path, CONFIG, subnet=SUBNET, files=files) as node:
                yield node, server, client


async def run(space: Namespace, *command: str) -> bytes:
    done = await trio.run_process(space.argv(*command), capture_stdout=True)
    return done.stdout


async def lease(tmp_path: Path, client: Namespace, *options: str) -> list[list[str]]:
    """Run udhcpc until it has a lease; return what its script was told."""
    log, script = tmp_path / "udhcpc.log", tmp_path / "udhcpc.sh"
    log.unlink(missing_ok=True)
    script.write_text(CLIENT_SCRIPT.format(log=log))
    script.chmod(0o755)
    await run(
        client, "busybox", "udhcpc", "-i", "cli0", "-n", "-q", "-f", "-t", "5", "-T", "1",
        "-s", str(script), *options,
    )  # fmt: skip
    return [line.split() for line in log.read_text().splitlines()]


@needs_busybox
async def test_a_real_client_gets_its_address_then_a_file_by_tftp_and_by_http(
    tmp_path: Path,
) -> None:
    async with on_a_wire(tmp_path) as (node, _, client):
        bound = (await lease(tmp_path, client))[-1]
        (row,) = node.store.rows(SCOPE, tables.BINDING)
        assert row.key == MAC
        assert bound == ["bound", row.body["ip"], "24", NODE, NODE, NODE, "600"]
        assert await run(client, "curl", "-sS", f"tftp://{NODE}/initrd") == INITRD
        copy = tmp_path / "copy"
        await run(client, "busybox", "tftp", "-g", "-r", "undionly.kpxe", "-l", str(copy), NODE)
        assert copy.read_bytes() == b"loader" * 1000
        url = f"http://{NODE}:8470/boot/v1"
        got = await run(client, "curl", "-sS", "-r", "100-1099", f"{url}/file/initrd")
        assert got == INITRD[100:1100]
        assert await run(client, "curl", "-sS", f"{url}/script?mac={MAC}") == SCRIPT.encode()
        counts = node.boot.statistics()["dhcp"]
        assert (counts["offer"], counts["ack"]) == (1, 1)
        again = (await lease(tmp_path, client, "-r", row.body["ip"]))[-1]
        assert again[1] == bound[1]
        assert node.boot.statistics()["dhcp"]["bindings"] == 1


@needs_busybox
async def test_an_accepted_server_gets_its_fixed_address_on_the_wire(tmp_path: Path) -> None:
    async with on_a_wire(tmp_path) as (node, _, client):
        server = {"macs": [MAC], "ip": "10.77.0.20"}
        await node.store.write(lambda tx: tx.put(SCOPE, tables.SERVER, "s1", server))
        assert (await lease(tmp_path, client))[-1][1] == "10.77.0.20"
        assert node.store.rows(SCOPE, tables.BINDING) == []


async def test_a_second_node_on_the_interface_fails_and_names_the_holder(
    tmp_path: Path,
) -> None:
    async with on_a_wire(tmp_path) as (node, _, _client):
        second = BootServices(
            CONFIG, node.store, Decisions(), NoAssets(), BootFiles(), FixedClock()
        )
        with pytest.raises(LocalError, match=r"UDP port 67 on srv0: it is held by process \d+"):
            await second.run()


async def test_an_interface_without_an_address_is_said(tmp_path: Path) -> None:
    with namespace() as server, namespace() as client:
        wire(server, "srv0", client, "cli0")
        with server.entered(), pytest.raises(LocalError, match="srv0 has no IPv4 address"):
            CONFIG.address()


async def test_without_root_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "from node.boot.sockets import udp_socket\n"
        "from mesh.errors import LocalError\n"
        "try: udp_socket('DHCP', '127.0.0.1', 67, None)\n"
        "except LocalError as e: print(e)\n"
    )
    python = Path(__file__).parents[2] / ".venv/bin/python"
    with namespace() as space:
        said = await run(
            space, "setpriv", "--securebits=+noroot", "--inh-caps=-all", "--bounding-set=-all",
            str(python), "-c", program,
        )  # fmt: skip
    assert said.startswith(b"DHCP may not use UDP port 67 on 127.0.0.1: run the node as root")
