"""What goes wrong in a simulated fleet, each as one function; which and when is the seed's.

It knows no check. Rules: a fault undoes itself or ``calm`` undoes it; what cannot be undone (a
revocation, a restore) is told to the checks. ``FAULTS`` is the whole list.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mesh.proto.sets import pack_head
from mesh.proto.sign import KeySigner
from tests.sim.fleet_link import LinkEnd

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet
    from tests.sim.fleet_member import FleetMember

Fault = Callable[["Fleet", float], None]
"""Takes the fleet and the time until which faults may last."""

TEN_YEARS_MS: Final = 10 * 365 * 86_400_000


def _some(fleet: "Fleet") -> "FleetMember":
    return fleet.rng.choice([m for m in fleet.members.values() if m.author not in fleet.rogues])


def _places(fleet: "Fleet") -> list[str]:
    return list(dict.fromkeys(m.place for m in fleet.members.values()))


def loss(fleet: "Fleet", until: float) -> None:
    """Packets get lost everywhere, datagrams are doubled and overtake each other."""
    fleet.net.loss = fleet.rng.choice((0.01, 0.05))
    fleet.net.datagram_loss = fleet.rng.choice((0.01, 0.1))
    fleet.net.duplicates = 0.05


def one_way_loss(fleet: "Fleet", until: float) -> None:
    """A tenth of the directed paths loses a fifth of its datagrams."""
    names = list(fleet.members)
    for a in names:
        for b in names:
            if a != b and fleet.rng.random() < 0.1:
                fleet.net.one_way_loss[a, b] = 0.2


def partition_site(fleet: "Fleet", until: float) -> None:
    """A site has no uplink for a while; sometimes its packets only get out."""
    place = fleet.rng.choice(_places(fleet))
    fleet.note("partition", place)
    if fleet.rng.random() < 0.25:
        fleet.net.cut("*", place, both=False)
    else:
        fleet.net.cut(place, "*")
    fleet.at(_end(fleet, until, 90.0), fleet.net.heal, place, "*")


def partition_region(fleet: "Fleet", until: float) -> None:
    """Half of the places do not see the other half."""
    places = _places(fleet)
    half = fleet.rng.sample(places, len(places) // 2)
    rest = [place for place in places if place not in half]
    pairs = [(a, b) for a in half for b in rest]
    fleet.note("region", *half)
    end = _end(fleet, until, 90.0)
    for a, b in pairs:
        fleet.net.cut(a, b)
        fleet.at(end, fleet.net.heal, a, b)


def stall(fleet: "Fleet", until: float) -> None:
    """A member's loop stands still for up to ten seconds."""
    member = _some(fleet)
    length_s = min(fleet.rng.uniform(0.6, 10.0), until - fleet.now)
    fleet.note("stall", member.plan.label)
    member.stall(length_s)


def crash(fleet: "Fleet", until: float) -> None:
    """A process dies, what was not flushed is torn off; it is started again."""
    _down(fleet, _some(fleet), until, power=False)


def power_cut(fleet: "Fleet", until: float) -> None:
    """A host loses power and comes back, sometimes with its clock at 1970."""
    member = _some(fleet)
    if fleet.rng.random() < 0.3:
        before = member.skew_ms
        member.skew_ms -= 57 * 365 * 86_400_000
        fleet.at(until, setattr, member, "skew_ms", before)
    _down(fleet, member, until, power=True)


def _down(fleet: "Fleet", member: "FleetMember", until: float, *, power: bool) -> None:
    if member.up:
        fleet.note("crash", member.plan.label, power)
        member.crash(power=power)
        fleet.at(_end(fleet, until, 40.0), member.start)


