"""What an anti-entropy session is given and what it asks its shell to do.

It knows no rule; ``sync.py`` has them. Effects are values, carried out in their order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto.evidence import Proof
from mesh.proto.intake import Delta
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.storage import Stage
from mesh.proto.sync_wire import Want

CLAIM_S: Final = 30.0
"""How long a link that pulls a set keeps others from it; more than one frame's round trip."""

RETRY_S: Final = 2.0
"""Pause after an answer that did not come, or a set that another link is pulling."""
FULL_PAUSE_S: Final = 30.0
"""Pause when our disk is full."""
NEVER: Final = float("inf")
STRIKES_MAX: Final = 8
"""Hostile deltas after which the link is dropped."""
GARBAGE_MAX: Final = 64
"""Frames that are no messages after which the link is dropped."""
YIELD_S: Final = 2.0
"""Of two that compare at once the one that has more waits so long, and while the other pulls:
what is newer with either is found in one comparison."""
YIELDS_MAX: Final = 64
"""Pulls in a row that may put our own comparison off."""
TWIN_S: Final = 1.0
TWIN_MAX_S: Final = 60.0
TWIN_CALM_S: Final = 300.0
"""Pauses between two times that one own set is taken back, and when they begin anew."""
REACH_MIN: Final = 8
"""Sets asked for at once at least; from there to WANTS_MAX by what an answer had room for."""
WAITING_MAX: Final = 8192
"""Sets that one link waits to pull; more are found at the next exchange."""


class View(Protocol):
    """What is durable here, as others may see it."""

    author: str
    version: int

    @property
    def proofs(self) -> Mapping[SetId, Proof]:
        """Return the proofs against authors."""
        ...

    @property
    def heads(self) -> Mapping[SetId, SignedHead]:
        """Return the committed heads."""
        ...

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far a staged delta has come."""
        ...

    def changes_since(self, version: int) -> Mapping[SetId, SignedHead | None] | None:
        """Return the sets changed since a version, None when that is too long ago."""
        ...


class RegisterView(Protocol):
    """The register, as far as it is exchanged."""

    def digest(self) -> bytes:
        """Return 16 bytes that are equal when two registers say the same."""
        ...

    def records(self) -> list[bytes]:
        """Return every record, in an order that an empty register can merge."""
        ...


@dataclass(frozen=True, slots=True)
class Send:
    """Send a ``sync`` frame."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Send a ``receipt`` frame."""

    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Serve:
    """Read deltas in one read transaction; give them to ``on_served``."""

    n: int
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Take deltas over in one transaction; give the outcomes to ``on_applied``."""

    deltas: tuple[Delta, ...]


@dataclass(frozen=True, slots=True)
class Convict:
    """Check what a peer says of authors, and keep what holds."""

    proofs: tuple[Proof, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """Merge register records; call ``on_merged``."""

    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """The peer is hostile or broken: close the link."""

    reason: str


Effect = Send | SendReceipt | Serve | Apply | Convict | Merge | Drop


class Claims:
    """Which link pulls which set, so that two links do not fetch the same rows."""

    def __init__(self) -> None:
        self._held: dict[SetId, tuple[object, float]] = {}
        self._rests: dict[SetId, tuple[float, float]] = {}  # until when, and for how long

    def take(self, set_id: SetId, who: object, now: float) -> bool:
        """Claim a set for a link; False while another one has it, or it rests."""
        held = self._held.get(set_id)
        if held is not None and held[0] is not who and now < held[1]:
            return False
        if now < self._rests.get(set_id, (0.0, 0.0))[0]:
            return False
        self._held[set_id] = (who, now + CLAIM_S)
        return True

    def taken_back(self, set_id: SetId, now: float) -> None:
        """A set of ours was taken back: the next time has to wait, longer each time.

        Of two processes with our identity each would take the other's back without end.
        """
        until, pause_s = self._rests.get(set_id, (-NEVER, 0.0))
        calm = now > until + TWIN_CALM_S
        pause_s = TWIN_S if calm else min(2 * pause_s, TWIN_MAX_S)
        self._rests[set_id] = (now + pause_s, pause_s)

    def release(self, who: object, set_id: SetId | None = None) -> None:
        """Give up one set, or all that a link has claimed."""
        for held in [set_id] if set_id is not None else list(self._held):
            if held in self._held and self._held[held][0] is who:
                del self._held[held]
