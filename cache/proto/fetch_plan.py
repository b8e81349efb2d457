"""Which chunk to ask of whom: the decisions of one fetch from peers.

It knows no links and no disk. Rule: a chunk is asked of one holder at a time, a holder that
sent wrong bytes is never asked again, one that failed waits longer each time, and a chunk that
some reader waits for goes first.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from cache.proto.bitfield import Bitfield

PER_HOLDER_MAX: Final = 4
IN_FLIGHT_MAX: Final = 8
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask ``node`` for chunk ``index``."""

    node: str
    index: int


@dataclass(slots=True)
class _Holder:
    in_flight: int = 0
    failures: int = 0
    rest_until: float = 0.0


class FetchPlan:
    """The plan for one asset; ``random`` returns [0, 1) for jitter."""

    def __init__(self, have: Bitfield, random: Callable[[], float]) -> None:
        self._have = have
        self._random = random
        self._holders: dict[str, _Holder] = {}
        self._corrupt: set[str] = set()
        self._asked: set[int] = set()
        self._urgent: set[int] = set()
        self._queue = list(have.missing())

    @property
    def done(self) -> bool:
        """Every chunk is held."""
        return self._have.full

    @property
    def in_flight(self) -> int:
        """Chunks that are being asked for."""
        return len(self._asked)

    @property
    def corrupt_holders(self) -> frozenset[str]:
        """Holders that sent wrong bytes."""
        return frozenset(self._corrupt)

    @property
    def deadline(self) -> float | None:
        """When a resting holder may be asked again, if nothing else can go on."""
        if self._asked or not self._queue:
            return None
        return min((h.rest_until for h in self._holders.values()), default=None)

    def on_holders(self, nodes: Iterable[str]) -> None:
        """Take the present list of who holds the asset."""
        wanted = set(nodes) - self._corrupt
        for gone in self._holders.keys() - wanted:
            if not self._holders[gone].in_flight:
                del self._holders[gone]
        for node in wanted - self._holders.keys():
            self._holders[node] = _Holder()

    def on_wanted(self, indexes: Iterable[int]) -> None:
        """A reader waits for these chunks."""
        self._urgent.update(i for i in indexes if not self._have[i])

    def next(self, now: float) -> list[Ask]:
        """Return what can be asked now."""
        asks: list[Ask] = []
        while self._queue and len(self._asked) < IN_FLIGHT_MAX:
            node = self._best(now)
            if node is None:
                break
            index = self._pop()
            if index is None:
                break
            self._holders[node].in_flight += 1
            self._asked.add(index)
            asks.append(Ask(node, index))
        return asks

    def on_chunk(self, ask: Ask) -> None:
        """The chunk came, was verified and stored (``have`` has its bit)."""
        self._settle(ask)
        self._holders[ask.node].failures = 0
        self._urgent.discard(ask.index)

    def on_failure(self, ask: Ask, now: float) -> None:
        """The holder did not deliver; it rests, the chunk goes back."""
        holder = self._settle(ask)
        holder.failures += 1
        span = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(holder.failures - 1, 10))
        holder.rest_until = now + span * (0.5 + self._random() / 2)
        heapq.heappush(self._queue, ask.index)

    def on_corrupt(self, ask: Ask) -> None:
        """The holder sent bytes that do not hash: it is out, the chunk goes back."""
        self._settle(ask)
        self._corrupt.add(ask.node)
        del self._holders[ask.node]
        heapq.heappush(self._queue, ask.index)

    def on_given_up(self, ask: Ask) -> None:
        """We could not store the chunk; nobody is to blame."""
        self._settle(ask)
        heapq.heappush(self._queue, ask.index)

    def _settle(self, ask: Ask) -> _Holder:
        self._asked.discard(ask.index)
        holder = self._holders.setdefault(ask.node, _Holder())
        holder.in_flight = max(0, holder.in_flight - 1)
        return holder

    def _best(self, now: float) -> str | None:
        free = [
            (holder.in_flight, holder.failures, node)
            for node, holder in self._holders.items()
            if holder.in_flight < PER_HOLDER_MAX and holder.rest_until <= now
        ]
        return min(free)[2] if free else None

    def _pop(self) -> int | None:
        for index in sorted(self._urgent - self._asked):
            if index in self._queue:
                self._queue.remove(index)
                heapq.heapify(self._queue)
                return index
        while self._queue:
            index = heapq.heappop(self._queue)
            if not self._have[index] and index not in self._asked:
                return index
        return None