def clock_jump(fleet: "Fleet", until: float) -> None:
    """A wall clock jumps, by hours or by ten years, and is set right later; or it drifts."""
    member = _some(fleet)
    by_ms = fleet.rng.choice((3_600_000, -7_200_000, TEN_YEARS_MS, -TEN_YEARS_MS))
    member.skew_ms += by_ms
    member.drift_ppm = fleet.rng.choice((0.0, 200.0, -200.0))
    fleet.at(until, setattr, member, "skew_ms", member.skew_ms - by_ms)


def restore(fleet: "Fleet", until: float) -> None:
    """A member is put back to a copy of its disk from some time ago."""
    member = _some(fleet)
    if member.up and not member.flushing and member.back_up():
        fleet.at(_end(fleet, until, 60.0), _put_back, fleet, member)


def _put_back(fleet: "Fleet", member: "FleetMember") -> None:
    if member.up and member.backup is not None:
        fleet.note("restore", member.plan.label)
        fleet.counters["restored"] += 1
        member.crash()
        fleet.checks.on_rollback(member)
        member.restore_backup()
        fleet.after(3.0, member.start)


def clone(fleet: "Fleet", until: float) -> None:
    """A member runs twice for a while: disk, register and keys were copied."""
    member = _some(fleet)
    if member.up and not member.flushing and not member.awaits_peer and not fleet.clones:
        twin = fleet.clone(member)
        fleet.at(_end(fleet, until, 30.0), _end_clone, fleet, twin)


def _end_clone(fleet: "Fleet", twin: "FleetMember") -> None:
    if twin.up:
        twin.crash(power=True)
    fleet.clones.pop(twin.name, None)


def move(fleet: "Fleet", until: float) -> None:
    """A member gets another address, and says so when it is up."""
    member = _some(fleet)
    fleet.move(member)
    if member.up and not member.awaits_peer:
        member.tell_address()


def nat(fleet: "Fleet", until: float) -> None:
    """A site vanishes behind NAT; its box forgets what went through it, twice."""
    site = fleet.rng.choice([place for place in _places(fleet) if not place.startswith("hub")])
    fleet.net.hidden[site] = None
    for _ in range(2):
        fleet.at(fleet.now + fleet.rng.uniform(0.0, until - fleet.now), _forget, fleet, site)


def _forget(fleet: "Fleet", site: str) -> None:
    wires = [end.wire for member in fleet.site(site) for end in member.ends]
    fleet.net.forget_mappings(site, wires)


def rotate_keys(fleet: "Fleet", until: float) -> None:
    """Some members go on with a new X25519 key."""
    for member in list(fleet.members.values()):
        if member.up and fleet.rng.random() < 0.5:
            fleet.rotate_key(member)


def rotate_role_key(fleet: "Fleet", until: float) -> None:
    """The membership key is replaced."""
    hubs = [hub for hub in fleet.hubs() if hub.up]
    if hubs:
        fleet.publish(fleet.org.begin_rotation(), hubs[0])
        fleet.publish(fleet.org.end_rotation(), hubs[0])


def restart_all(fleet: "Fleet", until: float) -> None:
    """Everybody loses power at once and comes back within ten seconds."""
    fleet.note("mass restart")
    for member in list(fleet.members.values()):
        if member.up:
            member.crash(power=True)
        fleet.after(fleet.rng.uniform(1.0, 10.0), member.start)


def revoke(fleet: "Fleet", until: float) -> None:
    """A hub revokes a node, with the last heads that it knows of it."""
    hubs = [hub for hub in fleet.hubs() if hub.up]
    gone = [m for m in fleet.active() if not m.is_hub and len(fleet.site(m.plan.site)) > 2]
    if hubs and gone:
        revoke_member(fleet, fleet.rng.choice(gone), hubs[0])


def revoke_member(
    fleet: "Fleet", member: "FleetMember", at: "FleetMember", signer: KeySigner | None = None
) -> None:
    """Revoke one member, with the last heads that are known at ``at``."""
    known = [s.head for s in at.heads.values() if s.head.author == member.author]
    heads = {head.scope: (head.epoch, head.seq, head.root) for head in known}
    fleet.note("revoke", member.plan.label)
    fleet.checks.on_ended(member, heads)
    fleet.publish([fleet.org.end(member.plan.label, "revoked", heads, signer)], at)


