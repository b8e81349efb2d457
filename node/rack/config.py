"""Settings of a simulated rack, checked at once.

Knows no files. Rule: what cannot work is refused in one sentence before anything is made.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from mesh.errors import Refused
from node.rack.drive import KINDS

SERVERS_MAX: Final = 500
DISK_BYTES_LEAST: Final = 16 << 20
DISK_BYTES_MOST: Final = 4 << 40
DISK_UNIT: Final = 1 << 20
PREFIX: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,20}[a-z0-9])?\Z")
LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")


@dataclass(frozen=True, kw_only=True)
class RackConfig:
    """One rack of servers without hardware."""

    servers: int
    """How many; they are called PREFIX-1 to PREFIX-N."""
    node_data: Path
    """Data folder of the node that boots them: its run/ports.json is read at every boot."""
    data: Path
    """The rack's own folder; by custom ``rack`` below a node's data folder."""
    name_prefix: str = "sim"
    """Lower-case letters, digits and dashes."""
    disk_bytes: int = 512 << 20
    """Size of each server's one disk, a sparse file; whole MiB."""
    disk_kind: str = "block"
    """How the disks of new servers are erased: one of node.rack.drive.KINDS; some lie."""
    seed: int | None = None
    """Names the MAC addresses, UUIDs and serial numbers; None: made once, then kept."""
    power_on: bool = False
    """Switch new servers on at once. Known ones come back as they were."""
    bmc_host: str = "127.0.0.1"
    """Address of the virtual BMCs, inside 127.0.0.0/8."""
    bmc_port: int = 0
    """Their port; 0 takes a free one at the first start and keeps it."""
    also: tuple[Path, ...] = ()
    """Data folders of further nodes of the site: requests go to all of them, as by a relay."""
    relay: str | None = None
    """Address of the servers' DHCP relay (giaddr), inside their subnet and 127.0.0.0/8;
    None: from ``relay`` or ``subnet`` in a node's ports.json, else a node's own address."""
    download: bool = True
    """Download kernel and initrd as a real machine would; False only names them."""
    rom: Literal["pxe", "ipxe"] = "pxe"
    """What the network card holds: a PXE ROM that fetches iPXE by TFTP, or iPXE itself."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 1 <= self.servers <= SERVERS_MAX:
            raise Refused(f"a rack has 1 to {SERVERS_MAX} servers, not {self.servers}")
        if not PREFIX.match(self.name_prefix):
            raise Refused(
                f"the name prefix {self.name_prefix!r} must be lower-case letters, digits and"
                " dashes, begin with a letter, and have at most 22 characters"
            )
        if not DISK_BYTES_LEAST <= self.disk_bytes <= DISK_BYTES_MOST:
            raise Refused(
                f"a disk has 16 MiB to 4 TiB, not {self.disk_bytes / DISK_UNIT:g} MiB"
            )
        if self.disk_kind not in KINDS:
            raise Refused(f"a disk is of the kind {', '.join(KINDS)}, not {self.disk_kind!r}")
        if self.disk_bytes % DISK_UNIT:
            raise Refused(f"a disk has whole MiB, not {self.disk_bytes} bytes")
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise Refused(f"the seed must be 0 to 2^64-1, not {self.seed}")
        if not 0 <= self.bmc_port <= 65535:
            raise Refused(f"the BMC port must be 0 to 65535, not {self.bmc_port}")
        for what, address in (("BMC address", self.bmc_host), ("relay", self.relay)):
            if address is not None and not is_loopback(address):
                raise Refused(f"the {what} must be inside 127.0.0.0/8, not {address!r}")


def is_loopback(address: str) -> bool:
    """Say whether a text is an address that any program here may bind without set-up."""
    try:
        return ipaddress.IPv4Address(address) in LOOPBACK
    except ValueError:
        return False
