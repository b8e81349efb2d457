"""A site as the simulated rack meets it: DHCP, TFTP, boot HTTP and an agent's peer, in a test.

Replies are those of `node.proto.lease`; agent, assets and phone-in are those of `AgentPeer`.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from mesh.host.log import get_log
from node.boot.files import BootFiles
from node.boot.tftp import TftpServer
from node.proto import dhcp, dhcp_boot, lease
from node.proto.lease_snapshot import Snapshot, build
from tests.support.agent_peer import AgentPeer

SITE_ADDRESS = "127.77.3.1"
SUBNET = "127.77.3.0/24"
KERNEL, INITRD, ROM = b"k" * 70_000, b"i" * 90_000, b"r" * 5_000


@dataclass
class RackSite(AgentPeer):
    """What the site saw of its machines, and the boot script that it gives."""

    script: Callable[[str], str] = lambda mac: "#!ipxe\nexit\n"
    paths: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    folder: Path = Path()
    url: str = ""
    changed: trio.Event = field(default_factory=trio.Event)

    def _route(self, path: str, headers: dict[str, str], body: bytes) -> Any:
        self.paths.append(path)
        self._tell()
        if path.startswith("/boot/v1/script?mac="):
            return 200, self.script(path.partition("=")[2]).encode(), []
        if path.startswith("/boot/v1/file/"):
            return 200, INITRD if path.endswith("initrd") else KERNEL, []
        answer = super()._route(path, headers, body)
        self._tell()
        return answer

    def ramdisk_script(self, mac: str) -> str:
        """The script that starts the agent, as our nodes give it."""
        arguments = f"rackmesh.url={self.url} rackmesh.mac={mac} rackmesh.cap=capability"
        return (
            f"#!ipxe\nkernel {self.url}/boot/v1/file/vmlinuz initrd=initrd {arguments}\n"
            f"initrd --name initrd {self.url}/boot/v1/file/initrd\nboot\n"
        )

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, true: Callable[[], Any], seconds: float = 20) -> None:
        """Wait for a level that requests change."""
        with trio.fail_after(seconds):
            while not true():
                await self.changed.wait()


@asynccontextmanager
async def rack_site(folder: Path) -> AsyncGenerator[RackSite]:
    """Run the site; its ports stand in ``folder``/run/ports.json."""
    site = RackSite(folder=folder)
    files = BootFiles(entries={"undionly.kpxe": ROM})
    tftp = TftpServer(files, get_log("tftp"), SITE_ADDRESS, 0)
    udp = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await udp.bind((SITE_ADDRESS, 0))
    with udp, tftp.open() as tftp_socket:
        async with trio.open_nursery() as nursery:
            tftp_port = await nursery.start(tftp.run, tftp_socket)
            (listener,) = await trio.open_tcp_listeners(0, host=SITE_ADDRESS)
            http_port = listener.socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, site.serve, [listener])
            site.url = f"http://{SITE_ADDRESS}:{http_port}"
            nursery.start_soon(_dhcp, udp, _rows(site.url), site)
            (folder / "run").mkdir(exist_ok=True)
            ports = {
                "address": SITE_ADDRESS,
                "subnet": SUBNET,
                "dhcp": udp.getsockname()[1],
                "tftp": tftp_port,
                "http": http_port,
            }
            (folder / "run" / "ports.json").write_text(json.dumps(ports))
            yield site
            nursery.cancel_scope.cancel()


def _rows(url: str) -> Snapshot:
    subnet = {"first": "127.77.3.10", "last": "127.77.3.99", "lease_s": 600, "salt": "5a17"}
    node = {"site": "rome", "boot_url": url, "services": ["dhcp", "tftp", "http"]}
    return build(
        subnets=[(SUBNET, subnet)], servers=[], bindings=[], nodes=[("n" * 32, node)],
        site="rome", direct=None,
    )  # fmt: skip


async def _dhcp(udp: trio.socket.SocketType, rows: Snapshot, site: RackSite) -> None:
    while True:
        data, source = await udp.recvfrom(2000)
        packet = dhcp.decode(data)
        assert packet is not None
        answered = lease.answer(rows, packet)
        if answered.kind == "ack":
            firmware = "ipxe" if packet.is_ipxe else "rom"
            site.roles.append(firmware if dhcp_boot.is_firmware(packet) else "os")
        if (reply := answered.reply) is not None:
            assert source[0] == str(reply.address), "a relay sends from its giaddr"
            await udp.sendto(reply.data, source)
