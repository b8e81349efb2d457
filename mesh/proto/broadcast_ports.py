"""What the tree broadcast is given and what it asks its shell to do.

It knows no rule; ``broadcast.py`` has them. Effects are values, carried out in their order.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from mesh.proto.broadcast_wire import Message
from mesh.proto.intake import Delta
from mesh.proto.sync_wire import Known, Want


class Place(Protocol):
    """Where this member stands (``mesh/topology.py``)."""

    @property
    def is_gateway(self) -> bool:
        """Tell whether we keep links with other sites."""
        ...

    def wanted(self) -> Collection[str]:
        """Return the peers that we keep links with."""
        ...

    def gateways(self, site: str) -> list[str]:
        """Return the gateways of a site, first one first."""
        ...

    def site_of(self, node: str) -> str | None:
        """Return the site of an active member, "" for a hub, None for anybody else."""
        ...


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send a ``broadcast`` frame to a peer."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Take:
    """Take deltas over, in order, in one transaction; give the outcomes to ``on_taken``."""

    peer: str
    deltas: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """Read deltas as ``serve`` does (for ``peer``, ourselves when ""); give to ``on_read``."""

    peer: str
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class PullFrom:
    """Let the peer's anti-entropy session fetch these."""

    peer: str
    heads: tuple[Known, ...]


@dataclass(frozen=True, slots=True)
class MergeFrom:
    """Merge register records that a peer has sent; what changes something is news."""

    peer: str
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DropPeer:
    """The peer is hostile or broken: close the link."""

    peer: str
    reason: str


Effect = SendTo | Take | Read | PullFrom | MergeFrom | DropPeer
