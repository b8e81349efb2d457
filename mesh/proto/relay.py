"""Relaying: who may have streams spliced by us, and how many bytes they may put through.

It knows no link, no stream and nothing of what passes: the ends have a Noise session of their
own inside, we see ids and lengths. Rules: only between active members that have a link of their
own with us (never over a second relay, so there are no loops); each member has one budget in
bytes, whichever end of a splice it is, and a splice goes as fast as the poorer of its two ends;
who is over budget waits, nothing is dropped; bulk links only where the relay's owner allows it.
Whoever lies about bulk gains nothing but its own budget.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto.rate import Bucket
from mesh.proto.trust import ROLE_HUB

CAPABILITY: Final = "relay"
"""A node with this in its roster record relays; hubs always do."""
STREAM: Final = "relay"
"""Name of the streams, to the relay and from it to the other end."""
BYTES_PER_S: Final = 1 << 20
BURST_BYTES: Final = 4 << 20
"""Budget of a member: so much at once after a rest, then BYTES_PER_S."""
SPLICES_MAX: Final = 1_024
"""Splices at once."""
MEMBER_SPLICES_MAX: Final = 64
"""Splices of one member at once, at either end."""
BUDGETS_MAX: Final = 4_096
"""Members whose budgets are remembered; the one unused longest is forgotten first."""
ID_CHARS_MAX: Final = 64


def may_relay(roles: Collection[str], capabilities: Collection[str]) -> bool:
    """Tell whether a member with these roles and capabilities may relay."""
    return ROLE_HUB in roles or CAPABILITY in capabilities


@dataclass(frozen=True, slots=True)
class Ask:
    """What the dialler asks of the relay."""

    to: str
    bulk: bool


@dataclass(frozen=True, slots=True)
class Splice:
    """Two streams that belong together."""

    number: int
    source: str
    destination: str


def ask(to: str, *, bulk: bool) -> dict[str, Any]:
    """Return the body that opens a stream to the relay."""
    return {"to": to, "bulk": bulk}


def announce(source: str) -> dict[str, Any]:
    """Return the body that opens a stream from the relay to the other end."""
    return {"from": source}


def read(body: Any) -> Ask | str:
    """Return what the body of a relay stream asks, or who it is announced from.

    Raises CodecError.
    """
    match body:
        case {"to": str(to), "bulk": bool(bulk)} if len(to) <= ID_CHARS_MAX:
            return Ask(to, bulk)
        case {"from": str(source)} if len(source) <= ID_CHARS_MAX:
            return source
        case _:
            raise CodecError("a relay stream for nobody")


class RelayCore:
    """The books of one relay."""

    def __init__(self, *, bulk: bool, bytes_per_s: int = BYTES_PER_S) -> None:
        self._bulk = bulk
        self._bytes_per_s = bytes_per_s
        self._opened = 0
        self._splices: set[Splice] = set()
        self._of_member: dict[str, int] = {}
        self._budgets: OrderedDict[str, Bucket] = OrderedDict()

    def open(
        self,
        source: str,
        wanted: Ask,
        *,
        active: Callable[[str], bool],
        linked: Callable[[str], bool],
    ) -> Splice | str:
        """Return the splice to make, or the sentence with which it is refused.

        ``linked``: there is a link of our own to a member, not one over another relay.
        """
        if not (active(source) and active(wanted.to)):
            return f"{wanted.to} is not an active member"
        if source == wanted.to:
            return "a member has no need of a relay to itself"
        if not (linked(source) and linked(wanted.to)):
            return f"{wanted.to} has no link of its own with this relay"
        if wanted.bulk and not self._bulk:
            return "this relay carries no bulk links (relay_bulk in its settings allows it)"
        counts = (self._of_member.get(member, 0) for member in (source, wanted.to))
        if len(self._splices) >= SPLICES_MAX or max(counts) >= MEMBER_SPLICES_MAX:
            return "this relay carries as many links as it can"
        self._opened += 1
        splice = Splice(self._opened, source, wanted.to)
        self._splices.add(splice)
        for member in (source, wanted.to):
            self._of_member[member] = self._of_member.get(member, 0) + 1
        return splice

    def carry(self, splice: Splice, size: int, now: float) -> float:
        """Charge bytes that go through, and return how long to wait before they do."""
        assert splice in self._splices
        ends = (splice.source, splice.destination)
        return max(self._budget(member, now).take(size, now) for member in ends)

    def close(self, splice: Splice) -> None:
        """A splice is over."""
        self._splices.discard(splice)
        for member in (splice.source, splice.destination):
            self._of_member[member] -= 1
            if not self._of_member[member]:
                del self._of_member[member]

    def _budget(self, member: str, now: float) -> Bucket:
        budget = self._budgets.pop(member, None)
        if budget is None:
            budget = Bucket(self._bytes_per_s, BURST_BYTES, now)
        self._budgets[member] = budget
        while len(self._budgets) > BUDGETS_MAX:
            self._budgets.popitem(last=False)
        return budget
