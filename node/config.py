"""Settings of a node: one frozen tree, checked at once (only ``node.main`` reads files)."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from mesh.host.config import default_data
from mesh.proto.address_book import parse_seed
from mesh.proto.order import HAND_ON, JOB_VERBS, KINDS
from mesh.proto.scan_range import read_networks
from node.proto.caps import Caps, parse_kinds
from node.proto.uplink import parse_hours


@dataclass(frozen=True, kw_only=True)
class Interfaces:
    """Which network is which (ARCHITECTURE section 3, Networks)."""

    provisioning: str | None = None
    """Interface machines boot from; boot services bind only it. None: ``[boot] listen``."""
    oob: str | None = None
    """Interface that BMCs and switches are reached by (Redfish: TCP 443; IPMI: UDP 623 or the
    port in the BMC's URL), and where BMCs read boot discs from (TCP, as ``[boot] http_port``);
    None: the routing table decides, and discs come from the boot listener."""
    oob_networks: tuple[str, ...] = ()
    """Networks that a scan for BMCs asks when it names none, as 10.9.0.0/24; 4,096 addresses
    at most in all."""

    def __post_init__(self) -> None:
        """Refuse what is no network, and too many addresses."""
        read_networks(self.oob_networks)


@dataclass(frozen=True, kw_only=True)
class Boot:
    """DHCP, TFTP and the boot HTTP listener."""

    enabled: bool = True
    """False: this node serves no machines."""
    listen: str = "127.0.0.1"
    """Address to serve on; with ``[interfaces] provisioning`` that interface's own address."""
    dhcp_port: int = 67
    """UDP port of DHCP; another port only answers relays."""
    tftp_port: int = 69
    """UDP port of TFTP; 0 takes a free one."""
    http_port: int = 8470
    """TCP port of the boot HTTP listener; 0 takes a free one."""
    files: Path | None = None
    """Folder with vmlinuz, initrd and what scripts/fetch-boot-files makes; None: DATA/boot."""


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """The provisioning subnet that this node proposes for its site."""

    cidr: str = ""
    """For example 10.77.0.0/24; empty: this node proposes none."""
    first: str = ""
    """First address of the pool, inclusive; empty: the subnet's tenth address."""
    last: str = ""
    """Last address of the pool, inclusive; empty: the subnet's last but one."""
    router: str | None = None
    """Default route for machines."""
    dns: tuple[str, ...] = ()
    """Name servers for machines."""
    lease_s: int = 600
    """Lease time."""
    mode: str = "serve"
    """serve: give addresses; proxy: another DHCP server does, say only what to boot."""
    beside: tuple[str, ...] = ()
    """Addresses of DHCP servers of others that are meant to be there; every other one is an
    alarm (in mode proxy: none is, when this is empty)."""

    def __post_init__(self) -> None:
        """Refuse a subnet or pool that cannot be."""
        if not self.cidr:
            return
        network = ipaddress.IPv4Network(self.cidr)
        for text in (self.first, self.last):
            if text and ipaddress.IPv4Address(text) not in network:
                raise ValueError(f"the pool address {text} is not in {self.cidr}")
        if self.mode not in {"serve", "proxy"}:
            raise ValueError(f"[subnet] mode must be serve or proxy, not {self.mode!r}")
        for text in self.beside:
            ipaddress.IPv4Address(text)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Links to other members."""

    listen: str = "0.0.0.0"  # noqa: S104 - peers come from anywhere, Noise admits members only
    """Address of the mesh port."""
    port: int = 4770
    """TCP port of the mesh; 0 takes a free one."""
    advertise: tuple[str, ...] = ()
    """Addresses that peers can dial; empty: found from the interfaces."""
    link_mbit: int = 0
    """Megabits a second that sync, streams and copies may use on one link; 0: no cap."""
    relay_bulk: bool = False
    """Take bulk links (copies of assets) over a relay, and carry them when this node is one."""
    peers: tuple[str, ...] = ()
    """Members to dial besides those found: HOST:PORT or NODE-ID@HOST:PORT."""
    mdns: bool = True
    """Say on the local network where this node is, and listen to the others of its site."""

    def __post_init__(self) -> None:
        """Refuse what is no address, and a cap below zero."""
        if self.link_mbit < 0:
            raise ValueError(f"link_mbit must be 0 (no cap) or more, not {self.link_mbit}")
        for text in self.peers:
            parse_seed(text)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What this node lets others do."""

    destructive_per_hour: int = 5
    """Destructive orders (wipe, deploy onto a never cleaned server) begun in an hour."""
    machine_lost_s: int = 600
    """A machine that falls silent in the middle of a step is switched off and on after so long,
    when it has a BMC; longer than the self-test of the slowest server."""

    def __post_init__(self) -> None:
        """Refuse a negative budget, and a patience below that of the heartbeat."""
        if self.destructive_per_hour < 0:
            raise ValueError("destructive_per_hour must not be negative")
        if self.machine_lost_s < 20:
            raise ValueError(f"machine_lost_s must be 20 or more, not {self.machine_lost_s}")


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """How many jobs at a time, and how long ended ones stay in the lists."""

    node_max: int = 32
    """Jobs that this node runs at a time."""
    destructive_max: int = 8
    """Of these, jobs that wipe or overwrite."""
    site_max: int = 0
    """Jobs that run in the whole site; 0: no cap. Say the same at each node of the site."""
    device_max: int = 0
    """Jobs at one device at a time (a chassis' BMC has many servers); 0: no cap. A server never
    has more than one. Say the same at each node."""
    kinds_max: tuple[str, ...] = ()
    """Jobs of one kind in the whole site, "server.deploy 4". Say the same at each node."""
    archive_days: int = 7
    """Ended jobs leave the lists after so many days (``job list --all`` has them); 0: never."""

    def __post_init__(self) -> None:
        """Refuse numbers that let nothing run."""
        for name, least in (("node_max", 1), ("destructive_max", 1), ("site_max", 0),
                            ("device_max", 0), ("archive_days", 0)):  # fmt: skip
            if not least <= getattr(self, name) <= 10_000:
                raise ValueError(f"{name} must be {least} to 10000, not {getattr(self, name)}")
        self.caps()

    def caps(self) -> Caps:
        """Return the caps that hold for the site."""
        kinds = parse_kinds(self.kinds_max, KINDS - JOB_VERBS - {HAND_ON})
        return Caps(site=self.site_max, device=self.device_max, kinds=kinds)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The asset cache."""

    quota_gib: int = 50
    """Most bytes of assets that are kept, GiB."""
    uplink_mbit: float = 0
    """Megabits a second that copies from origins and other sites may take of the site's uplink,
    all nodes of the site together; 0: no cap."""
    uplink_hours: tuple[str, ...] = ()
    """Other caps by local time, "08:00-18:00 2" (0: none); the first that fits counts."""
    clear: bool = True
    """Nodes of the site give each other chunks in clear, as machines get them; verified."""
    revalidate_s_max: int = 0
    """Ask origins at least so often, seconds, whatever references say but never; 0: as they
    say. For origins that are near; a thin uplink is better served by the references."""

    def __post_init__(self) -> None:
        """Refuse what is no rate, no hours and no period."""
        if self.revalidate_s_max < 0:
            raise ValueError(
                f"revalidate_s_max must be 0 (none) or more, not {self.revalidate_s_max}"
            )
        if not 0 <= self.uplink_mbit < 1e6:
            raise ValueError(f"uplink_mbit must be 0 (no cap) or more, not {self.uplink_mbit}")
        for text in self.uplink_hours:
            parse_hours(text)


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """All settings of ``rackmesh node run``."""

    data: Path = field(default_factory=lambda: default_data("node", {}))
    """Folder of keys, databases, cache and run files."""
    name: str | None = None
    """Name of this node for people; None: the host name."""
    simulate_rack: int = 0
    """Number of simulated servers to run beside this node."""
    force_epoch: bool = False
    """After a lost or restored state: write before any peer was met."""
    trust_clock: bool = False
    """The machine's clock is right, though it stands far from what this node wrote last."""
    log_level: str = "info"
    """debug, info, warning or error."""
    interfaces: Interfaces = field(default_factory=Interfaces)
    boot: Boot = field(default_factory=Boot)
    subnet: Subnet = field(default_factory=Subnet)
    mesh: Mesh = field(default_factory=Mesh)
    policy: Policy = field(default_factory=Policy)
    jobs: Jobs = field(default_factory=Jobs)
    cache: Cache = field(default_factory=Cache)

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise ValueError(
                f"log_level must be debug, info, warning or error, not {self.log_level!r}"
            )
        if not 0 <= self.simulate_rack <= 500:
            raise ValueError(f"simulate_rack must be 0 to 500, not {self.simulate_rack}")
