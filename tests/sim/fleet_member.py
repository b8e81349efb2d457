"""A member of a simulated fleet: every real core it runs, over one disk, one register, one
clock.

Disk, writer and sessions are ``SimMember``'s; this adds identity and register with real
signatures, links (fleet_link.py), dialling (fleet_dialling.py), the wall clock, the failure
detector and the overlay. It decides nothing that a core decides; what shells decide it does as
they do. Rules: whatever happens in a stall happens after it; a life's timers end with it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from mesh.identity import Identity
from mesh.key_rotation import RESTORED_S
from mesh.proto.crossing import newer_stays
from mesh.proto.frames import Hello, make_hello
from mesh.proto.hlc import milliseconds
from mesh.proto.key_age import is_due, is_expired
from mesh.proto.overlay import Overlay, Wanted
from mesh.proto.register import Merged, Register
from mesh.proto.sets import HEAD_KIND, HEAD_N, SetId, SignedHead
from mesh.proto.steady_time import SteadyTime
from mesh.proto.sync import SyncSession
from mesh.proto.tables import FLEET, NODE, site_scope
from mesh.proto.trust import KEY
from mesh.roster import RegisterOnly, RegisterRoster
from mesh.store_tx import authored_rows
from tests.sim.fleet_dialling import Dialling, Way
from tests.sim.fleet_link import LinkEnd
from tests.sim.fleet_net import Network, Wire
from tests.sim.fleet_news import News
from tests.sim.fleet_org import FLEET_MS, Plan, book_like, identity
from tests.sim.fleet_senses import Senses
from tests.sim.member import SimMember

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

BOOTED_MS: Final = 10_000_000
CACHED_MAX: Final = 8
CLONE: Final = "#2"
MORE_SERVICES: Final = frozenset({"detect", "broadcast"})
"""What a member of an older release does not have."""


class MemberClock:
    """The fleet as its member sees it: timers that wait for the end of a stall."""

    def __init__(self, fleet: "Fleet", member: "FleetMember") -> None:
        self._fleet, self._member = fleet, member
        self.rng, self.checks = fleet.rng, fleet.checks
        self.note, self.expect = fleet.note, fleet.expect
        self.next_number = fleet.next_number

    @property
    def now(self) -> float:
        """Seconds of this simulation."""
        return self._fleet.now

    def at(self, when: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function at a time."""
        self._member.timer(when, fn, *args)

    def after(self, delay_s: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function after a delay."""
        self._member.timer(self._fleet.now + delay_s, fn, *args)

    def send(self, _source: str, target: str, number: int, kind: str, body: Any) -> None:
        """Send a frame over the main link."""
        end = self._member.mains.get(target)
        if end is not None and end.number == number:
            end.post(kind, body)


class FleetMember(SimMember):
    """See the module."""

    def __init__(
        self,
        fleet: "Fleet",
        plan: Plan,
        *,
        old: bool = False,
        twin: "FleetMember | None" = None,
    ) -> None:
        """``old``: it runs a release before the detector and the broadcast.

        ``twin``: it is a copy of that member, disk, keys and all (a cloned virtual machine).
        """
        self.fleet = self.clock = fleet
        self.net: Network = fleet.net
        self.plan, self.old, self.is_hub = plan, old, plan.is_hub
        self.identity: Identity = identity(plan.label)
        if twin is not None:
            self.identity = twin.identity
        self.author = self.identity.node_id
        self.name = self.author + (CLONE if twin else "")
        """The host's name in the network."""
        self.place = plan.site or f"hub {plan.label}"
        self.book = book_like(twin.book if twin else fleet.register)
        self.powered = True
        self.stalled_until = self.busy_until = self.silent_until = 0.0
        self.drift_ppm = self.cpu_s = 0.0
        self.mains: dict[str, LinkEnd] = {}
        self.ends: dict[LinkEnd, None] = {}
        self.cache: dict[str, list[str]] = {}
        """Addresses that have worked, on disk."""
        self.address = ""
        fleet.settle(self)
        roster = RegisterRoster(self.book, self.author)
        clock = MemberClock(fleet, self)
        super().__init__(clock, self.author, roster, 0)  # type: ignore[arg-type]
        if twin is not None:
            self.crash()
            self.disk = twin.disk.copy()
            self.boot()

    # -- life ------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start over what the disk holds."""
        wall_ms, steady_ms = self._wall_ms(), self._steady_ms()
        self.time = SteadyTime(wall_ms, steady_ms)
        self.session = self.entropy(8)
        self.mains, self.ends = {}, {}
        self._restored_at = float("-inf")
        super().boot()
        self.time.begin(milliseconds(self.replica.hlc.last), wall_ms, steady_ms)
        self.dialling = Dialling(self)
        key = self.book.root_fp
        self.overlay = Overlay(self.author, self.plan.site, key, self.fleet.rng)
        self.news = None if self.old else News(self)
        self.senses = Senses(self) if self.plan.site and not self.old else None
        self._members_changed()
        self.check_key()
        self.dialling.look()

    def crash(self, *, power: bool = False) -> None:
        """Stop at once; ``power``: the host is off as well, and nobody is told."""
        self.powered = not power
        self.up = False
        for end in list(self.ends):
            end.cut_off()
        self.net.relay_died(self.name)
        self.mains, self.ends = {}, {}
        super().crash()

    def start(self) -> None:
        """Switch on."""
        self.powered = True
        if not self.up:
            self.silent_until = self.clock.now
            self.clock.note("start", self.plan.label)
            self.boot()

    def stall(self, length_s: float) -> None:
        """Let the loop stand still."""
        self.stalled_until = max(self.stalled_until, self.clock.now + length_s)
        self.silent_until = max(self.silent_until, self.stalled_until)

    def back_up(self) -> bool:
        """Copy disk, register and keys, as a copy of the data folder does."""
        if self.flushing:
            return False
        self.backup = self.disk.copy()
        self._kept = (book_like(self.book), self.identity)
        self.fleet.checks.on_backup(self)
        return True

    def restore_backup(self) -> None:
        """Go back to the copy; the next start knows that it is one."""
        super().restore_backup()
        self.book, self.identity = self._kept
        self._kept = (book_like(self.book), self.identity)
        self.roster = RegisterRoster(self.book, self.author)  # type: ignore[assignment]
        self.fleet.checks.on_restored_register(self)

    def timer(self, at: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function at a time, in this life, when no stall is on."""
        self.clock.at(at, self._timed, self.life, fn, args)

    def _timed(self, life: int, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.up or life != self.life:
            return
        if self.stalled_until > self.clock.now:
            self.clock.at(self.stalled_until, self._timed, life, fn, args)
        else:
            fn(*args)

    def later(self, fn: Callable[..., None], *args: Any) -> None:
        """Call a function after the stall that is on."""
        self.timer(self.stalled_until, fn, *args)

    def when_idle(self, cost_s: float, fn: Callable[..., None], *args: Any) -> None:
        """Call a function once the processor has had time for it."""
        begin = max(self.clock.now, self.busy_until, self.stalled_until)
        self.busy_until = begin + cost_s
        self.cpu_s += cost_s
        self.timer(self.busy_until, fn, *args)

    def entropy(self, count: int) -> bytes:
        """Return random bytes, from the seed."""
        return self.fleet.rng.randbytes(count)

    # -- time ------------------------------------------------------------------------------

    def _true_ms(self) -> int:
        return int((self.clock.now + self.fleet.skipped_s) * 1000 * (1 + self.drift_ppm / 1e6))

    def _wall_ms(self) -> int:
        return max(0, FLEET_MS + self._true_ms() + self.skew_ms)

    def _steady_ms(self) -> int:
        return BOOTED_MS + self._true_ms()

    def now_ms(self) -> int:
        """Return the time that this member goes by."""
        return self.time.now(self._wall_ms(), self._steady_ms())

    # -- what SimMember asks ---------------------------------------------------------------

    def signs(self) -> Callable[[bytes], bytes]:
        """Return what signs this member's heads: its identity key."""
        return lambda body: self.identity.sign(HEAD_KIND, HEAD_N, self.book.root_fp, body)

    def everybody(self) -> list[str]:
        """Return all identities that this member knows."""
        return self.roster.nodes()  # type: ignore[attr-defined,no-any-return]

    def session_with(self, peer: str) -> SyncSession:
        """Return a session; whoever shows an expired key gets the register alone."""
        end = self.mains[peer]
        if not is_expired(end.made_ms, self.now_ms()):
            return super().session_with(peer)
        self.clock.counters["renewals"] += 1
        only = RegisterOnly(self.book, self.author)
        jitter = self.fleet.rng.random
        return SyncSession(peer, self, only, self.book, self.claims, jitter, None)

    def pushed(self, peer: str, set_id: SetId, point: tuple[int, int]) -> bool:
        """Tell whether the tree brings a peer the news of a set."""
        return self.news is not None and self.news.pushed(peer, set_id, point)

    def committed(self, changes: Mapping[SetId, SignedHead | None]) -> None:
        """Something is durable: it is news."""
        if self.news is not None:
            self.news.on_change(changes)

    def register(self) -> Register:
        """Return the register that sessions compare."""
        return self.book

    def dropped(self, peer: str, reason: str) -> None:
        """A session wants its link closed: no correct member gives it a reason to."""
        self.fleet.on_dropped(self, peer, reason)
        end = self.mains.get(peer)
        if end is not None:
            end.close(reason)

    # -- register --------------------------------------------------------------------------

    def merge(self, records: tuple[bytes, ...], origin: str = "") -> None:
        """Merge register records, from a peer or our own; what follows, follows at once."""
        outcomes = [self.book.merge(record) for record in records]
        merged = [one for one in outcomes if isinstance(one, Merged)]
        if not merged:
            return
        self.roster.refresh()  # type: ignore[attr-defined]
        self.fleet.checks.on_register(self)  # type: ignore[attr-defined]
        for end in list(self.mains.values()):
            if not self.book.active(end.peer):
                end.close("no longer an active member")
        flooded: set[str] = set()
        if self.news is not None:
            wires = [self.book.record(one.kind, one.subject) for one in merged]
            kept = [wire for wire in wires if wire is not None]
            flooded = self.news.on_records(kept, origin)
        for peer in list(self.links):
            link = self.links.get(peer)
            if link is not None and peer not in flooded:
                now = self.clock.now
                self.perform(peer, link, link.session.on_register_change(now))
        self._members_changed()
        self.check_key()
        self.dialling.look()

    def learn(self, record: bytes) -> None:
        """Take a key record that a handshake has shown."""
        self.merge((record,))

    def rotate_key(self, above: int = 0) -> None:
        """Go on with a new X25519 key, and make all links anew (mesh/key_rotation.py)."""
        epoch = max(above, self.identity.kem_epoch) + 1
        self.identity = identity(self.plan.label, epoch, self.now_ms())
        self.clock.counters["keys replaced"] += 1
        self.merge((self.identity.key_record,))
        for end in list(self.mains.values()):
            end.close("this node has a new key")

    def check_key(self) -> None:
        """Replace our key when its time has come, or when somebody knows a later one."""
        ours, known = self.identity, self.book.member(self.author)
        if known is not None and known.kem_public != ours.kem_public:
            if known.kem_epoch >= ours.kem_epoch:
                if self.clock.now >= self._restored_at + RESTORED_S:
                    self._restored_at = self.clock.now
                    self.rotate_key(known.kem_epoch)
                return
            self.merge((ours.key_record,))
        if is_due(ours.kem_made_ms, self.now_ms(), ours.public[0] / 255):
            self.rotate_key()

    def _members_changed(self) -> None:
        now = self.fleet.now
        found: dict[str, list[str]] = {}
        for member in self.book.members():
            if member.status == "member" and member.site and "node" in member.roles:
                found.setdefault(member.site, []).append(member.node_id)
        self._wants(self.overlay.on_members(found, now))
        if self.senses is not None:
            self.senses.on_members(found.get(self.plan.site, []))

    # -- links -----------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Return what we say first."""
        hello = make_hello("main", "sim", self.session)
        return self.fleet.old_hello(hello) if self.old else hello

    def new_end(self, wire: Wire, peer: str | None, address: str = "") -> LinkEnd:
        """Begin a link over a stream."""
        end = LinkEnd(self, wire, peer, address)
        self.ends[end] = None
        return end

    def on_accept(self, wire: Wire) -> None:
        """Somebody connected."""
        self.new_end(wire, None)

    def on_ready(self, end: LinkEnd) -> None:
        """HELLO was exchanged: admit the link as mesh/link/peers.py does."""
        peer = end.peer
        if not self.book.active(peer):
            end.close("not an active member")
            return
        if self.book.record(KEY, peer) != end.key_record:
            self.merge((end.key_record,))
        old = self.mains.get(peer)
        if old is not None:
            lower = self.author < peer
            if not newer_stays(
                lower_dialled_old=old.dialled == lower,
                lower_dialled_new=end.dialled == lower,
                restarted=old.peer_hello.session != end.peer_hello.session,
                old_age_s=self.clock.now - old.since,
            ):
                end.close("another link stays")
                return
            old.close("a newer link stays")
        self.mains[peer] = end
        self.fleet.on_link(self, peer)
        self.dialling.on_ready(end)
        if end.dialled and not end.wire.via:
            self._remember(peer, end.address)
        self.link(peer, end.number)
        if self.news is not None:
            self.news.on_link(peer)
        if self.senses is not None:
            self.senses.on_link_up(peer)
        self._links_changed()

    def _remember(self, peer: str, address: str) -> None:
        known = self.cache.setdefault(peer, [])
        if address in known:
            known.remove(address)
        known.insert(0, address)
        del known[CACHED_MAX:]

    def on_end(self, end: LinkEnd, reason: str) -> None:
        """A link is over."""
        self.ends.pop(end, None)
        if self.mains.get(end.peer) is end:
            del self.mains[end.peer]
            self.unlink(end.peer)
            if self.news is not None:
                self.news.on_link_lost(end.peer)
            self._links_changed()
        self.dialling.on_end(end)

    def _links_changed(self) -> None:
        links = {
            peer: None if end.core is None else end.core.round_trip_s
            for peer, end in self.mains.items()
        }
        in_ms = {peer: None if s is None else 1000 * s for peer, s in links.items()}
        self._wants(self.overlay.on_links(in_ms, self.clock.now))

    def on_service(self, end: LinkEnd, kind: str, body: Any) -> None:
        """A message of a service came."""
        if self.mains.get(end.peer) is not end or (self.old and kind in MORE_SERVICES):
            return
        if kind == "detect":
            if self.senses is not None:
                self.senses.on_frame(end.peer, body)
        elif kind == "broadcast":
            if self.news is not None:
                self.news.on_frame(end.peer, body)
        else:
            self.on_frame(end.peer, end.number, kind, body)

    def on_refused(self, peer: str) -> None:
        """Nobody listens where a member did."""
        if self.senses is not None:
            self.senses.on_refused(peer)

    def on_datagram(self, source: str, data: bytes) -> None:
        """A heartbeat or another short word."""
        if self.stalled_until > self.fleet.now:
            self.later(self.on_datagram, source, data)
        elif self.senses is not None:
            self.senses.on_datagram(source.removesuffix(CLONE), data)

    def on_absent(self, absent: Collection[str], down: tuple[str, ...]) -> None:
        """Members of the site were given up, or are back."""
        self.fleet.checks.on_verdict(self, down)
        self._wants(self.overlay.on_absent(absent, self.clock.now))

    # -- whom to link with -----------------------------------------------------------------

    def wanted(self) -> Collection[str]:
        """Return the peers to keep links with."""
        if self.is_hub:
            return [hub.node_id for hub in self.book.hubs() if hub.node_id != self.author]
        return self.overlay.wanted

    def _wants(self, effects: list[Wanted]) -> None:
        if effects and self.up:
            self.dialling.look()
            if self.news is not None:
                self.news.on_place()
        at = self.overlay.deadline
        if at is not None:
            self.timer(at, self._overlay_timer, at)

    def _overlay_timer(self, at: float) -> None:
        if self.overlay.deadline == at:
            self._links_changed()

    def ways(self, peer: str) -> tuple[list[Way], list[Way]]:
        """Return the ways to a peer: its own addresses, then relays."""
        found: dict[str, None] = {}
        for row in authored_rows(self.disk, FLEET, NODE, peer):
            if row.author == peer:
                found.update((str(host), None) for host, *_ in row.body.get("addresses", ()))
        found.update(dict.fromkeys(self.cache.get(peer, ())))
        found.update(dict.fromkeys(self.fleet.heard_on_lan(self, peer)))
        for hub in self.book.hubs():
            if hub.node_id == peer:
                found.update(dict.fromkeys(hub.urls))
        relays = [(peer, via) for via in self.mains if via != peer and self._relays(via)]
        return [(address, "") for address in found][:CACHED_MAX], relays[:4]

    def _relays(self, node: str) -> bool:
        member = self.book.member(node)
        return member is not None and ("hub" in member.roles or "relay" in member.capabilities)

    # -- what it says of itself --------------------------------------------------------------

    def tell_address(self, more: dict[str, Any] | None = None) -> None:
        """Write the row that says where we are."""
        body = {"name": self.plan.label, "site": self.plan.site,
                "addresses": [[self.address, 4770, 4770]], **(more or {})}  # fmt: skip
        self.submit(lambda tx: tx.put(FLEET, NODE, self.author, body), lambda _: None)

    def scopes(self) -> list[str]:
        """Return the scopes in which this member writes."""
        return [FLEET, site_scope(self.plan.site)] if self.plan.site else [FLEET]
