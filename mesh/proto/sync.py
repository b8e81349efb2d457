"""Anti-entropy over one link: compare digests, then heads, then pull what is newer there.

A core: no socket and no disk; the shell reads and writes the store. Rules: the register
goes first; one exchange is open at a time, every answer must match it; a claim of a newer head
costs a lying peer its place, us at most one frame; announced is only what a peer carries.

    idle -> root -> records -> groups -> heads -> pull -> applying -> pull ... -> idle
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto.answering import answer
from mesh.proto.flat_digest import known_of
from mesh.proto.heads_digest import HeadsDigest, Shared
from mesh.proto.intake import HOSTILE, Delta, Outcome, Roster
from mesh.proto.serve import record_mark, visible_to
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_ports import (
    FULL_PAUSE_S,
    GARBAGE_MAX,
    NEVER,
    RETRY_S,
    STRIKES_MAX,
    WAITING_MAX,
    YIELD_S,
    YIELDS_MAX,
    Apply,
    Claims,
    Convict,
    Drop,
    Effect,
    Merge,
    RegisterView,
    Send,
    SendReceipt,
    Serve,
    View,
)
from mesh.proto.sync_wire import (
    ANNOUNCED_MAX,
    HAVE_BYTES_MAX,
    WANTS_MAX,
    Announce,
    Deltas,
    Groups,
    GroupsAsk,
    Heads,
    HeadsAsk,
    HeadsOf,
    Known,
    Message,
    Proofs,
    Pull,
    Records,
    RecordsAsk,
    Root,
    RootAsk,
    Want,
    body_of,
    packed_body,
    parse,
)
from mesh.proto.wanted import begins, forks, reach, receipt_for, shares, untold, urgency, want

ANNOUNCE_S: Final = 0.1
EXCHANGE_S: Final = 60.0
"""Digests are compared this often, give or take ``JITTER``, even when nothing is announced."""
JITTER: Final = 0.2
REPLY_S: Final = 20.0


class SyncSession:
    """One side of anti-entropy with one peer."""

    def __init__(
        self,
        peer: str,
        view: View,
        roster: Roster,
        register: RegisterView,
        claims: Claims,
        jitter: Callable[[], float],
        digest: HeadsDigest | None = None,
        carried: Callable[[SetId, tuple[int, int]], bool] = lambda _set_id, _point: False,
    ) -> None:
        """``jitter`` returns a number from 0 to 1; all sessions of a view share ``digest``;
        ``carried`` tells what comes to the peer without being announced."""
        self.peer = peer
        self.counters: Counter[str] = Counter()
        self.dropped = False
        self._view, self._roster, self._register = view, roster, register
        self._claims, self._jitter, self._carried = claims, jitter, carried
        self._state, self._n, self._next_s, self._again_s = "idle", 0, 0.0, NEVER
        self._reply_by: float | None = None
        self._again = self._serving = False
        self._wants: dict[SetId, Want] = {}
        self._asked: frozenset[SetId] = frozenset()
        self._barred: dict[SetId, tuple[int, int]] = {}
        self._peer_has: dict[SetId, tuple[int, int]] = {}
        self._announce: dict[SetId, None] = {}
        self._announce_at: float | None = None
        self._announced_s = float("-inf")
        self._register_said, self._reach = b"", WANTS_MAX
        self._refused: set[bytes] = set()
        self._merging: tuple[bytes, ...] = ()
        self._records_more = False
        self._applying: tuple[Delta, ...] = ()
        self._digest = digest or HeadsDigest(view, roster, register)
        self._peer_asked, self._yielded, self._put_off, self._listed = False, False, 0, b""
        self._comparing = self._groups = False  # the peer understands messages about groups
        self._by_ref, self._told = set[SetId](), set[SetId]()

    # -- events ----------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When ``on_timer`` wants to be called."""
        if self.dropped:
            return None
        waits = [self._announce_at, self._reply_by]
        if self._state == "idle":
            waits.append(self._next_s)
        return min((at for at in waits if at is not None), default=None)

    def start(self, now: float) -> list[Effect]:
        """The link is up: tell what we hold of the peer's own, and compare."""
        return [*self._receipts(self._view.heads.values()), *self._begin(now)]

    def close(self) -> None:
        """The link is gone."""
        self._claims.release(self)
        self.dropped = True

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        if self.dropped:
            return []
        effects: list[Effect] = []
        if self._announce_at is not None and self._announce_at <= now:
            effects += self._flush_announce(now)
        if self._reply_by is not None and self._reply_by <= now:
            self.counters["timeouts"] += 1
            self._idle(now, RETRY_S)
        if self._state == "idle" and self._next_s <= now:
            effects += self._begin(now)
        return effects

    def on_change(self, changed: Mapping[SetId, SignedHead | None], now: float) -> list[Effect]:
        """Something was committed here: acknowledge to the author, announce to who carries."""
        if self.dropped:
            return []
        heads = [signed for signed in changed.values() if signed is not None]
        for signed in heads:
            head = signed.head
            known = self._peer_has.get(head.id, (0, 0)) >= head.point
            if not (known or self._carried(head.id, head.point)) and self._shares(signed):
                self._announce[head.id] = None
                self._schedule_announce(now)
        effects = self._receipts(heads)
        return [*effects, *self._tell(), *self._announce_if_due(now)]

    def on_register_change(self, now: float) -> list[Effect]:
        """The register has changed: the peer compares at once."""
        if self.dropped or self._register_said == self._register.digest():
            return []
        self._schedule_announce(now)
        return self._announce_if_due(now)

    def on_told(self, heads: Sequence[Known], now: float) -> list[Effect]:
        """The peer has said that it holds these: pull what is newer."""
        self._note(heads, now)
        if self.dropped or self._state != "idle":
            return []
        return self._begin(now) if self._again else self._pull(now)

    def on_frame(self, body: Any, now: float) -> list[Effect]:
        """Take one ``sync`` frame, whatever it is."""
        if self.dropped:
            return []
        try:
            message = parse(body)
        except CodecError:
            self.counters["garbage"] += 1
            if self.counters["garbage"] >= GARBAGE_MAX:
                return self._drop("too many frames that are no messages")
            return []
        if not self._roster.active(self.peer):
            self.counters["not a member"] += 1
            return []
        effects = self._on_message(message, now)
        return [*effects, *self._tell(), *self._announce_if_due(now)]

    def _on_message(self, message: Message, now: float) -> list[Effect]:
        match message:
            case RootAsk(n, groups):
                self._groups = self._peer_asked = groups
                said = self._register_said = self._register.digest()
                return [_send(Root(n, said, self._root(), groups, self._shared().reach()))]
            case RecordsAsk() | HeadsAsk() | GroupsAsk() | HeadsOf():
                return [_send(answer(message, self._shared(), self._register))]
            case Pull(n, wants, refs):
                found = [one for ref in refs for one in self._shared().resolve(ref)]
                return self._on_pull(n, (*wants, *found)[:WANTS_MAX], now)
            case Proofs(proofs):
                self._told.update(proof.id for proof in proofs)
                return [Convict(proofs)]
            case Announce():
                return self._on_announce(message, now)
            case Root(n) if self._expects(n, "root"):
                return self._on_root(message, now)
            case Records(n) if self._expects(n, "records"):
                return self._on_records(message)
            case Groups(n) if self._expects(n, "groups"):
                return self._on_groups(message, now)
            case Heads(n) if self._expects(n, "heads"):
                return self._on_heads(message, now)
            case Deltas(n) if self._expects(n, "pull"):
                return self._on_deltas(message)
            case _:
                self.counters["unexpected"] += 1
                return []

    # -- answering -------------------------------------------------------------------------

    def _on_pull(self, n: int, wants: tuple[Want, ...], now: float) -> list[Effect]:
        if self._serving:
            self.counters["busy"] += 1
            return []
        if self._state == "idle" and self._put_off < YIELDS_MAX:
            self._put_off += 1
            self._next_s = max(self._next_s, now + YIELD_S)
        allowed = tuple(w for w in wants if visible_to(self._roster, self.peer, w.id))
        self.counters["scope"] += len(wants) - len(allowed)
        self._serving = True
        return [Serve(n, allowed)]

    def on_served(self, n: int, parts: Sequence[Delta], now: float) -> list[Effect]:
        """The shell has read the deltas of a Serve."""
        self._serving = False
        kept = tuple(p for p in parts if visible_to(self._roster, self.peer, p.id))
        self.counters["rows out"] += sum(len(part.entries) for part in kept)
        body = packed_body(Deltas(n, kept)) if self._groups else body_of(Deltas(n, kept))
        return [] if self.dropped else [Send(body)]

    # -- asking ----------------------------------------------------------------------------

    def _begin(self, now: float) -> list[Effect]:
        self._again, self._comparing, self._put_off = False, True, 0
        self.counters["exchanges"] += 1
        return self._ask("root", RootAsk(self._n + 1, groups=True), now)

    def _ask(self, state: str, message: Message, now: float) -> list[Effect]:
        self._n += 1
        self._state = state
        self._reply_by = now + REPLY_S
        return [_send(message)]

    def _expects(self, n: int, state: str) -> bool:
        return self._state == state and n == self._n

    def _on_root(self, message: Root, now: float) -> list[Effect]:
        self._groups = message.groups
        if message.register != self._register.digest():
            return self._ask_records(now)
        if message.root == self._root():
            return self._finish(now)
        first = begins(message.reach, self.peer, self._shared().reach(), self._view.author)
        self._yielded = self._peer_asked and first and not self._yielded and not self._wants
        self._peer_asked = False
        if self._yielded:  # the peer compares too: it says what is ours to get
            self.counters["yielded"] += 1
            self._idle(now, YIELD_S)
            return []
        return self._ask_heads(now)

    def _ask_records(self, now: float) -> list[Effect]:
        have = [record_mark(record) for record in self._register.records()]
        marks = b"".join([*have, *sorted(self._refused)])[:HAVE_BYTES_MAX]
        return self._ask("records", RecordsAsk(self._n + 1, marks), now)

    def _on_records(self, message: Records) -> list[Effect]:
        self._state, self._reply_by = "merging", None
        self._records_more = message.more
        self._merging = message.records
        return [Merge(message.records)]

    def on_merged(self, now: float) -> list[Effect]:
        """The shell has merged the records of a Merge, durably."""
        if self.dropped or self._state != "merging":
            return []
        held = {record_mark(record) for record in self._register.records()}
        new = {record_mark(record) for record in self._merging} - held
        gained = len(self._merging) - len(new)
        if len(self._refused) < HAVE_BYTES_MAX // 16:
            self._refused |= new
        if self._records_more and gained:
            return self._ask_records(now)
        return self._ask_heads(now)

    def _ask_heads(self, now: float) -> list[Effect]:
        shared = self._shared()
        if self._groups:
            return self._ask("groups", GroupsAsk(self._n + 1, shared.marks()), now)
        flat = shared.flat()
        return self._ask("heads", HeadsAsk(self._n + 1, flat.buckets(flat.count())), now)

    def _on_groups(self, message: Groups, now: float) -> list[Effect]:
        known, self._listed = self._shared().compare(message.points)
        self._note(known, now)
        self._by_ref = {head.id for head in known if head.id in self._wants}
        if self._listed:
            return self._ask("heads", HeadsOf(self._n + 1, self._listed), now)
        return self._pull(now)

    def _on_heads(self, message: Heads, now: float) -> list[Effect]:
        self._again = self._again or message.more
        lacking = self._shared().lacking(self._listed, message)  # and waits to hear of
        self._announce.update((one.head.id, None) for one in lacking if self._shares(one))
        self._note(message.heads, now)
        return self._pull(now)

    def _on_announce(self, message: Announce, now: float) -> list[Effect]:
        if message.register != self._register.digest() or message.more:
            self._again = True
        return self.on_told(message.heads, now)

    def _note(self, heads: Iterable[Known], now: float) -> None:
        """Remember what the peer says it has, want what is newer, tell what is older there."""
        for known in heads:
            if not visible_to(self._roster, self.peer, known.id):
                self.counters["scope"] += 1
                continue
            if known.id in self._view.heads or len(self._peer_has) < WAITING_MAX:
                self._peer_has[known.id] = known.point
            self.counters["forks"] += forks(self._view, known)
            held = self._view.heads.get(known.id)
            if held is not None and known.point < held.head.point and self._shares(held):
                self._announce[known.id] = None  # the peer may wait for us to say so
            if self._barred.get(known.id) == known.point or len(self._wants) >= WAITING_MAX:
                continue
            wanted = want(self._view, self._roster, known)
            if wanted is not None:
                self._wants[known.id] = wanted
        if self._announce:
            self._schedule_announce(now)

    def _pull(self, now: float) -> list[Effect]:
        """Ask for the next of the wanted deltas, or be done."""
        ask: list[Want] = []
        for one in sorted(self._wants.values(), key=partial(urgency, self._roster)):
            if len(ask) == self._reach:
                break
            if self._claims.take(one.id, self, now):
                ask.append(one)
            else:
                del self._wants[one.id]
                self._next_s = min(self._next_s, now + RETRY_S)
                self.counters["claimed"] += 1
        if not ask:
            return self._finish(now)
        self._asked = frozenset(one.id for one in ask)
        wants = tuple(one for one in ask if one.id not in self._by_ref)
        refs = self._digest.refs([one for one in ask if one.id in self._by_ref])
        return self._ask("pull", Pull(self._n + 1, wants, refs), now)

    def _on_deltas(self, message: Deltas) -> list[Effect]:
        parts = tuple(part for part in message.parts if part.id in self._asked)
        self._reach = reach(len(parts), len(self._asked))
        self.counters["unasked"] += len(message.parts) - len(parts)
        self.counters["rows in"] += sum(len(part.entries) for part in parts)
        self._state, self._reply_by, self._applying = "applying", None, parts
        return [Apply(parts)]

    def on_applied(self, outcomes: Sequence[Outcome], now: float) -> list[Effect]:
        """The shell has taken over (or refused) the deltas of an Apply, in their order."""
        if self.dropped or self._state != "applying":
            return []
        assert len(outcomes) == len(self._applying)
        for part, outcome in zip(self._applying, outcomes, strict=True):
            self.counters[str(outcome)] += 1
            again = self._settle(part, outcome, now)
            self.counters["strikes"] += outcome in HOSTILE and not again
        if self._announce:
            self._schedule_announce(now)
        if not self._applying:  # the peer no longer has what it said, or not in that place
            for set_id in self._asked - self._by_ref:
                self._give_up(set_id)
            self._by_ref -= self._asked
        if self.counters["strikes"] >= STRIKES_MAX:
            return self._drop("too many deltas that do not hold")
        return self._pull(now)

    def on_convicted(self, false: int) -> list[Effect]:
        """The shell has checked the proofs of a Convict; so many prove nothing."""
        self.counters["strikes"] += false
        return [] if self.counters["strikes"] < STRIKES_MAX else self._drop("false proofs")

    def on_apply_failed(self, now: float) -> list[Effect]:
        """The shell could not take the deltas over (disk full); try again later."""
        if not self.dropped and self._state == "applying":
            self.counters["apply failed"] += 1
            self._idle(now, FULL_PAUSE_S)
        return []

    def _settle(self, part: Delta, outcome: Outcome, now: float) -> bool:
        """Decide what to do about one set; True if it is asked for again."""
        if part.id not in self._wants:
            return False
        if outcome is Outcome.STAGED:
            cursor = part.entries[-1].seq
            self._wants[part.id] = Want(part.id, part.signed.head.epoch, cursor)
            return True
        if outcome in (Outcome.GAP, Outcome.ROOT) and part.since > 0:
            self._wants[part.id] = Want(part.id, 0, 0)  # our copy may have forked: take all
            return True
        if outcome is Outcome.UNTAKEN:
            self._again_s = RETRY_S
            self._peer_has.pop(part.id, None)  # it has more, and not this: so it is told
            self._announce[part.id] = None
        elif outcome is Outcome.TAKEN_BACK:
            self._claims.taken_back(part.id, now)
        elif outcome not in (Outcome.APPLIED, Outcome.STALE):
            self._barred[part.id] = self._peer_has.get(part.id, part.signed.head.point)
        self._give_up(part.id)
        return False

    def _give_up(self, set_id: SetId) -> None:
        self._wants.pop(set_id, None)
        self._claims.release(self, set_id)

    def _finish(self, now: float) -> list[Effect]:
        self.counters["completed"] += self._comparing
        early = self._next_s if self._next_s > now else NEVER
        self._idle(now, EXCHANGE_S * (1 + JITTER * (2 * self._jitter() - 1)))
        self._next_s = min(self._next_s, early, now + self._again_s)
        self._again_s = NEVER
        return self._begin(now) if self._again else []

    def _idle(self, now: float, pause_s: float) -> None:
        self._claims.release(self)
        self._wants.clear()
        self._by_ref.clear()
        self._state, self._reply_by, self._comparing = "idle", None, False
        self._next_s = now + pause_s

    def _drop(self, reason: str) -> list[Effect]:
        self.close()
        return [Drop(reason)]

    # -- telling ---------------------------------------------------------------------------

    def _shares(self, signed: SignedHead) -> bool:
        return shares(self._view, self._roster, self.peer, signed)

    def _shared(self) -> Shared:
        return self._digest.shared(self.peer)

    def _root(self) -> bytes:
        shared = self._shared()
        return shared.root() if self._groups else shared.flat().root()

    def _schedule_announce(self, now: float) -> None:
        if self._announce_at is None:
            self._announce_at = max(now, self._announced_s + ANNOUNCE_S)

    def _announce_if_due(self, now: float) -> list[Effect]:
        due = self._announce_at is not None and self._announce_at <= now
        return self._flush_announce(now) if due else []

    def _flush_announce(self, now: float) -> list[Effect]:
        self._announce_at, self._announced_s = None, now
        held = self._view.heads
        signed = [held[set_id] for set_id in self._announce if set_id in held]
        self._announce.clear()
        heads = [known_of(h) for h in signed if self._shares(h)]
        heads = [k for k in heads if self._peer_has.get(k.id, (0, 0)) < k.point]
        more, said = len(heads) > ANNOUNCED_MAX, self._register.digest()
        if more and self._groups:
            return [_send(Announce(said, (), more=True))]
        if not heads and said == self._register_said:
            return []
        self._register_said = said
        return [_send(Announce(said, tuple(heads[:ANNOUNCED_MAX]), more))]

    def _tell(self) -> list[Effect]:
        new = untold(self._view, self._roster, self.peer, self._told) if self._groups else ()
        return [_send(Proofs(new))] if new else []

    def _receipts(self, heads: Iterable[SignedHead]) -> list[Effect]:
        """Tell the peer which of its own sets are durable here."""
        body = receipt_for(self.peer, heads)
        return [SendReceipt(body)] if body else []


def _send(message: Message) -> Send:
    return Send(body_of(message))
