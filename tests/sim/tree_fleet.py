"""A fleet whose members run the real overlay and tree broadcast, in virtual time.

Links are TCP: in order, and a lost segment holds up what follows. A lone one comes again after
the round trip and RTO_S, as in Linux; in a steady flow, where later ones show the gap, after a
round trip and a quarter and RACK_GAPS segments (RFC 8985). Taking a delta over costs a commit.
What a member holds is the real heads; deltas are taken over by the real rules, each case once
(``authors.py``). Messages are handed over as values; one in ``CODEC_EVERY`` goes through its
wire form. Members' own clocks and the store's queue are left out.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.broadcast import Broadcast
from mesh.proto.broadcast_ports import DropPeer, Effect, MergeFrom, PullFrom, Read, SendTo, Take
from mesh.proto.broadcast_wire import Message, Push, body_of, parse
from mesh.proto.codec import pack, unpack
from mesh.proto.intake import Outcome
from mesh.proto.overlay import Overlay, gateways_of
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync import ANNOUNCE_S
from tests.sim.authors import SCRATCH, Authors
from tests.sim.clockwork import Clockwork
from tests.sim.delays import Delays
from tests.sim.geography import Geography
from tests.support.members import FakeMember, FakeRegister, PlainRoster

RTO_S: Final = 0.2
RACK_GAPS: Final = 3
COMMIT_S: Final = (0.002, 0.005)
"""A durable commit of what came in, before it is passed on."""
DIAL_TRIPS: Final = 2.5
"""Round trips until a link is up: TCP, handshake, HELLO."""
CODEC_EVERY: Final = 64
KEY: Final = bytes(20)
HUB: Final = "hub"
"""The name of a hub, and of the place where it stands; a fleet may have none."""


class Node:
    """One member: its cores, and what they look at."""

    __slots__ = ("author", "cast", "down", "heads", "links", "overlay", "sent", "site",
                 "timer_at", "version", "world")  # fmt: skip

    def __init__(self, world: "TreeFleet", name: str, site: str) -> None:
        self.world, self.author, self.site = world, name, site
        self.version = 0
        self.heads: dict[SetId, SignedHead] = {}
        self.links: dict[str, float] = {}  # peer -> when the last frame to it arrives
        self.sent: dict[str, float] = {}
        self.overlay: Overlay | None = None
        self.down = False
        self.timer_at: float | None = None
        self.cast = Broadcast(self, world.roster, self)

    def stage(self, set_id: SetId) -> None:
        return None

    # -- the place that the broadcast asks about -------------------------------------------

    @property
    def is_gateway(self) -> bool:
        return self.overlay is not None

    def wanted(self) -> Iterable[str]:
        return self.overlay.wanted if self.overlay is not None else ()

    def gateways(self, site: str) -> list[str]:
        return self.world.gateways[site]

    def site_of(self, node: str) -> str | None:
        return self.world.site_of[node]


class TreeFleet(Clockwork):
    """The fleet."""

    def __init__(self, seed: int, sites: int, members: int, loss: float) -> None:
        super().__init__(seed)
        self.loss = loss
        self.sites = {f"s{s}": [f"s{s}n{n}" for n in range(members)] for s in range(sites)}
        self.site_of = {node: site for site, nodes in self.sites.items() for node in nodes}
        self.geography = Geography(self.rng, [*self.sites, HUB])
        fleet = [FakeMember(node, site) for node, site in self.site_of.items()]
        fleet.append(FakeMember(HUB, "", frozenset({"hub"})))
        self.roster = PlainRoster(FakeRegister([*fleet, FakeMember(SCRATCH)]))
        self.authors = Authors(self.roster, lambda: self.now)
        self.gateways = {site: gateways_of(n, site) for site, n in self.sites.items()}
        self.nodes = {node: Node(self, node, site) for node, site in self.site_of.items()}
        self.delays = Delays()
        self.measured = 0
        self._born: dict[SetId, list[tuple[tuple[int, int], float]]] = {}
        self._frames = 0
        self._connect()

    def add_hub(self) -> Node:
        """Put a hub on the map; nobody is linked to it yet."""
        self.site_of[HUB] = ""
        self.nodes[HUB] = Node(self, HUB, HUB)
        return self.nodes[HUB]

    # -- links -----------------------------------------------------------------------------

    def _connect(self) -> None:
        """Link each site whole, and let the gateways choose their far peers."""
        for nodes in self.sites.values():
            for at, a in enumerate(nodes):
                for b in nodes[:at]:
                    if (
                        a in self.gateways[self.site_of[a]]
                        or b in self.gateways[self.site_of[a]]
                    ):
                        self.link(a, b)  # the others' links stay silent: not modelled
        for gateways in self.gateways.values():
            for name in gateways:
                chance = random.Random(f"{self.seed}/{name}")
                overlay = Overlay(name, self.site_of[name], KEY, chance)
                self.nodes[name].overlay = overlay
        for gateways in self.gateways.values():
            for name in gateways:
                overlay = self.nodes[name].overlay
                assert overlay is not None
                overlay.on_members(self.sites, self.now)
                self._dial(self.nodes[name])

    def round_trip_s(self, a: str, b: str) -> float:
        """Return the least round trip between two members."""
        one, two = self.nodes[a].site, self.nodes[b].site
        return 0.001 if one == two else 2 * self.geography.base_s(one, two)

    def _dial(self, node: Node) -> None:
        """Link what a gateway wants and has not, after the time that a handshake takes."""
        assert node.overlay is not None
        for peer in sorted(node.overlay.wanted - node.links.keys()):
            wait_s = DIAL_TRIPS * self.round_trip_s(node.author, peer)
            self.after(wait_s, self.link, node.author, peer)
        self._arm(node)

    def link(self, a: str, b: str) -> None:
        """A link between two members comes up."""
        one, two = self.nodes[a], self.nodes[b]
        if one.down or two.down or b in one.links:
            return
        one.links[b], two.links[a] = 0.0, 0.0
        for node, peer in ((one, b), (two, a)):
            self._links_changed(node)
            self.perform(node, node.cast.on_link(peer, self.now))

    def _links_changed(self, node: Node) -> None:
        if node.overlay is None:
            return
        far = [peer for peer in node.links if self.site_of[peer] != node.site]
        trips = {peer: 1000 * self.round_trip_s(node.author, peer) for peer in far}
        if node.overlay.on_links(trips, self.now):
            self.perform(node, node.cast.on_place(self.now))
            self._dial(node)
        self._arm(node)

    def lose(self, name: str, peer: str) -> None:
        """One side notices that a link is dead."""
        node = self.nodes[name]
        if node.links.pop(peer, None) is not None and not node.down:
            self._links_changed(node)
            self.perform(node, node.cast.on_link_lost(peer, self.now))

    def kill_site(self, site: str) -> None:
        """A site is gone at once: nobody says goodbye."""
        self.note("dead", site)
        for name in self.sites[site]:
            self.nodes[name].down = True

    # -- messages --------------------------------------------------------------------------

    def _send(self, node: Node, peer: str, message: Message) -> None:
        there = self.nodes[peer]
        last = node.links.get(peer)
        if last is None:
            return
        self._frames += 1
        if self._frames % CODEC_EVERY == 0:
            message = parse(unpack(pack(body_of(message)), 4 << 20))
        arrives = self.now + self.geography.one_way_s(node.site, there.site)
        gap_s, node.sent[peer] = self.now - node.sent.get(peer, -1.0), self.now
        if self.rng.random() < self.loss:
            round_trip_s = self.round_trip_s(node.author, peer)
            lone_s = RTO_S + round_trip_s
            arrives += min(lone_s, 1.25 * round_trip_s + RACK_GAPS * gap_s)
        arrives = node.links[peer] = max(arrives, last)
        self.at(arrives, self._arrive, node.author, there, message)

    def _arrive(self, source: str, node: Node, message: Message) -> None:
        if node.down or source not in node.links:
            return
        if type(message) is Push:
            self.counters["copies"] += len(message.parts)
        else:
            self.counters["control"] += 1
        self.perform(node, node.cast.on_message(source, message, self.now))

    def perform(self, node: Node, effects: Iterable[Effect]) -> None:
        """Carry effects out."""
        for effect in effects:
            match effect:
                case SendTo(peer, message):
                    self._send(node, peer, message)
                case Take():
                    self.after(self.rng.uniform(*COMMIT_S), self._take, node, effect)
                case Read(peer, wants):
                    parts = [
                        part
                        for want in wants
                        if want.id in node.heads
                        for part in self.authors.read(node.heads[want.id], want)
                    ]
                    self.perform(node, node.cast.on_read(peer, parts, self.now))
                case PullFrom(peer, heads):
                    self.counters["pulls"] += 1
                    wait_s = self.round_trip_s(node.author, peer)
                    self.after(wait_s, self._pulled, node, peer, [known.id for known in heads])
                case MergeFrom():
                    self.after(self.rng.uniform(*COMMIT_S), self.merge, node, effect)
                case DropPeer():
                    self.expect(False, f"{node.author} drops {effect.peer}: {effect.reason}")
        self._arm(node)

    def _take(self, node: Node, effect: Take) -> None:
        if node.down:
            return
        outcomes: list[Outcome] = []
        for delta in effect.deltas:
            outcome = self.authors.take(node.heads.get(delta.id), delta)
            outcomes.append(outcome)
            if outcome is Outcome.APPLIED:
                self._hold(node, delta.signed)
        self.perform(node, node.cast.on_taken(effect.peer, effect.deltas, outcomes, self.now))

    def merge(self, node: Node, effect: MergeFrom) -> None:
        """Register records have come; a fleet without registers has no use for them."""
        raise NotImplementedError

    def _pulled(self, node: Node, peer: str, ids: list[SetId]) -> None:
        """A pull over the sync service has come back; what it brings is announced on."""
        for set_id in ids:
            theirs, ours = self.nodes[peer].heads.get(set_id), node.heads.get(set_id)
            if theirs is None or (ours is not None and ours.head.point >= theirs.head.point):
                continue
            self._hold(node, theirs)
            if node.cast.carries(set_id, theirs.head.point):
                continue
            for other in node.links:
                wait_s = self.rng.uniform(0, ANNOUNCE_S) + self.round_trip_s(node.author, other)
                self.after(1.5 * wait_s, self._pulled, self.nodes[other], node.author, [set_id])

    def _hold(self, node: Node, signed: SignedHead) -> None:
        """Make a head what a member holds, and count every write that it had missed so far."""
        set_id, point = signed.head.id, signed.head.point
        before = node.heads.get(set_id)
        node.heads[set_id] = signed
        if node.author == set_id.author:
            return
        last = before.head.point if before is not None else (0, 0)
        for written, at in reversed(self._born.get(set_id, ())):
            if written <= last:
                break
            if written <= point:
                self.delays.add(self.now - at)

    def write(self, author: str) -> None:
        """A member writes its row; the figures begin when that is durable."""
        node = self.nodes[author]
        signed = self.authors.write(author, self.next_number())
        self._born.setdefault(signed.head.id, []).append((signed.head.point, self.now))
        self.measured += 1
        self.note("write", author)
        self._hold(node, signed)
        self.perform(node, node.cast.on_change({signed.head.id: signed}, self.now))

    def settle(self, messages: int, gap_s: float, authors: list[str]) -> None:
        """Let the tree find itself over some writes."""
        for _ in range(messages):
            self.write(self.rng.choice(authors))
            self.run_until(self.now + gap_s)

    # -- timers ----------------------------------------------------------------------------

    def _arm(self, node: Node) -> None:
        waits = [node.cast.deadline, node.overlay.deadline if node.overlay else None]
        due = min((at for at in waits if at is not None), default=None)
        if due is not None and (node.timer_at is None or due < node.timer_at):
            node.timer_at = due
            self.at(due, self._timer, node, due)

    def _timer(self, node: Node, due: float) -> None:
        if node.down or node.timer_at != due:
            return
        node.timer_at = None
        overlay = node.overlay
        due = overlay is not None and (overlay.deadline or self.now + 1) <= self.now
        if overlay is not None and due and overlay.on_timer(self.now):
            self.perform(node, node.cast.on_place(self.now))
            self._dial(node)
        if node.cast.deadline is not None and node.cast.deadline <= self.now:
            self.perform(node, node.cast.on_timer(self.now))
        self._arm(node)

    # -- figures ---------------------------------------------------------------------------

    def up(self) -> list[str]:
        """Return the members that are up."""
        return [name for name, node in self.nodes.items() if not node.down]

    def begin(self) -> None:
        """Begin to measure: what was written before does not count."""
        self.delays, self.measured = Delays(), 0
        self._born.clear()
        self.counters.clear()

    def figures(self) -> dict[str, Any]:
        """Return the figures since ``begin``, over all members that are up but the authors."""
        due = self.measured * (len(self.up()) - 1)
        return {
            "writes": self.measured,
            "delivered": round(self.delays.count / due, 6) if due else 1.0,
            **self.delays.figures(),
            "copies": round(self.counters["copies"] / max(1, due), 3),
            "control": round(self.counters["control"] / max(1, due), 3),
            "pulls": self.counters["pulls"],
        }

    def counted(self) -> Mapping[str, int]:
        """Return the counters of all members' broadcast, summed."""
        total: dict[str, int] = {}
        for node in self.nodes.values():
            for name, count in node.cast.counters.items():
                total[name] = total.get(name, 0) + count
        return total