def rogue(fleet: "Fleet", until: float) -> None:
    """A member turns against the others: what it sends is forged, mangled or replayed."""
    if fleet.rogues:
        return
    member = fleet.rng.choice([m for m in fleet.active() if not m.is_hub])
    fleet.note("rogue", member.plan.label)
    fleet.rogues[member.author] = None
    fleet.checks.on_rogue(member)
    Rogue(fleet, member, until).go_on()


class Rogue:
    """The bad one: it has a member's links and says what it likes on them."""

    def __init__(self, fleet: "Fleet", member: "FleetMember", until: float) -> None:
        self._fleet, self._member, self._until = fleet, member, until

    def go_on(self) -> None:
        """Send something bad on some link, again and again."""
        fleet, member = self._fleet, self._member
        if member.up and member.mains:
            end = fleet.rng.choice(list(member.mains.values()))
            fleet.counters["bad frames"] += 1
            fleet.rng.choice((self._garbage, self._forged, self._lie, self._huge))(end)
        if fleet.now < self._until:
            fleet.after(fleet.rng.uniform(0.05, 1.0), self.go_on)

    def _garbage(self, end: LinkEnd) -> None:
        rng = self._fleet.rng
        kind = rng.choice(("sync", "receipt", "detect", "broadcast"))
        end.post(kind, rng.choice((None, b"", [1, [2]], {"t": "pull", "n": -1}, rng.random())))
        end.wire.send(rng.randbytes(rng.randrange(1, 40)), 40)

    def _forged(self, end: LinkEnd) -> None:
        """Unasked rows under a head of somebody else, moved on and signed by us."""
        signed = self._fleet.rng.choice(list(self._member.heads.values()))
        head = signed.head
        body = pack_head(replace(head, seq=head.seq + 1))
        part = [body, self._member.signs()(body), head.seq, [], True]
        end.post("sync", {"t": "delta", "n": self._fleet.rng.randrange(1, 9), "parts": [part]})

    def _lie(self, end: LinkEnd) -> None:
        """Announce heads that do not exist, of others and of scopes that are not ours."""
        rng = self._fleet.rng
        author = rng.choice(list(self._fleet.members))
        scope = rng.choice(("fleet", "hubs", "site:site0", f"pair:{author}"))
        listed = [[author, scope, rng.randrange(1, 1 << 60), 7, rng.randbytes(16)]]
        body = {"t": "announce", "g": rng.randbytes(16), "heads": listed, "more": False}
        end.post("sync", body)

    def _huge(self, end: LinkEnd) -> None:
        rows = [["t", "k", 1, 1, bytes(70_000)]]
        end.post("sync", {"t": "delta", "n": 1, "parts": [[b"", b"", 0, rows, True]]})
        end.post("sync", {"t": "heads", "n": 1, "heads": [[]] * 3000, "more": True})


def _end(fleet: "Fleet", until: float, length_s: float) -> float:
    return min(until, fleet.now + fleet.rng.uniform(1.0, length_s))


FAULTS: Final[dict[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        loss, one_way_loss, partition_site, partition_region, stall, crash, power_cut,
        clock_jump, restore, clone, move, nat, rotate_keys, rotate_role_key, restart_all,
        revoke, rogue,
    )
}  # fmt: skip


def calm(fleet: "Fleet") -> None:
    """End all faults that end."""
    net = fleet.net
    net.loss = net.datagram_loss = net.duplicates = 0.0
    net.one_way_loss.clear()
    net.heal()
    for twin in list(fleet.clones.values()):
        _end_clone(fleet, twin)
    for name, member in fleet.members.items():
        if name not in fleet.rogues and fleet.register.active(name):
            member.start()
