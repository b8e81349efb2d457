"""What happens to a site in a detection run: stalls of its nodes, loss on its links.

It knows no protocol and no events. Rule: everything is a pure function of the seed, whoever
asks and in whatever order, so the whole simulation and the model that skips what cannot matter
(tests/sim/detection_model.py) see the same weather. Loss is drawn a heartbeat, and for other
packets once in SLOT_S a link and kind of packet.
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, Protocol

SLOT_S: Final = 0.05
BLOCK: Final = 4096
"""Heartbeats whose loss is drawn at once."""
LOSS_STEPS: Final = 10
"""Loss is a multiple of 2 ** -LOSS_STEPS."""
UDP: Final = 0
TCP: Final = 1
TCP_AGAIN: Final = 2
_MASK: Final = (1 << 64) - 1


class Placed(Protocol):
    """A node of the site."""

    number: int


class Weather:
    """The stalls and the losses of one site."""

    def __init__(
        self,
        seed: int,
        size: int,
        *,
        loss: float = 0.2,
        one_way: bool = True,
        stalled: float = 0.1,
        stall_s_max: float = 10.0,
    ) -> None:
        """``stalled`` is the part of its time that a node stalls; ``one_way``: of each pair of
        nodes only one direction loses."""
        self.seed, self.size = seed, size
        self._share = round(loss * (1 << LOSS_STEPS))
        self._stall_s_max = stall_s_max
        self._gap_s = stall_s_max / 2 * (1 - stalled) / stalled if stalled else 0.0
        rng = random.Random(f"weather {seed} {size}")
        self.lossy = [[self._share > 0] * size for _ in range(size)]
        if one_way:
            for a in range(size):
                for b in range(a):
                    one = rng.random() < 0.5
                    self.lossy[a][b], self.lossy[b][a] = one, not one
        self._blocks: dict[tuple[int, int], tuple[int, int]] = {}
        self._stalls: dict[int, tuple[float, list[tuple[float, float]]]] = {}  # until when, all

    def stalls(self, node: int, until: float, since: float = 0.0) -> list[tuple[float, float]]:
        """Return the stalls of a node as (begin, end), in order, that end after ``since``."""
        if not self._gap_s:
            return []
        drawn_until, drawn = self._stalls.get(node, (0.0, []))
        if drawn_until < until:
            drawn = self._draw_stalls(node, until)
            self._stalls[node] = until, drawn
        first = bisect_right(drawn, (since, 0.0))
        if first and drawn[first - 1][1] > since:
            first -= 1
        return drawn[first : bisect_left(drawn, (until, 0.0))]

    def _draw_stalls(self, node: int, until: float) -> list[tuple[float, float]]:
        rng = random.Random(f"stalls {self.seed} {node}")
        found: list[tuple[float, float]] = []
        at = rng.expovariate(1 / self._gap_s)
        while at < until:
            end = at + rng.random() * self._stall_s_max
            found.append((at, end))
            at = end + rng.expovariate(1 / self._gap_s)
        return found

    def beats_lost(self, source: int, targets: Iterable[Placed], now: float) -> list[Placed]:
        """Return to which nodes heartbeats that are sent now get lost."""
        second = int(now)
        block, bit = second // BLOCK, 1 << second % BLOCK
        lossy, kept, lost = self.lossy[source], self._blocks, []
        for target in targets:
            if lossy[target.number]:
                found = kept.get((source, target.number))
                if found is None or found[0] != block:
                    found = (block, self.beats(source, target.number, block))
                if found[1] & bit:
                    lost.append(target)
        return lost

    def beats(self, source: int, target: int, block: int) -> int:
        """Return the lost heartbeats of a lossy link: bit n is second block * BLOCK + n."""
        kept = self._blocks.get((source, target))
        if kept is None or kept[0] != block:
            draw = random.Random(f"beats {self.seed} {source} {target} {block}").getrandbits
            bits = 0
            for step in range(LOSS_STEPS):
                fresh = draw(BLOCK)
                bits = bits | fresh if self._share >> step & 1 else bits & fresh
            kept = self._blocks[source, target] = (block, bits)
        return kept[1]

    def lost(self, source: int, target: int, kind: int, now: float) -> bool:
        """Tell whether another packet that is sent now gets lost."""
        if not self.lossy[source][target]:
            return False
        link = (self.seed * 4096 + source) * 4096 + target
        z = ((link * 4 + kind) << 40 | int(now / SLOT_S)) * 0x9E3779B97F4A7C15 & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return (z ^ z >> 31) % (1 << LOSS_STEPS) < self._share
