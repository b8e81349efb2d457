"""Virtual time and chance, all from one seed: what every simulation stands on.

It knows no protocol and no network. Rule: every choice comes from ``rng`` and every event from
one heap, in the order (time, when it was planned), so a seed gives the same trace on every
machine, whatever PYTHONHASHSEED is.
"""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any


class Violation(AssertionError):
    """An invariant does not hold."""


class Clockwork:
    """The heap of events of one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.counters: Counter[str] = Counter()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._trace = hashlib.blake2b(digest_size=16)

    def at(self, when: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function at a time (seconds)."""
        self._number += 1
        heapq.heappush(self._heap, (max(when, self.now), self._number, fn, args))

    def after(self, delay_s: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function after a delay."""
        self.at(self.now + delay_s, fn, *args)

    def next_number(self) -> int:
        """Return a number that was not used before."""
        self._number += 1
        return self._number

    def run_until(self, when: float) -> None:
        """Let events happen up to a time."""
        heap, pop, events = self._heap, heapq.heappop, 0
        while heap and heap[0][0] <= when:
            self.now, _, fn, args = pop(heap)
            events += 1
            fn(*args)
        self.counters["events"] += events
        self.now = when

    def note(self, *parts: Any) -> None:
        """Put something into the trace."""
        self._trace.update(repr((round(self.now, 6), *parts)).encode())

    def trace_hash(self) -> str:
        """Return what two runs of one seed must agree on."""
        return self._trace.hexdigest()

    def expect(self, holds: bool, what: str) -> None:
        """Stop with the seed when an invariant does not hold."""
        if not holds:
            raise Violation(f"seed {self.seed}, t={self.now:.3f}: {what}")
