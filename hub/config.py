"""Settings of a hub: one frozen tree, checked at once."""

from dataclasses import dataclass, field
from pathlib import Path

from mesh.host.config import default_data


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """All settings of ``rackmesh hub up``."""

    data: Path = field(default_factory=lambda: default_data("hub", {}))
    """Folder of keys, databases, cache and run files."""
    listen: str = "0.0.0.0"  # noqa: S104 - a hub is meant to be reached
    """Address of the HTTPS port."""
    port: int = 8443
    """HTTPS port; 0 takes a free one (written to DATA/run/ports.json)."""
    advertise: tuple[str, ...] = ()
    """Host names or addresses that nodes can dial; empty: the listening address, or this
    machine's host name and loopback when it listens on all."""
    region: str = "main"
    """Region of this hub; its orders carry it."""
    name: str = "hub"
    """Name of this hub for people."""
    site: str | None = "main"
    """First start only: make a join token for this site at once; empty: make none."""
    link_mbit: int = 0
    """Megabits a second that sync, streams and copies may use on one link; 0: no cap."""
    relay_bulk: bool = False
    """Carry bulk links (copies of assets) between nodes that cannot dial each other."""
    cache_gib: int = 20
    """Quota of the hub's asset cache."""
    force_epoch: bool = False
    """After a restore, write without having met a member; only if no other one is left."""
    trust_clock: bool = False
    """The machine's clock is right, though it stands far from what this hub wrote last."""
    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.link_mbit < 0:
            raise ValueError(f"link_mbit must be 0 (no cap) or more, not {self.link_mbit}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be 0 to 65535, not {self.port}")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise ValueError(
                f"log_level must be debug, info, warning or error, not {self.log_level!r}"
            )
