"""A whole fleet in virtual time: real members over a bad network, from one seed.

It knows no protocol. Rule: a seed decides everything; members get nothing but what their
network, disks and clocks give them. Weeks in which nothing happens are skipped (``skip``): all
wall clocks and steady clocks go on, links and timers do not notice, since each would only have
repeated what it did the minute before. Figures of scenarios that skip say so.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from mesh.proto.frames import Hello
from mesh.proto.register import Register
from mesh.proto.sets import SetId
from mesh.proto.tables import FLEET, PRESENCE, SERVER, SIGHTING, site_scope
from mesh.store_tx import Tx
from tests.sim.checks import entry_stamp
from tests.sim.clockwork import Clockwork
from tests.sim.fleet_checks import FleetChecks
from tests.sim.fleet_member import FleetMember
from tests.sim.fleet_net import Network
from tests.sim.fleet_org import Organisation, Plan, hub_url
from tests.sim.geography import Geography

DAY_S: Final = 86_400.0
LOOK_S: Final = 1.0
"""How often ``wait`` looks whether its condition holds."""


def plans(sites: int, nodes: int, hubs: int) -> list[Plan]:
    """Return sites with nodes, and hubs."""
    made = [Plan(f"s{s}n{n}", f"site{s}") for s in range(sites) for n in range(nodes)]
    return [*made, *(Plan(f"hub{h}", "", frozenset({"hub"})) for h in range(hubs))]


class Fleet(Clockwork):
    """All members, and what happens to them."""

    def __init__(
        self,
        seed: int,
        members: Sequence[Plan],
        *,
        hidden: Iterable[str] = (),
        old: Collection[str] = (),
        delegated: bool = False,
        later: Sequence[Plan] = (),
    ) -> None:
        """``hidden``: sites behind NAT; ``old``: labels that run an older release.

        ``later``: members that come after the first day (they have a place on the map).
        """
        super().__init__(seed)
        self.skipped_s = 0.0
        self.rogues: dict[str, None] = {}
        self.org = Organisation("fleet", members)
        founding = self.org.founding()
        if delegated:
            founding.insert(1, self.org.delegate(sorted({p.site for p in members if p.site})))
        self.register = Register(self.org.root_fp)
        """What was ever published: the truth, which members learn by their own means."""
        for record in founding:
            self.register.merge(record)
        places = dict.fromkeys(p.site or f"hub {p.label}" for p in (*members, *later))
        self.net = Network(self, Geography(self.rng, list(places)))
        self.net.hidden.update(dict.fromkeys(hidden))
        self.net.relays = self._relays
        self.checks = FleetChecks(self)
        self.checks.on_published(founding)
        self.members: dict[str, FleetMember] = {}
        self.clones: dict[str, FleetMember] = {}
        """Copies that run beside members, by their hosts' names."""
        self.values = 0
        self._moves = 0
        for plan in members:
            self.add(plan, old=plan.label in old)

    # -- members ---------------------------------------------------------------------------

    def add(self, plan: Plan, *, old: bool = False) -> FleetMember:
        """Put a member that has joined into the world, and start it."""
        member = FleetMember(self, plan, old=old)
        member.tell_address()
        return member

    def settle(self, member: FleetMember) -> None:
        """Give a member its place in the network."""
        if member.name == member.author:
            self.members[member.name] = member
        self.net.add(member)
        self.move(member)
        if member.is_hub:
            self.net.listeners[hub_url(member.plan.label, 1)] = member.name

    def clone(self, member: FleetMember) -> FleetMember:
        """Start a copy of a member beside it, as a cloned virtual machine."""
        self.note("clone", member.plan.label)
        self.counters["cloned"] += 1
        self.checks.on_clone(member)
        twin = FleetMember(self, member.plan, twin=member)
        self.clones[twin.name] = twin
        return twin

    def member(self, label: str) -> FleetMember:
        """Return the member with a label."""
        return next(m for m in self.members.values() if m.plan.label == label)

    def site(self, site: str) -> list[FleetMember]:
        """Return the nodes of a site."""
        return [m for m in self.members.values() if m.plan.site == site]

    def hubs(self) -> list[FleetMember]:
        """Return the hubs."""
        return [m for m in self.members.values() if m.is_hub]

    def active(self) -> list[FleetMember]:
        """Return the correct members that are up and belong to the fleet."""
        return [
            m
            for m in self.members.values()
            if m.up and m.author not in self.rogues and self.register.active(m.author)
        ]

    def move(self, member: FleetMember) -> None:
        """Give a member another address."""
        self._moves += 1
        self.net.listeners.pop(member.address, None)
        member.address = f"10.{self._moves >> 16}.{self._moves >> 8 & 255}.{self._moves & 255}"
        self.net.listeners[member.address] = member.name

    def publish(self, records: Iterable[bytes], at: FleetMember) -> None:
        """Let a member sign something into its register, as an operator's order does."""
        records = tuple(records)
        self.counters["operator"] += 1
        self.checks.on_published(records)
        for record in records:
            self.register.merge(record)
        at.merge(records)

    def rotate_key(self, member: FleetMember) -> None:
        """Let a member make its next X25519 key."""
        member.rotate_key()
        self.register.merge(member.identity.key_record)

    def _relays(self, relay: str, target: str) -> bool:
        return target in self.members[relay].mains

    def heard_on_lan(self, member: FleetMember, peer: str) -> list[str]:
        """Return what multicast DNS tells a member about another one."""
        other = self.members.get(peer)
        near = other is not None and other.up and other.place == member.place
        return [other.address] if other is not None and near else []

    def old_hello(self, hello: Hello) -> Hello:
        """Return the HELLO of a release two wire versions ago."""
        return replace(hello, wire_min=1, wire_max=max(1, hello.wire_max - 2))

    def on_link(self, member: FleetMember, peer: str) -> None:
        """A link was admitted."""
        self.note("link", member.plan.label, peer)
        self.checks.on_link(member, peer)

    def on_dropped(self, member: FleetMember, peer: str, reason: str) -> None:
        """A session ended a link because of what the peer sent."""
        self.counters["dropped"] += 1
        one_is_bad = peer in self.rogues or member.author in self.rogues
        self.expect(one_is_bad, f"{member.plan.label} drops correct {peer}: {reason}")

    # -- time ------------------------------------------------------------------------------

    def skip(self, days: float) -> None:
        """Let quiet days go by."""
        self.skipped_s += days * DAY_S
        self.note("skip", days)
        for member in self.members.values():
            for end in member.ends:
                end.since -= days * DAY_S
            if member.up:
                member.timer(self.now + self.rng.uniform(0.0, 1.0), member.check_key)

    def wait(self, what: str, holds: Callable[[], Any], within_s: float) -> float:
        """Run until something holds; return how long it took. Violation when it does not."""
        began = self.now
        while not holds():
            self.expect(self.now - began < within_s, f"{what}: not within {within_s:.0f} s")
            self.run_until(self.now + LOOK_S)
        self.note("held", what)
        return self.now - began

    # -- state -----------------------------------------------------------------------------

    def lagging(self, among: Collection[FleetMember] | None = None) -> str | None:
        """Return what a member lacks of the others' state, or None when all are equal."""
        members = self.active() if among is None else [m for m in among if m.up]
        digest = members[0].book.digest()
        for member in members:
            if member.book.digest() != digest:
                return f"{member.plan.label} has another register than {members[0].plan.label}"
        for author in members:
            own = [set_id for set_id in author.heads if set_id.author == author.author]
            for set_id in own:
                lacks = self._lacks(set_id, author, members)
                if lacks is not None:
                    return lacks
        return None

    def _lacks(
        self, set_id: SetId, author: FleetMember, members: Collection[FleetMember]
    ) -> str | None:
        point = author.heads[set_id].head.point
        for member in members:
            if not self.register.carries(member.author, set_id.scope, author.author):
                continue
            held = member.heads.get(set_id)
            if held is None or held.head.point != point:
                at = held and held.head.point
                label = author.plan.label
                return f"{member.plan.label} has {at} of {label}'s {set_id.scope}, not {point}"
        return None

    def equal(self, among: Collection[FleetMember] | None = None) -> bool:
        """Tell whether members agree on register and rows."""
        return self.lagging(among) is None

    # -- writing ---------------------------------------------------------------------------

    def write(self, member: FleetMember) -> None:
        """Write or delete a row of the member's own choosing, and remember the truth."""
        if not member.up or member.awaits_peer:
            return
        rng, site = self.rng, member.plan.site
        choices = [(FLEET, PRESENCE, f"b3:{rng.randrange(6)}")]
        if site:
            choices.append((site_scope(site), SERVER, f"s{rng.randrange(6)}"))
            choices.append((site_scope(site), SIGHTING, f"m{rng.randrange(6)}"))
        scope, table, key = rng.choice(choices)
        self.values += 1
        value = self.values
        if rng.random() < 0.25:
            self._remove(member, scope, table, key)
            return
        body = {"v": value, "field of a later release": value}

        def work(tx: Tx) -> int | None:
            tx.put(scope, table, key, body)
            return entry_stamp(member, scope, table, key)

        self._submit(member, work, (scope, table, key, value))

    def _remove(self, member: FleetMember, scope: str, table: str, key: str) -> None:
        def work(tx: Tx) -> int | None:
            if table == SERVER:
                there = tx.get(scope, table, key) is not None
                tx.delete(scope, table, key)
            else:
                there = tx.own(scope, table, key) is not None
                tx.drop(scope, table, key)
            return entry_stamp(member, scope, table, key) if there else None

        self._submit(member, work, (scope, table, key, None))

    def _submit(
        self,
        member: FleetMember,
        work: Callable[[Tx], int | None],
        row: tuple[str, str, str, int | None],
    ) -> None:
        """Write; once it is durable, remember what the row should show."""

        def done(stamp: int | None) -> None:
            if stamp is not None:
                self.checks.wrote(member.author, *row, stamp)

        member.submit(work, done)

    def keep_writing(self, every_s: float, until: float, among: Sequence[str] = ()) -> None:
        """Let somebody write now and then."""
        if self.now >= until:
            return
        labels = [m for m in self.members.values() if not among or m.plan.label in among]
        writer = self.rng.choice(labels)
        if self.register.active(writer.author):
            self.write(writer)
        pause_s = self.rng.expovariate(1 / every_s)
        self.after(pause_s, self.keep_writing, every_s, until, among)
