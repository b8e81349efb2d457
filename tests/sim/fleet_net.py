"""The network of a simulated fleet: addresses, streams, datagrams, and what goes wrong with
them.

It knows no protocol: what is sent is handed on whole. Rules, as of TCP: a stream delivers in
order and once; loss costs time; while a path is cut bytes wait, and come when it heals; the end
that is gone answers with a reset, a host that is off with silence. Datagrams are lost, doubled
and reordered. A site behind NAT (``hidden``) cannot be dialled from outside.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.sim.geography import Geography

if TYPE_CHECKING:
    from tests.sim.clockwork import Clockwork

DIAL_S: Final = 10.0
"""How long a dial into nowhere takes to fail."""
RTO_LEAST_S: Final = 0.2
RETRY_MAX_S: Final = 3.0
"""After a cut the first retransmission comes within this."""
NAT_UDP_S: Final = 60.0
"""A datagram from outside comes in so long after one went out to that member."""
HEADERS: Final = 66
"""Bytes of Ethernet, IP, TCP and record that a message costs beside its own."""


Dialled = Callable[["Wire | None", bool], None]
"""Takes the stream, or None and whether the other side refused (else: no answer)."""


class Host(Protocol):
    """A member, as the network sees it."""

    name: str
    place: str
    up: bool
    powered: bool

    def on_accept(self, wire: "Wire") -> None:
        """Somebody connected."""
        ...

    def on_datagram(self, source: str, data: bytes) -> None:
        """A datagram arrived."""
        ...


class Wire:
    """One end of a stream."""

    __slots__ = ("_arrives_at", "_held", "far", "net", "owner", "receiver", "up", "via")

    def __init__(self, net: "Network", owner: str, via: str) -> None:
        self.net, self.owner, self.via = net, owner, via
        self.far: Wire = self
        self.up = True
        self.receiver: Callable[[Any], None] = lambda _: None  # None: the stream is over
        self._arrives_at = 0.0
        self._held: deque[Any] = deque()

    def send(self, item: Any, size: int) -> None:
        """Send one message."""
        if not self.up:
            return
        net = self.net
        net.count(self, size)
        if self._held or net.stalls(self):
            self._held.append(item)
            net.waiting[self] = None
            return
        at = net.clockwork.now + net.one_way_s(self.owner, self.far.owner, self.via)
        if net.loss and net.clockwork.rng.random() < net.loss:
            at += max(RTO_LEAST_S, 3 * (at - net.clockwork.now))
        self._deliver(item, at)

    def _deliver(self, item: Any, at: float) -> None:
        self._arrives_at = at = max(self._arrives_at, at)
        self.net.clockwork.at(at, self.far.arrive, item)

    def release(self) -> None:
        """The path is open again: send what waited."""
        clockwork = self.net.clockwork
        at = clockwork.now + clockwork.rng.uniform(RTO_LEAST_S, RETRY_MAX_S)
        while self._held:
            self._deliver(self._held.popleft(), at)

    def arrive(self, item: Any) -> None:
        """A message is here (None: the other end says that it is over)."""
        if self.up:
            if item is None:
                self.up = False
            self.receiver(item)
        elif item is not None and self.net.hosts[self.owner].powered:
            self._answer_reset()

    def close(self) -> None:
        """End the stream; the other end hears of it after what was sent before."""
        if self.up:
            self._answer_reset()
            self.up = False

    def _answer_reset(self) -> None:
        self.up = True  # for this last word
        self.send(None, 0)
        self.up = False

    def vanish(self) -> None:
        """The host loses power: no word."""
        self.up = False
        self._held.clear()


class Network:
    """All paths between members."""

    def __init__(self, clockwork: "Clockwork", geography: Geography) -> None:
        self.clockwork, self.geography = clockwork, geography
        self.hosts: dict[str, Host] = {}
        self.listeners: dict[str, str] = {}
        """Address -> member that listens there now."""
        self.hidden: dict[str, None] = {}
        """Sites behind NAT."""
        self.loss = self.datagram_loss = self.duplicates = 0.0
        self.one_way_loss: dict[tuple[str, str], float] = {}
        """(from, to) members: share of datagrams that are lost in that direction alone."""
        self.waiting: dict[Wire, None] = {}
        self.dead: dict[Wire, None] = {}
        """Ends whose NAT box has forgotten them."""
        self.counters: Counter[str] = Counter()
        self.messages = self.datagrams = self.lan_bytes = self.wan_bytes = 0
        self.relays: Callable[[str, str], bool] = lambda relay, target: False
        self._relayed: dict[str, list[Wire]] = {}
        self._cut: dict[tuple[str, str], None] = {}
        self._open_udp: dict[tuple[str, str], float] = {}

    # -- paths -----------------------------------------------------------------------------

    def add(self, host: Host) -> None:
        """A member belongs to the fleet."""
        self.hosts[host.name] = host

    def cut(self, a: str, b: str, *, both: bool = True) -> None:
        """Cut the path from a place (site or member) to another, or both ways."""
        self._cut[a, b] = None
        if both:
            self._cut[b, a] = None

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Mend one path, or all."""
        if a is None or b is None:
            self._cut.clear()
        else:
            self._cut.pop((a, b), None)
            self._cut.pop((b, a), None)
        for wire in list(self.waiting):
            if not self.stalls(wire):
                del self.waiting[wire]
                wire.release()

    def is_open(self, a: str, b: str) -> bool:
        """Tell whether packets get from one member to another."""
        if not self._cut:
            return True
        one, two = self.hosts[a].place, self.hosts[b].place
        cut = self._cut
        if one != two and ((one, "*") in cut or ("*", two) in cut):
            return False
        return not any(path in cut for path in ((a, b), (one, two), (a, two), (one, b)))

    def stalls(self, wire: Wire) -> bool:
        """Tell whether a stream moves nothing now: it needs both directions, for its acks."""
        if self.dead and (wire in self.dead or wire.far in self.dead):
            return True
        if not self._cut:
            return False
        stops = [wire.owner, *([wire.via] if wire.via else []), wire.far.owner]
        return not all(self.is_open(a, b) and self.is_open(b, a) for a, b in pairwise(stops))

    def one_way_s(self, a: str, b: str, via: str = "") -> float:
        """Return how long a packet takes."""
        if via:
            return self.one_way_s(a, via) + self.one_way_s(via, b)
        return self.geography.one_way_s(self.hosts[a].place, self.hosts[b].place)

    def reachable(self, a: str, b: str) -> bool:
        """Tell whether a member can dial another at its own address."""
        place = self.hosts[b].place
        return self.is_open(a, b) and (place not in self.hidden or self.hosts[a].place == place)

    # -- streams ---------------------------------------------------------------------------

    def dial(self, source: str, address: str, done: Dialled, via: str = "") -> None:
        """Connect to an address (with ``via``: to a member through that relay)."""
        self.counters["dials"] += 1
        target = address if via else self.listeners.get(address)
        if target is None or target == source or not self._passes(source, target, via):
            self.clockwork.after(DIAL_S, done, None, False)
            return
        trip_s = 3 * self.one_way_s(source, target, via)
        if self.loss and self.clockwork.rng.random() < self.loss:
            trip_s += 1.0  # the SYN
        self.clockwork.after(trip_s, self._connected, source, target, done, via)

    def _passes(self, source: str, target: str, via: str) -> bool:
        if not via:
            return self.reachable(source, target) and self.hosts[target].powered
        return (
            self.hosts[via].up
            and self.is_open(source, via)
            and self.is_open(via, target)
            and self.relays(via, target)
        )

    def _connected(self, source: str, target: str, done: Dialled, via: str) -> None:
        here, there = self.hosts[source], self.hosts[target]
        if not here.up:
            return
        if not there.up or not self._passes(source, target, via):
            refused = there.powered and not there.up and not via
            self.counters["refused"] += refused
            done(None, refused)
            return
        one, two = Wire(self, source, via), Wire(self, target, via)
        one.far, two.far = two, one
        if via:
            self._relayed.setdefault(via, []).append(one)
        there.on_accept(two)
        done(one, False)

    def relay_died(self, relay: str) -> None:
        """What went through a member ends at both ends."""
        for wire in self._relayed.pop(relay, []):
            wire.arrive(None)
            wire.far.arrive(None)

    def forget_mappings(self, site: str, wires: list[Wire]) -> None:
        """The NAT box of a site restarts: streams through it are dead and nobody says so."""
        for wire in wires:
            if wire.up and self.hosts[wire.far.owner].place != site:
                self.dead[wire] = None

    # -- datagrams -------------------------------------------------------------------------

    def datagram(self, source: str, target: str, data: bytes) -> None:
        """Send a datagram; it may come, late, twice, or not at all."""
        clockwork, hosts = self.clockwork, self.hosts
        rng = clockwork.rng
        here, there = hosts[source].place, hosts[target].place
        self.datagrams += 1
        self._count(here == there, len(data) + HEADERS)
        if self.hidden and not self._through_nat(source, target, here, there):
            return
        lost = self.datagram_loss
        if self.one_way_loss:
            lost += self.one_way_loss.get((source, target), 0.0)
        if (lost and rng.random() < lost) or (self._cut and not self.is_open(source, target)):
            self.counters["datagrams lost"] += 1
            return
        delay_s = self.geography.one_way_s(here, there)
        clockwork.after(delay_s, self._arrived, source, target, data)
        if self.duplicates and rng.random() < self.duplicates:
            delay_s += rng.uniform(0.0, 0.3)  # a second one, overtaken by later ones
            clockwork.after(delay_s, self._arrived, source, target, data)

    def to_all(self, source: str, targets: Sequence[str], data: bytes) -> None:
        """Send one datagram each to members of the same place; in fair weather they all
        arrive at one time, which is one event and not many."""
        foul = self.datagram_loss or self.duplicates or self.one_way_loss or self._cut
        if foul or len(targets) < 2:
            for target in targets:
                self.datagram(source, target, data)
            return
        place = self.hosts[source].place
        self.datagrams += len(targets)
        self.lan_bytes += len(targets) * (len(data) + HEADERS)
        delay_s = self.geography.one_way_s(place, place)
        self.clockwork.after(delay_s, self._arrived_at_all, source, targets, data)

    def _arrived_at_all(self, source: str, targets: Sequence[str], data: bytes) -> None:
        hosts = self.hosts
        for target in targets:
            host = hosts[target]
            if host.up:
                host.on_datagram(source, data)

    def _through_nat(self, source: str, target: str, here: str, there: str) -> bool:
        now = self.clockwork.now
        if here in self.hidden:
            self._open_udp[target, source] = now
        if there not in self.hidden or here == there:
            return True
        return now - self._open_udp.get((source, target), float("-inf")) <= NAT_UDP_S

    def _arrived(self, source: str, target: str, data: bytes) -> None:
        host = self.hosts[target]
        if host.up:
            host.on_datagram(source, data)

    # -- counting --------------------------------------------------------------------------

    def count(self, wire: Wire, size: int) -> None:
        """Count a message."""
        self.messages += 1
        hosts = self.hosts
        near = hosts[wire.owner].place == hosts[wire.far.owner].place
        self._count(near, size + HEADERS)

    def _count(self, near: bool, size: int) -> None:
        if near:
            self.lan_bytes += size
        else:
            self.wan_bytes += size
