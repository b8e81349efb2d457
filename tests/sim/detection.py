"""A site of nodes that watch each other: the real detectors on a lossy network, with stalls.

It knows no detector's inside. UDP packets are lost as the weather says; what a link loses it
sends again, after TCP's timeout or as soon as something later got through, in order. A stalled
node neither sends, receives nor runs timers; what arrives waits for it. A verdict is *false*
when the node had been sending: something left it within the last ``SENT_S`` seconds, for the
one that decides or for several others (an answer to a third one is none of these: a node may
wake for a millisecond). What a node that woke says in its first ``ON_ITS_WAY_S`` may be on its
way and does not count yet.
"""

import heapq
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from mesh.proto.detector import BEAT_S, WAKE_BEATS, WAKE_EACH_S, Detector
from mesh.proto.detector_effects import Changed, Send
from mesh.proto.detector_wire import BEAT
from tests.sim.clockwork import Clockwork
from tests.sim.geography import LAN_S
from tests.sim.weather import TCP, TCP_AGAIN, UDP, Weather

SENT_S: Final = 2.0
"""Two heartbeats."""
ON_ITS_WAY_S: Final = 0.5
LAN_SPREAD_S: Final = LAN_S[1] - LAN_S[0]
FRAME_S: Final = sum(LAN_S) / 2
"""What a link carries takes so long: all alike, so nothing overtakes."""
RTO_S: Final = 0.2
"""Linux's least retransmission timeout; it doubles."""
REFUSED_AFTER_S: Final = 0.05
"""A dial to a process that is gone is refused so soon."""
WORDS_S: Final = WAKE_BEATS * WAKE_EACH_S
"""What a node says of itself so soon after it woke is no heartbeat."""
HUMBLE_S: Final = 0.02
"""A woken node works through what waited within this time; what arrives meanwhile comes after
it, as the bytes of one link do."""


def phase_of(seed: int, node: int) -> float:
    """Return when in a second a node sends its heartbeats, until it stalls."""
    return random.Random(f"phase {seed} {node}").random() * BEAT_S


class Wire:
    """One direction of a link: what TCP has not got through yet."""

    __slots__ = ("again_at", "again_s", "pending")

    def __init__(self) -> None:
        self.pending: list[bytes] = []
        self.again_s = RTO_S
        self.again_at = 0.0


class Node:
    """One node of the site."""

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.core: Any = None
        self.timer_at = 0.0
        self.stalled = False
        self.stall_began = self.woke_at = self.busy_until = -1e9
        self.began_at = 0.0
        self.sent_at = self.sent_before = 0.0  # last, and last before it woke or started
        self.answered: dict[str, float] = {}  # when it last sent something to one alone
        self.died_at: float | None = None
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []


