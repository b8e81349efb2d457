"""Which chunk to ask of whom: the decisions of one fetch from other nodes.

It knows no links and no disk. The nodes of a site that fetch the same asset at the same time
(fellows) share the work: each takes its own chunks from a source, one that holds the asset, and
all others from the fellow whose they are, who gives them once it has them; so each chunk leaves
the source once, whatever the number of fellows. Rules: a chunk is asked of one node at a time;
a fellow that keeps failing or gets nowhere is passed over, and the others share its chunks
meanwhile; a node that sent wrong bytes is never asked again; a chunk that a reader waits for
goes first.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cache.proto.bitfield import Bitfield

PER_SOURCE_MAX: Final = 4
SOURCES_MAX: Final = 8
"""Chunks that are on their way from all sources together."""
PER_FELLOW_MAX: Final = 3
FAST_S: Final = 2.0
SLOW_S: Final = 8.0
"""A source that takes longer for a chunk is asked one at a time, until it is faster."""
STALL_S: Final = 100.0
"""A fellow without any new chunk for so long is passed over; thin links take up to 90 s."""
BEGIN_S: Final = 15.0
"""The same for a fellow that has not begun."""
HURRY_S: Final = 1.0
"""A fellow that says "later" sooner than this is left alone for as long: it has no room."""
DENIED_S: Final = 2.0
"""For how long a source is believed that it lacks a chunk."""
FAILURES: Final = 3
"""After so many in a row a fellow is passed over while it rests."""
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Members:
    """Who takes part in a fetch."""

    me: str
    sources: tuple[str, ...]
    """Nodes that hold the whole asset or, where none does, parts of it."""
    fellows: tuple[str, ...]
    """Nodes of our site that fetch it too, ourselves among them."""
    ring: tuple[str, ...]
    """All nodes among which the chunks are dealt, the fellows among them, in an order that all
    know; it does not change with who is alive, so that a death moves its own chunks only."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask ``node`` for chunk ``index``; ``shared``: a fellow, who is waited for."""

    node: str
    index: int
    shared: bool
    first: bool
    """A reader waits for it."""
    at: float


@dataclass(frozen=True, slots=True)
class Later:
    """A fellow's answer: it will have the chunk; ``have``: chunks it has, None: not begun."""

    have: int | None


@dataclass(slots=True)
class _Node:
    in_flight: int = 0
    failures: int = 0
    rest_until: float = 0.0
    window: int = 1
    """For a source: how many chunks at once."""
    have: int | None = None
    """For a fellow: how many chunks it said to hold."""
    moved_at: float | None = None


