"""The boot services of a node as one: DHCP, TFTP and HTTP on one provisioning network.

It only puts parts together. Rule: all three bind the same address (and interface), or none
starts; what they really listen on stands in ``ports``.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final

import trio

from mesh.errors import LocalError
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.store import MeshStore
from node.boot.answers import AnswerRoutes
from node.boot.assets import AssetRoutes
from node.boot.dhcp import DhcpServer
from node.boot.digest_gossip import DigestGossip
from node.boot.disc import DiscRoutes
from node.boot.files import BootFiles
from node.boot.http import HttpServer, listen_socket
from node.boot.media import MediaRoutes
from node.boot.ports import AssetSource, AssetSummoner, BootDecisions
from node.boot.routes import BootRoutes, is_bound, is_ours
from node.boot.snapshot import SnapshotSource
from node.boot.sockets import allow_many_sockets, interface_address, refusal
from node.boot.tftp import TftpServer
from node.proto.dhcp_answer import pxe_port
from node.proto.disc_config import MachineNetwork
from node.proto.lease_snapshot import Snapshot
from node.proto.tftp import caps_of

HTTP_PORT: Final = 8470


@dataclass(frozen=True, kw_only=True)
class BootConfig:
    """Where machines are served."""

    site: str
    interface: str | None = None
    """Provisioning interface; its own address is served and DHCP answers broadcasts on it."""
    listen: str = "127.0.0.1"
    """Address to serve on without ``interface``: relayed DHCP only, no root needed."""
    dhcp_port: int = 67
    """0 takes a free one, as do the other two; that of PXE boot servers follows from it."""
    tftp_port: int = 69
    http_port: int = HTTP_PORT
    oob: str | None = None
    """Address on the network of the BMCs: boot discs are served there, and nothing else."""

    def address(self) -> str:
        """Return the address to serve on; raises LocalError with one sentence."""
        if self.interface is not None:
            return interface_address(self.interface)
        try:
            return str(IPv4Address(self.listen))
        except AddressValueError as exc:
            raise LocalError(
                f"[boot] listen must be an IPv4 address, not {self.listen!r}"
            ) from exc


class BootServices:
    """See the module. ``run`` starts all services and returns only when it is cancelled.

    ``absent()`` names members of the site that shall not be named in replies now: those that
    the register no longer counts as members, and those that cannot be reached. ``near()`` names
    the other nodes of the site that have a link with us: replies are compared with theirs.
    """

    def __init__(
        self,
        config: BootConfig,
        store: MeshStore,
        decisions: BootDecisions,
        assets: AssetSource,
        files: BootFiles,
        clock: Clock,
        *,
        absent: Callable[[], frozenset[str]] = frozenset,
        near: Callable[[], Collection[str]] = frozenset,
        summoner: AssetSummoner | None = None,
    ) -> None:
        self.config = config
        self.address = config.address()
        self.ports: dict[str, int] = {}
        self._snapshots = SnapshotSource(store, config.site, IPv4Address(self.address), absent)
        self._dhcp = DhcpServer(
            store,
            config.site,
            self._snapshots,
            clock,
            get_log("dhcp"),
            address=self.address,
            port=config.dhcp_port,
            interface=config.interface,
        )
        self.gossip = DigestGossip(self._dhcp.alarms, near)
        self._tftp = TftpServer(
            files,
            get_log("tftp"),
            self.address,
            config.tftp_port,
            config.interface,
            caps=lambda client_ip: caps_of(self._dhcp.arch_at(client_ip)),
            ours=lambda client_ip: is_ours(self.snapshot(), client_ip),
        )
        log = get_log("http")
        routes = BootRoutes(self.is_bound, decisions, files, lambda: self.urls(""), log)
        served = AssetRoutes(assets, summoner)
        media = MediaRoutes(decisions, served)
        answers = AnswerRoutes(decisions, log)
        discs = DiscRoutes(decisions, files)
        everywhere = "0.0.0.0"  # noqa: S104 - then the boot listener is there already
        self._oob = None if self.address in (config.oob, everywhere) else config.oob
        self._discs = HttpServer(discs.routes(), log)
        rooms = (routes, served, media, answers, discs)
        self._http = HttpServer([one for room in rooms for one in room.routes()], log)

    @property
    def boot_url(self) -> str:
        """Base URL of our HTTP listener, for our NODE row; known once ``run`` has started."""
        return f"http://{self.address}:{self.ports['http']}"

    def snapshot(self) -> Snapshot:
        """Return what DHCP answers from now."""
        return self._snapshots.current()

    def is_bound(self, mac: str, client_ip: str) -> bool:
        """Whether a machine has this address: from us, or from another server beside us."""
        return is_bound(self.snapshot(), mac, client_ip) or self._dhcp.is_heard_at(
            mac, client_ip
        )

    def disc_base(self) -> str | None:
        """Return the base URL by which BMCs reach our discs; None: we do not run."""
        if "discs" in self.ports:
            return f"http://{self._oob}:{self.ports['discs']}"
        return self.boot_url if "http" in self.ports else None

    def network_of(self, mac: str) -> MachineNetwork | None:
        """Return the address that is reserved for a machine, and what it needs beside it."""
        snapshot = self.snapshot()
        found = [
            (snapshot.address_of(mac, one), one) for one in snapshot.subnets if not one.proxy
        ]
        known = snapshot.known.get(mac)
        fixed = known.ip if known is not None else None
        found.sort(key=lambda pair: pair[0] != fixed)
        for address, subnet in found:
            if address is not None:
                return MachineNetwork(
                    address=address,
                    prefix=subnet.network.prefixlen,
                    router=subnet.router,
                    dns=tuple(subnet.dns),
                )
        return None

    def urls(self, mac: str) -> Sequence[str]:
        """Return the base URLs of the site's boot listeners for a machine, best first."""
        known = self._snapshots.current().fallbacks(mac)
        return known or ([self.boot_url] if "http" in self.ports else [])

    def statistics(self) -> dict[str, dict[str, int]]:
        """Return the counters of each service."""
        return {
            "dhcp": self._dhcp.statistics(),
            "tftp": self._tftp.statistics(),
            "http": self._http.statistics(),
        }

    def problems(self) -> list[str]:
        """Say what is wrong where machines are served, for people."""
        return self._dhcp.problems()

    async def run(
        self, *, task_status: trio.TaskStatus[dict[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start in order, report {"dhcp", "pxe", "tftp", "http"}; raises LocalError."""
        allow_many_sockets()
        address, port = self.address, self.config.http_port
        with ExitStack() as stack:
            dhcp = stack.enter_context(self._dhcp.open())
            number = pxe_port(self.config.dhcp_port)
            pxe = stack.enter_context(self._dhcp.open(number))
            tftp = stack.enter_context(self._tftp.open())
            listener = _listen(address, port, stack)
            oob = _listen(self._oob, port, stack) if self._oob else None
            async with trio.open_nursery() as nursery:
                self.ports["dhcp"] = await nursery.start(self._dhcp.run, dhcp, pxe)
                self.ports["pxe"] = int(pxe.getsockname()[1])
                self.ports["tftp"] = await nursery.start(self._tftp.run, tftp)
                self.ports["http"] = await nursery.start(self._http.run, listener)
                if oob is not None:
                    self.ports["discs"] = await nursery.start(self._discs.run, oob)
                log = get_log("boot")
                log.info("boot services ready", ip=address, iface=self.config.interface)
                task_status.started(dict(self.ports))


def _listen(address: str, port: int, stack: ExitStack) -> trio.SocketListener:
    try:
        listener = listen_socket(address, port)
    except OSError as exc:
        raise refusal(exc, "HTTP", "tcp", address, port, None) from exc
    stack.callback(listener.socket.close)
    return listener