class Site(Clockwork):
    """One site in virtual time."""

    def __init__(
        self,
        seed: int,
        weather: Weather,
        *,
        udp: bool = True,
        make: Callable[..., Detector] = Detector,
        stalls_until: float = 0.0,
        began: float = 0.0,
        phases: Sequence[float] | None = None,
    ) -> None:
        """``phases``: when in a second the nodes send their heartbeats; else the seed says."""
        super().__init__(seed)
        self.now = began
        self.weather, self._udp, self._make = weather, udp, make
        self._phases = phases or [phase_of(seed, number) for number in range(weather.size)]
        names = [f"n{number:03d}" for number in range(weather.size)]
        self.nodes = [Node(number, name) for number, name in enumerate(names)]
        self.by_name = {node.name: node for node in self.nodes}
        self.wires: dict[tuple[int, int], Wire] = {}
        self.false: list[tuple[float, str, str]] = []
        self.seen_s: list[float] = []
        self.woken_seen_s: list[float] = []
        for node in self.nodes:
            self._boot(node)
            for begin, end in weather.stalls(node.number, stalls_until, began):
                self.at(max(begin, began), self._stall, node)
                self.at(end, self._wake, node)

    # -- nodes -------------------------------------------------------------------------------

    def _boot(self, node: Node) -> None:
        phase = (self._phases[node.number] - self.now) % BEAT_S
        node.core = self._make(node.name, b"site", lambda: phase / BEAT_S)
        node.died_at, node.began_at = None, self.now
        node.sent_before = node.sent_at
        node.waiting.clear()
        self._act(node, node.core.start(self.now))
        self._act(node, node.core.set_members(list(self.by_name), self.now))
        self._plan(node, node.core.deadline)

    def _stall(self, node: Node) -> None:
        node.stalled, node.stall_began = True, self.now

    def _wake(self, node: Node) -> None:
        node.stalled, node.woke_at = False, self.now
        node.sent_before = node.sent_at
        if node.died_at is not None:
            return
        waiting, node.waiting = node.waiting, []
        node.busy_until = self.now + HUMBLE_S
        first = self.rng.random() < 0.5  # timers or messages: a loop may take either first
        if first:
            self._tick(node)
        for number, (fn, args) in enumerate(waiting):
            self.at(self.now + HUMBLE_S * number / len(waiting), self._take, node, fn, *args)
        if not first:
            self.at(self.now + HUMBLE_S, self._tick, node)

    def crash(self, node: Node, power: bool, back_s: float) -> None:
        """A process dies (its kernel answers for it), or its machine with it."""
        if node.died_at is not None or node.stalled:
            return
        node.died_at = self.now
        self.counters["crashes"] += 1
        self.note("crash", node.name, power)
        for key in [key for key in self.wires if node.number in key]:
            del self.wires[key]
        if not power:
            for other in self.nodes:
                if other is not node and other.died_at is None:
                    refused = other.core.on_refused
                    self.after(REFUSED_AFTER_S, self.deliver, other, refused, node.name)
        self.after(back_s, self._restart, node)

    def _restart(self, node: Node) -> None:
        self._boot(node)
        for other in self.nodes:
            if other is not node and other.died_at is None:
                self.after(self.rng.uniform(0.05, 0.5), self._link_up, node, other)

    def _link_up(self, a: Node, b: Node) -> None:
        for one, other in ((a, b), (b, a)):
            self.wires.pop((one.number, other.number), None)
            self.deliver(one, one.core.on_link_up, other.name)

    def _tick(self, node: Node) -> None:
        """Run the timer of a node that is awake, and plan the next."""
        if node.stalled or node.died_at is not None:
            return
        core = node.core
        if core.deadline <= self.now:
            effects = core.on_timer(self.now)
            if effects:
                self._act(node, effects)
        self._plan(node, core.deadline)

    def _plan(self, node: Node, at: float) -> None:
        node.timer_at = at
        self._number += 1  # as Clockwork.at does; this is the hot path
        heapq.heappush(self._heap, (at, self._number, self._tick_at, (node, at)))

    def _tick_at(self, node: Node, planned: float) -> None:
        if planned == node.timer_at:
            self._tick(node)

    def deliver(self, node: Node, fn: Callable[..., list[Any]], *args: Any) -> None:
        """Hand an event to a node, now or when it wakes and has done what waited."""
        if self.now < node.busy_until:
            self.at(node.busy_until, self._take, node, fn, *args)
        else:
            self._take(node, fn, *args)

    def _take(self, node: Node, fn: Callable[..., list[Any]], *args: Any) -> None:
        if node.died_at is not None or fn.__self__ is not node.core:  # type: ignore[attr-defined]
            return
        if node.stalled:
            node.waiting.append((fn, args))
            return
        effects = fn(*args, self.now)
        if effects:
            self._act(node, effects)
        if node.core.deadline < node.timer_at:
            self._plan(node, node.core.deadline)

    # -- effects -----------------------------------------------------------------------------

    def _act(self, node: Node, effects: list[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Changed):
                self._changed(node, effect)
                continue
            assert isinstance(effect, Send)
            if len(effect.peers) > 1:
                node.sent_at = self.now
            else:
                node.answered[effect.peers[0]] = self.now
            if effect.way != "link" and self._udp:
                self._datagrams(node, effect.peers, effect.data)
            if effect.way != "cheap" or not self._udp:
                self._frames(node, effect.peers, effect.data)

    def _datagrams(self, node: Node, peers: tuple[str, ...], data: bytes) -> None:
        weather, source, now = self.weather, node.number, self.now
        self.counters["datagrams"] += len(peers)
        taken = [self.by_name[peer] for peer in peers]
        if data is BEAT and now - node.woke_at > WORDS_S:
            lost = weather.beats_lost(source, taken, now)
            if lost:
                taken = [one for one in taken if one not in lost]
        else:
            taken = [one for one in taken if not weather.lost(source, one.number, UDP, now)]
        if taken:
            at = now + LAN_S[0] + self.rng.random() * LAN_SPREAD_S
            self._number += 1
            heapq.heappush(
                self._heap, (at, self._number, self._arrive, (True, node.name, taken, data))
            )

    def _frames(self, node: Node, peers: tuple[str, ...], data: bytes) -> None:
        self.counters["frames"] += len(peers)
        taken: list[Node] = []
        for name in peers:
            peer = self.by_name[name]
            if peer.died_at is None and self._through(node, peer, data):
                taken.append(peer)
        if taken:
            self.after(FRAME_S, self._arrive, False, node.name, taken, data)

    def _through(self, node: Node, peer: Node, data: bytes) -> bool:
        """Tell whether a frame gets through at once; it will later otherwise."""
        key = (node.number, peer.number)
        got_through = not self.weather.lost(*key, TCP, self.now)
        wire = self.wires.get(key)
        if wire is None or not wire.pending:
            if got_through:
                return True
            wire = self.wires[key] = Wire()
        wire.pending.append(data)
        if got_through and not self.weather.lost(*key, TCP_AGAIN, self.now):
            self.after(3 * FRAME_S, self._flush, wire, node, peer)
        if len(wire.pending) == 1:
            wire.again_at = self.now + RTO_S
            self.at(wire.again_at, self._send_again, wire, node, peer)
        return False

    def _arrive(self, udp: bool, source: str, taken: list[Node], data: bytes) -> None:
        now = self.now
        for node in taken:
            core = node.core
            if node.stalled or node.died_at is not None or now < node.busy_until:
                self.deliver(node, core.on_datagram if udp else core.on_frame, source, data)
                continue
            if udp:
                effects = core.on_datagram(source, data, now)
            else:
                effects = core.on_frame(source, data, now)
            if effects:
                self._act(node, effects)
            if core.deadline < node.timer_at:
                self._plan(node, core.deadline)

    def _send_again(self, wire: Wire, node: Node, peer: Node) -> None:
        if not wire.pending or wire.again_at != self.now:
            return
        if not self.weather.lost(node.number, peer.number, TCP_AGAIN, self.now):
            self.after(FRAME_S, self._flush, wire, node, peer)
        wire.again_s *= 2
        wire.again_at = self.now + wire.again_s
        self.at(wire.again_at, self._send_again, wire, node, peer)

    def _flush(self, wire: Wire, node: Node, peer: Node) -> None:
        if self.wires.get((node.number, peer.number)) is not wire:
            return  # that link is gone
        pending, wire.pending, wire.again_s = wire.pending, [], RTO_S
        for data in pending:
            self.deliver(peer, peer.core.on_frame, node.name, data)

    # -- verdicts ----------------------------------------------------------------------------

    def _changed(self, node: Node, change: Changed) -> None:
        self.note("changed", node.name, change.down, change.up)
        self.counters["falls"] += bool(change.down)
        for name in change.down:
            self.counters["verdicts"] += 1
            subject = self.by_name[name]
            if subject.died_at is not None:
                self._seen(node, subject.died_at)
            elif self._sent(subject, node.name):
                self.false.append((round(self.now, 3), node.name, name))
            elif subject.stalled:
                self.counters["of_stalled"] += 1
                self.counters["of_stalled_below_5_s"] += self.now - subject.stall_began < 5
            else:
                self.counters["of_just_woken"] += 1

    def _seen(self, node: Node, died_at: float) -> None:
        late = max(node.woke_at, node.began_at)
        if late > died_at - 1.0:  # it stalled, or started, meanwhile: its clocks began anew
            self.woken_seen_s.append(self.now - max(late, died_at))
        else:
            self.seen_s.append(self.now - died_at)

    def _sent(self, subject: Node, decider: str) -> bool:
        """Tell whether a living node had been sending."""
        woke_at = max(subject.woke_at, subject.began_at)
        sent_at, answered_at = subject.sent_at, subject.answered.get(decider, 0.0)
        if not subject.stalled and self.now - woke_at < ON_ITS_WAY_S:
            sent_at = subject.sent_before
            answered_at = 0.0 if answered_at >= woke_at else answered_at
        return self.now - max(sent_at, answered_at) < SENT_S


def run_site(
    seed: int,
    size: int,
    seconds: float,
    *,
    crash_each_s: float = 120.0,
    udp: bool = True,
    make: Callable[..., Detector] = Detector,
) -> Site:
    """Run a site under stalls and one-way loss, with crashes (0: none)."""
    site = Site(seed, Weather(seed, size), udp=udp, make=make, stalls_until=seconds)
    chance = random.Random(f"crashes {seed} {size}")
    at = 20.0 + chance.expovariate(1 / crash_each_s) if crash_each_s else seconds
    while at < seconds - 20:
        node = site.nodes[chance.randrange(size)]
        site.at(at, site.crash, node, chance.random() < 0.5, chance.uniform(15, 60))
        at += chance.expovariate(1 / crash_each_s)
    site.run_until(seconds)
    return site


def speed(seconds: float, sites: int = 10, size: int = 20, loss: float = 0.01) -> float:
    """Return simulated node-seconds for a second of CPU: sites at rest, with some loss."""
    running = [
        Site(seed, Weather(seed, size, loss=loss, one_way=False, stalled=0.0))
        for seed in range(sites)
    ]
    began = time.process_time()
    for site in running:
        site.run_until(seconds)
        assert not site.counters["verdicts"]
    return sites * size * seconds / (time.process_time() - began)