class FetchPlan:
    """The plan for one asset; ``random`` returns [0, 1) for jitter."""

    def __init__(self, have: Bitfield, random: Callable[[], float]) -> None:
        self._have = have
        self._random = random
        self._members = Members("", (), ("",), ("",))
        self._nodes: dict[str, _Node] = {}
        self._corrupt: set[str] = set()
        self._asked: set[int] = set()
        self._urgent: set[int] = set()
        self._denied: dict[int, dict[str, float]] = {}
        self._passed_over: frozenset[str] | None = None
        self._lanes: dict[str, list[int]] = {}  # heaps, by whose chunks they are

    @property
    def done(self) -> bool:
        """Every chunk is held."""
        return self._have.full

    @property
    def fellows(self) -> int:
        """Nodes of our site that share the fetch, ourselves among them."""
        return len(self._members.fellows)

    @property
    def in_flight(self) -> int:
        """Chunks that are being asked for."""
        return len(self._asked)

    @property
    def corrupt_holders(self) -> frozenset[str]:
        """Nodes that sent wrong bytes."""
        return frozenset(self._corrupt)

    def wake_at(self, now: float) -> float | None:
        """Return when a node may be asked again that may not now, if any."""
        times = [node.rest_until for name, node in self._nodes.items() if self._known(name)]
        times += [until for said in self._denied.values() for until in said.values()]
        return min((time for time in times if time > now), default=None)

    def _known(self, name: str) -> bool:
        members = self._members
        return name not in self._corrupt and name in {*members.sources, *members.fellows}

    def on_members(self, members: Members) -> None:
        """Take the present list of who takes part."""
        assert members.me in members.fellows
        assert set(members.fellows) <= set(members.ring)
        if members != self._members:
            self._members, self._passed_over = members, None
            known = {*members.sources, *members.fellows}
            for gone in [n for n, at in self._nodes.items() if not at.in_flight]:
                if gone not in known:
                    del self._nodes[gone]

    def on_wanted(self, indexes: Iterable[int]) -> None:
        """A reader waits for these chunks, here or at a fellow."""
        self._urgent.update(i for i in indexes if i < self._have.count and not self._have[i])

    def next(self, now: float) -> list[Ask]:
        """Return what can be asked now."""
        self._deal(now)
        asks: list[Ask] = []
        for index in sorted(self._urgent - self._asked):
            if self._have[index]:
                self._urgent.discard(index)
            elif (node := self._of_whom(index, now)) is not None:
                asks.append(self._ask(node, index, now))
        for owner in self._lanes:
            asks += self._from_lane(owner, now)
        return asks

    def on_chunk(self, ask: Ask, now: float) -> None:
        """The chunk came, was verified and stored (``have`` has its bit)."""
        node = self._settle(ask)
        node.failures, node.moved_at = 0, now
        self._urgent.discard(ask.index)
        self._denied.pop(ask.index, None)
        if not ask.shared:
            took = now - ask.at
            if took < FAST_S:
                node.window = min(PER_SOURCE_MAX, node.window + 1)
            elif took > SLOW_S:
                node.window = 1

    def on_later(self, ask: Ask, have: int | None, now: float) -> None:
        """A fellow does not have it yet; ``have``: its chunks, None before it has begun."""
        node = self._settle(ask)
        if node.moved_at is None or have != node.have:
            node.have, node.moved_at = have, now
        if now - ask.at < HURRY_S:
            node.rest_until = max(node.rest_until, now + HURRY_S)
        self._return(ask)
        if now - node.moved_at > (BEGIN_S if have is None else STALL_S):
            self._pass_over(node, now)

    def on_denied(self, ask: Ask, now: float) -> None:
        """The node lives and lacks the chunk."""
        node = self._settle(ask)
        self._return(ask)
        if ask.shared:
            self._pass_over(node, now)
        else:
            self._denied.setdefault(ask.index, {})[ask.node] = now + DENIED_S

    def on_failure(self, ask: Ask, now: float) -> None:
        """The node did not deliver; it rests, the chunk goes back."""
        node = self._settle(ask)
        self._return(ask)
        node.window = 1
        self._rest(node, now)

    def on_corrupt(self, ask: Ask) -> None:
        """The node sent bytes that do not hash: it is out, the chunk goes back."""
        self._settle(ask)
        self._return(ask)
        self._corrupt.add(ask.node)

    def on_given_up(self, ask: Ask) -> None:
        """We could not store the chunk; nobody is to blame."""
        self._settle(ask)
        self._return(ask)

    # -- whose a chunk is --------------------------------------------------------------------

    def _deal(self, now: float) -> None:
        """Deal what is missing out to the fellows, when other ones can be asked than before."""
        passed = frozenset(
            name
            for name in self._members.fellows
            if name != self._members.me and self._passes(name, now)
        )
        if passed == self._passed_over:
            return
        self._passed_over = passed
        live = set(self._members.fellows) - passed
        self._lanes = {name: [] for name in self._members.ring if name in live}
        for index in self._have.missing():
            if index not in self._asked:
                self._lanes[self._owner(index)].append(index)

    def _passes(self, name: str, now: float) -> bool:
        node = self._node(name)
        return name in self._corrupt or (node.failures >= FAILURES and node.rest_until > now)

    def _owner(self, index: int) -> str:
        ring, dealt = self._members.ring, list(self._lanes)
        name = ring[index % len(ring)]
        return name if name in self._lanes else dealt[index // len(ring) % len(dealt)]

    def _return(self, ask: Ask) -> None:
        if self._passed_over is not None and not self._have[ask.index]:
            heapq.heappush(self._lanes[self._owner(ask.index)], ask.index)

    # -- whom to ask -------------------------------------------------------------------------

    def _from_lane(self, owner: str, now: float) -> list[Ask]:
        asks: list[Ask] = []
        lane, skipped = self._lanes[owner], []
        while lane and self._has_room(owner, now):
            index = heapq.heappop(lane)
            if self._have[index] or index in self._asked:
                continue
            node = self._of_whom(index, now)
            if node is None:
                skipped.append(index)
            else:
                asks.append(self._ask(node, index, now))
        for index in skipped:
            heapq.heappush(lane, index)
        return asks

    def _has_room(self, owner: str, now: float) -> bool:
        if owner == self._members.me:
            return bool(self._open_sources(now))
        node = self._node(owner)
        return node.in_flight < PER_FELLOW_MAX and node.rest_until <= now

    def _of_whom(self, index: int, now: float) -> str | None:
        owner = self._owner(index)
        if owner != self._members.me:
            return owner if self._has_room(owner, now) else None
        denied = self._denied.get(index, {})
        free = [name for name in self._open_sources(now) if denied.get(name, 0.0) <= now]
        if not free:
            return None
        return min(free, key=lambda n: (self._node(n).in_flight, self._node(n).failures, n))

    def _open_sources(self, now: float) -> list[str]:
        """Return the sources that take one more request."""
        sources = self._members.sources
        if sum(self._node(name).in_flight for name in sources) >= SOURCES_MAX:
            return []
        return [
            name
            for name in sources
            if self._usable(name, now) and self._node(name).in_flight < self._node(name).window
        ]

    def _usable(self, name: str, now: float) -> bool:
        return name not in self._corrupt and self._node(name).rest_until <= now

    def _ask(self, node: str, index: int, now: float) -> Ask:
        shared = self._owner(index) != self._members.me
        self._node(node).in_flight += 1
        self._asked.add(index)
        return Ask(node, index, shared, index in self._urgent, now)

    def _rest(self, node: _Node, now: float) -> None:
        node.failures += 1
        node.moved_at = None
        span = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(node.failures - 1, 10))
        node.rest_until = now + span * (0.5 + self._random() / 2)

    def _pass_over(self, node: _Node, now: float) -> None:
        node.failures = max(node.failures, FAILURES - 1)
        self._rest(node, now)

    def _settle(self, ask: Ask) -> _Node:
        self._asked.discard(ask.index)
        node = self._node(ask.node)
        node.in_flight = max(0, node.in_flight - 1)
        return node

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())
