"""A member in virtual time: the real cores of the replicated state over a disk that can tear.

The disk is a MemoryStorage with an undo log: what was not flushed when the member crashes is
taken back, and nothing is acknowledged, announced or served before its flush. Everything that a
shell would decide (order of tasks, durations) is drawn from the world's seed.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.proto.collect import Collector
from mesh.proto.evidence import Proof, holds
from mesh.proto.heads_digest import HeadsDigest
from mesh.proto.hlc import Hlc
from mesh.proto.intake import Outcome, take, uncovered
from mesh.proto.receipts import Receipts
from mesh.proto.replica import Replica
from mesh.proto.serve import serve
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.storage import MemoryStorage, Stage
from mesh.proto.sync import SyncSession
from mesh.proto.sync_ports import (
    Apply,
    Claims,
    Convict,
    Drop,
    Effect,
    Merge,
    Send,
    SendReceipt,
    Serve,
)
from mesh.store_tx import Tx
from tests.support.members import PlainRoster, plain_sign

if TYPE_CHECKING:
    from tests.sim.world import World

EPOCH_MS = 1_700_000_000_000
Work = tuple[Callable[[Tx], Any], Callable[[Any], None]]


@dataclass
class SimLink:
    """One end of a link: its session, and which incarnation of the link it is."""

    session: SyncSession
    number: int
    timer_at: float | None = None


class SimMember:
    """One member; also the ``View`` that its sessions look at."""

    def __init__(self, world: "World", name: str, roster: PlainRoster, skew_ms: int) -> None:
        self.world = world
        self.author = name
        self.roster = roster
        self.skew_ms = skew_ms
        self.clone = False
        self.disk = MemoryStorage()
        self.backup: MemoryStorage | None = None
        self.up = False
        self.awaits_peer = False
        self.counters: Counter[str] = Counter()
        self.boot()

    # -- life ------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start over what the disk holds."""
        self.replica = Replica(self.disk, self.author, self.signs(), Hlc())
        wrong = self.replica.load(self.now_ms())
        self.world.expect(not wrong, f"{self.author} finds {wrong} damaged after a start")
        self.collector = Collector(self.replica)
        self.receipts = Receipts(self.author)
        self.claims = Claims()
        self.heads: dict[SetId, SignedHead] = dict(self.replica.heads)
        self.version = 1
        self.changes: deque[tuple[int, dict[SetId, SignedHead | None]]] = deque(maxlen=64)
        self.digest = HeadsDigest(self, self.roster, self.register())
        self.links: dict[str, SimLink] = {}
        self.queue: list[Work] = []
        self.after_flush: list[Callable[[], None]] = []
        self.flushing = False
        self.up = True
        self.life = self.world.next_number()

    def crash(self) -> None:
        """Stop at once: what is not flushed is torn off."""
        self.up = False
        self.disk.undo_to(0)
        for peer in list(self.links):
            self.unlink(peer)

    def restore_backup(self) -> None:
        """Start again from an old copy of the disk, as ``restore`` does."""
        assert self.backup is not None
        self.disk = self.backup.copy()
        self.awaits_peer = True
        self.met: dict[str, None] = {}

    def signs(self) -> Callable[[bytes], bytes]:
        """Return what signs this member's heads."""
        return plain_sign(self.author)

    def everybody(self) -> list[str]:
        """Return all identities that this member knows."""
        return list(self.roster.register.all)

    def now_ms(self) -> int:
        """Return this member's own idea of the time."""
        return EPOCH_MS + int(self.world.now * 1000) + self.skew_ms

    @property
    def proofs(self) -> dict[SetId, Proof]:
        """Return the proofs against authors."""
        return self.replica.proofs

    def stage(self, set_id: SetId) -> Stage | None:
        """Return how far a staged delta has come."""
        return self.disk.stage(set_id)

    def changes_since(self, version: int) -> dict[SetId, SignedHead | None] | None:
        """Return the sets changed since a version, None when that is too long ago."""
        if version + len(self.changes) < self.version:
            return None
        found: dict[SetId, SignedHead | None] = {}
        for at, changes in self.changes:
            if at > version:
                found.update(changes)
        return found

    # -- the writer ------------------------------------------------------------------------

    def submit(self, fn: Callable[[Tx], Any], done: Callable[[Any], None]) -> None:
        """Run a write function in the next commit group; ``done`` is called when durable."""
        self.queue.append((fn, done))
        self._pump()

    def _pump(self) -> None:
        if self.flushing or not self.queue or not self.up:
            return
        group, self.queue = self.queue, []
        now_ms = self.now_ms()
        tx = Tx(self.replica, self.collector, None, now_ms)  # type: ignore[arg-type]
        results = [(done, fn(tx)) for fn, done in group]
        self.replica.seal(now_ms)
        self.flushing = True
        life = self.life
        flush_s = self.world.rng.uniform(0.001, 0.02)
        self.world.after(flush_s, lambda: self._flushed(results, life))

    def _flushed(self, results: list[tuple[Callable[[Any], None], Any]], life: int) -> None:
        if not self.up or life != self.life:
            return
        self.disk.forget_undo()
        changes = self.replica.commit()
        self.flushing = False
        self.version += 1
        self.changes.append((self.version, changes))
        for set_id, signed in changes.items():
            self.world.note("commit", self.author, *set_id, signed and signed.head.point)
            if signed is None:
                self.heads.pop(set_id, None)
            else:
                self.heads[set_id] = signed
        self.world.checks.on_commit(self, changes)
        self.committed(changes)
        for peer in list(self.links):
            link = self.links[peer]
            self.perform(peer, link, link.session.on_change(changes, self.world.now))
        for done, value in results:
            done(value)
        waiting, self.after_flush = self.after_flush, []
        for later in waiting:
            later()
        self._pump()

    def committed(self, changes: Mapping[SetId, SignedHead | None]) -> None:
        """Something is durable."""

    def collect(self, heir: Callable[[str, str], bool]) -> None:
        """Let go of what nobody needs."""
        if not self.awaits_peer:
            self.submit(lambda tx: tx.collect(self.roster, heir), lambda _: None)

    # -- links -----------------------------------------------------------------------------

    def link(self, peer: str, number: int) -> None:
        """A link is up."""
        session = self.session_with(peer)
        self.links[peer] = link = SimLink(session, number)
        self.perform(peer, link, session.start(self.world.now))

    def session_with(self, peer: str) -> SyncSession:
        """Return a new session over a new link."""
        jitter, register = self.world.rng.random, self.register()

        def pushed(set_id: SetId, point: tuple[int, int]) -> bool:
            return self.pushed(peer, set_id, point)

        return SyncSession(
            peer, self, self.roster, register, self.claims, jitter, self.digest, pushed
        )

    def pushed(self, peer: str, set_id: SetId, point: tuple[int, int]) -> bool:
        """Tell whether a peer hears of a set without being told by its session."""
        return False

    def register(self) -> Any:
        """Return the register that sessions compare."""
        return self.roster.register

    def merge(self, records: tuple[bytes, ...]) -> None:
        """Merge register records, durably."""

    def dropped(self, peer: str, reason: str) -> None:
        """A session wants its link closed."""
        self.world.expect(False, f"{self.author} drops correct {peer}: {reason}")

    def unlink(self, peer: str) -> None:
        """A link is down."""
        link = self.links.pop(peer, None)
        if link is not None:
            link.session.close()
            self.counters.update(link.session.counters)

    def on_frame(self, peer: str, number: int, kind: str, body: Any) -> None:
        """A frame arrives."""
        link = self.links.get(peer)
        if not self.up or link is None or link.number != number:
            return
        if kind == "receipt":
            self.receipts.on_frame(peer, body, self.heads)
            return
        self.perform(peer, link, link.session.on_frame(body, self.world.now))

    def perform(self, peer: str, link: SimLink, effects: list[Effect]) -> None:
        """Carry out what a session asks for."""
        self.world.checks.on_strikes(self, peer, link.session)
        for effect in effects:
            match effect:
                case Send(body):
                    self.world.send(self.author, peer, link.number, "sync", body)
                case SendReceipt(body):
                    self.world.send(self.author, peer, link.number, "receipt", body)
                case Serve():
                    self._when_flushed(lambda e=effect: self._serve(peer, link, e))
                case Apply():
                    self._apply(peer, link, effect)
                case Convict(proofs):
                    self._convict(peer, link, proofs)
                case Merge(records):
                    self.merge(records)
                    self.perform(peer, link, link.session.on_merged(self.world.now))
                case Drop(reason):
                    self.dropped(peer, reason)
        if self.awaits_peer and link.session.counters["completed"]:
            self._met(peer)
        self._set_timer(peer, link)

    def _convict(self, peer: str, link: SimLink, proofs: tuple[Proof, ...]) -> None:
        true = [proof for proof in proofs if holds(proof, self.roster.verify)]

        def done(_: object) -> None:
            if self.links.get(peer) is link:
                false = len(proofs) - len(true)
                self.perform(peer, link, link.session.on_convicted(false))

        self.submit(lambda tx: tx.convict(true), done)

    def _met(self, peer: str) -> None:
        self.met[peer] = None
        scopes = [scope for author, scope in self.heads if author == self.author]
        if not uncovered(self.roster, self.everybody(), self.author, scopes, self.met):
            self.awaits_peer = False
            self.submit(lambda tx: tx.renew(), lambda _: None)

    def _when_flushed(self, fn: Callable[[], None]) -> None:
        """Readers see committed rows only."""
        if self.flushing:
            self.after_flush.append(fn)
        else:
            fn()

    def _serve(self, peer: str, link: SimLink, effect: Serve) -> None:
        if self.links.get(peer) is link:
            parts = serve(self.disk, effect.wants, self.roster, peer)
            self.counters["rows sent"] += sum(len(part.entries) for part in parts)
            done = link.session.on_served(effect.n, parts, self.world.now)
            self.perform(peer, link, done)

    def _apply(self, peer: str, link: SimLink, effect: Apply) -> None:
        def work(tx: Tx) -> Any:
            return [take(self.replica, d, self.roster, tx.now_ms, peer) for d in effect.deltas]

        def done(outcomes: Any) -> None:
            self.counters["taken back"] += outcomes.count(Outcome.TAKEN_BACK)
            if self.links.get(peer) is link:
                after = link.session.on_applied(outcomes, self.world.now)
                self.perform(peer, link, after)

        self.submit(work, done)

    def _set_timer(self, peer: str, link: SimLink) -> None:
        deadline = link.session.deadline
        if deadline is None or (link.timer_at is not None and link.timer_at <= deadline):
            return
        link.timer_at = deadline
        self.world.at(deadline, lambda: self._on_timer(peer, link, deadline))

    def _on_timer(self, peer: str, link: SimLink, at: float) -> None:
        if self.links.get(peer) is not link or link.timer_at != at:
            return
        link.timer_at = None
        self.perform(peer, link, link.session.on_timer(self.world.now))
        self._set_timer(peer, link)
