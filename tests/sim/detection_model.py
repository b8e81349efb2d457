"""The detection scenario without what cannot matter: for a million node-hours.

A verdict on a node that had been sending needs an observer that heard nothing of it for
``SILENCE_S`` and a decider that heard no answer for ``STABLE_S``, while it ran. So somebody
must have missed either every word of a node that woke, or two heartbeats of a running node and
then all answers to its pings, until ``DEAF_S`` after the last it heard. Where stalls and losses
make that possible, and in sites of four or more a second observer is deaf or stalls too, the
site is simulated exactly, from ``BEFORE_S`` earlier; all else is skipped. Answers over the link
are counted as lost when they might be, so more is simulated than can matter.

It shares the weather with the whole simulation. Not covered: crashes (they are no false
verdicts) and nodes that became observers because another was given up, for whom nine pings in a
row would have to be lost both ways.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Final

from mesh.proto.detector import (
    BEAT_S,
    LATE_S,
    PROBE_EACH_S,
    PROBE_S,
    SILENCE_S,
    STABLE_S,
    WAKE_BEATS,
    WAKE_EACH_S,
    Detector,
)
from mesh.proto.observers import Ring
from tests.sim.detection import HUMBLE_S, SENT_S, Site, phase_of
from tests.sim.weather import BLOCK, TCP, UDP, Weather

DEAF_S: Final = SILENCE_S + STABLE_S - SENT_S
"""Who ran until less than SENT_S before a verdict was missed for so long while it ran."""
BEFORE_S: Final = 25.0
AFTER_S: Final = 8.0
LAN_EDGES_S: Final = (0.0008, 0.0022)
"""An answer leaves so much later than the ping: either may fall into another slot of loss."""
Span = tuple[float, float]


class Model:
    """One site, most of which is skipped."""

    def __init__(
        self, seed: int, size: int, seconds: float, *, pings: bool = True, loss: float = 0.2
    ) -> None:
        """``pings``: False when the detectors that will be simulated send none."""
        self.seed, self.size, self.seconds, self._pings = seed, size, seconds, pings
        self.weather = Weather(seed, size, loss=loss)
        self.stalls = [self.weather.stalls(node, seconds) for node in range(size)]
        ring = Ring(b"site", [f"n{node:03d}" for node in range(size)])
        self._observers = [
            [int(name[1:]) for name in ring.observers(f"n{node:03d}", ())]
            for node in range(size)
        ]

    # -- what may matter ---------------------------------------------------------------------

    def suspicious(self) -> list[tuple[float, int]]:
        """Return (time, node) of all that has to be simulated."""
        found: list[tuple[float, int]] = []
        for subject in range(self.size):
            deaf = [
                (at, other)
                for other in range(self.size)
                if other != subject and self.weather.lossy[subject][other]
                for at in self._deaf(subject, other)
            ]
            found += [(at, subject) for at, _ in deaf if self._matters(subject, at, deaf)]
        return sorted(found)

    def _matters(self, subject: int, at: float, deaf: list[tuple[float, int]]) -> bool:
        observers = self._observers[subject]
        if len(observers) < 3:
            return True
        near = {other for when, other in deaf if abs(when - at) < SILENCE_S + STABLE_S}
        bad = sum(one in near or self._stalls(one, at - 1, at + 5) for one in observers)
        return bad >= 2

    def _stalls(self, node: int, begin: float, end: float) -> bool:
        stalls = self.stalls[node]
        place = bisect_right(stalls, (end, 0.0))
        return place > 0 and stalls[place - 1][1] > begin

    def _deaf(self, subject: int, other: int) -> Iterator[float]:
        """Return when one node may have missed another for too long while that ran."""
        for begin, end in self.stalls[subject]:
            if end - begin >= LATE_S and self._missed_waking(subject, other, end):
                yield end
        if other not in self._observers[subject]:
            return
        for first, begin, end in self._runs(subject):
            yield from self._missed_beats(subject, other, first, begin, end)

    def _missed_waking(self, subject: int, other: int, woke_at: float) -> bool:
        """Tell whether nothing that a node says on waking needs to arrive."""
        lost = self.weather.lost
        for number in range(WAKE_BEATS):
            at = woke_at + number * WAKE_EACH_S
            if not any(lost(subject, other, UDP, at + late) for late in (0, HUMBLE_S)):
                return False
        return any(lost(subject, other, TCP, woke_at + late) for late in (0, HUMBLE_S))

    def _runs(self, subject: int) -> Iterator[tuple[float, float, float]]:
        """Return (its first heartbeat, from, to) of each time that a node runs.

        After a short stall it may go on as before, or not: both are returned.
        """
        runs = [(phase_of(self.seed, subject), 0.0)]
        for stall, wake in [*self.stalls[subject], (self.seconds, self.seconds)]:
            for first, begin in runs:
                yield first, begin, stall
            if wake - stall >= BEAT_S + LATE_S:
                runs = []
            if wake - stall >= LATE_S:
                runs = [*runs[:3], (wake + BEAT_S, wake)]

    def _missed_beats(
        self, subject: int, other: int, first: float, begin: float, end: float
    ) -> Iterator[float]:
        beats = max(0, int((end - first) / BEAT_S) + 1)
        if end - begin < DEAF_S - PROBE_S:
            return
        lost = self._lost_beats(subject, other, first, beats)
        gaps = lost & lost >> 1 & ~(lost << 1)  # two are missing after one that arrived
        starts = [first + BEAT_S * (k - 1) for k in range(1, beats) if gaps >> k & 1]
        wakes = self._wakes(other, begin, end)
        for at in [begin, *starts, *wakes]:
            while at + DEAF_S < end:
                k = max(0, int((at - first) / BEAT_S + 1e-6) + 1) if at >= first else 0
                while lost >> k & 1:
                    k += 1
                beat = min(first + BEAT_S * k, end)
                answer = self._answer(subject, other, at, min(beat, at + DEAF_S))
                if answer is None:
                    if beat - at >= DEAF_S:
                        yield at + DEAF_S
                    break
                at = answer

    def _wakes(self, node: int, begin: float, end: float) -> list[float]:
        stalls = self.stalls[node]
        first = max(0, bisect_right(stalls, (begin, 0.0)) - 1)
        near = stalls[first : bisect_right(stalls, (end, 0.0))]
        return [wake for _, wake in near if begin < wake < end]

    def _answer(self, subject: int, other: int, heard: float, until: float) -> float | None:
        at = heard + PROBE_S
        while self._pings and at < until:
            lost = any(self.weather.lost(subject, other, UDP, at + x) for x in LAN_EDGES_S)
            if not lost and not self._stalls(subject, at, at + LAN_EDGES_S[1]):
                return at
            at += PROBE_EACH_S
        return None

    def _lost_beats(self, subject: int, other: int, first: float, count: int) -> int:
        """Return the lost ones of ``count`` heartbeats, lost in doubt."""
        lost = 0
        for late in (0.0, HUMBLE_S):
            begin = int(first + late)
            block, place = divmod(begin, BLOCK)
            bits = self.weather.beats(subject, other, block) >> place
            if place + count > BLOCK:
                bits |= self.weather.beats(subject, other, block + 1) << BLOCK - place
            lost |= bits
        return lost & (1 << count) - 1

    def _phase(self, node: int, at: float) -> float:
        """Return when in a second a node sends its heartbeats at a time."""
        past = self.stalls[node][: bisect_right(self.stalls[node], (at, 0.0))]
        woke = (wake for stall, wake in reversed(past) if wake - stall >= BEAT_S + LATE_S)
        return next(woke, phase_of(self.seed, node)) % BEAT_S

    # -- what did ----------------------------------------------------------------------------

    def false_verdicts(
        self, make: Callable[..., Detector] = Detector
    ) -> tuple[list[tuple[float, str, str]], float]:
        """Simulate what may matter; return the false verdicts and the node-seconds it took."""
        found: dict[tuple[str, str, int], tuple[float, str, str]] = {}
        node_s = 0.0
        for begin, end in merged(at for at, _ in self.suspicious()):
            site = Site(
                self.seed, self.weather, make=make, stalls_until=end, began=begin,
                phases=[self._phase(node, begin) for node in range(self.size)],
            )  # fmt: skip
            site.run_until(end)
            node_s += self.size * (end - begin)
            for at, decider, subject in site.false:
                if at > begin + BEFORE_S / 2:
                    found[decider, subject, int(at / SILENCE_S)] = (at, decider, subject)
        return sorted(found.values()), node_s


def merged(times: Iterator[float]) -> list[Span]:
    """Return the spans to simulate around these times, those that overlap as one."""
    spans: list[Span] = []
    for at in times:
        begin, end = max(0.0, at - BEFORE_S), at + AFTER_S
        if spans and begin < spans[-1][1]:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((begin, end))
    return spans


def run_model(seed: int, size: int, node_hours: float) -> tuple[int, float]:
    """Return the false verdicts of one site and the node-hours that were simulated exactly."""
    found, node_s = Model(seed, size, node_hours * 3600 / size).false_verdicts()
    return len(found), node_s / 3600
