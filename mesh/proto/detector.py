"""Which members of the site cannot be reached, decided so that a live one is never given up.

Theory of operation. Every member sends a heartbeat a second to its observers
(mesh/proto/observers.py). An observer that misses a member pings it, over UDP and the link;
after ``SILENCE_S`` it *suspects* the member and tells the whole site over the links; observers
that do hear it answer at once. Each member judges for itself (mesh/proto/suspicion.py): when
the observers agree it asks the suspect itself, and only if they still agree ``STABLE_S`` later
and it has heard no answer, the suspect is unreachable. Members that fall together are one
event. The first word of its own makes a member reachable again.

Whoever wakes from a stall does not trust what it missed: a timer over ``LATE_S`` late starts
all clocks anew, and it tells everybody that it is there.

It knows no socket and no roster; who belongs is told to it, and nobody is ever removed here.
Rules: ``now`` is monotonic; every word of a member is a sign of its life, whatever it says;
what others say of a member never decides against what we hear from it ourselves; garbage and
floods are dropped and counted.
"""

from collections import Counter
from collections.abc import Callable, Collection
from math import inf
from typing import Final

from mesh.errors import CodecError
from mesh.proto.detector_effects import Changed, Effect, Send, Way
from mesh.proto.detector_wire import (
    BEAT,
    HEARD,
    MUTE,
    PING,
    PONG,
    SUSPECT,
    Opinion,
    State,
    decode,
    encode_opinion,
)
from mesh.proto.observers import Ring
from mesh.proto.suspicion import AGREE_LEAST, FRESH_S, Suspicion, agreed, refuted

BEAT_S: Final = 1.0
PROBE_S: Final = 1.4
"""Silence after which a member is pinged: a heartbeat is missing. The longer a member was
pinged in vain, the less a verdict rests on what was lost."""
PROBE_EACH_S: Final = 0.25
PROBES_QUICK: Final = 16
"""After so many pings one a second must do."""
EVERY_WAY: Final = 4
"""An observer pings every way there is; others do so with the first of so many pings."""
SILENCE_S: Final = 3.5
"""Silence after which an observer suspects: three heartbeats and nine pings are missing."""
REFUSED_S: Final = 1.5
"""The same when the member's address refuses connections: its process is gone."""
STABLE_S: Final = 1.0
"""The observers must agree for so long, while we ask the member ourselves."""
HOLD_S: Final = 0.3
"""A verdict waits so long for others that are about to fall."""
LATE_S: Final = 0.5
"""A timer that runs later than this shows that we were stalled. Below SILENCE_S - PROBE_S."""
HASTE_S: Final = 0.05
"""After a timer that ran later than this no verdict falls for ``HEAR_S``: what came meanwhile
still waits in the sockets."""
HEAR_S: Final = 0.1
DRAIN_S: Final = 0.5
"""What arrives so soon after we woke may be old: it starts a clock, but proves nothing."""
AFFIRM_S: Final = 2.0
"""An observer says so often that it hears a member that others suspect; below FRESH_S."""
WAKE_BEATS: Final = 12
WAKE_EACH_S: Final = 0.05
"""Who woke says so this often: to its observers, every fourth time to all. Over a link a lost
word holds those after it up, until one of them shows that it was lost."""
PONG_EACH_S: Final = 0.2
"""A peer's pings are answered no more often."""
OPINIONS_A_BEAT_MAX: Final = 512
"""Opinions taken from one peer between two of our heartbeats."""

_NOTHING: Final[list[Effect]] = []


class Detector:
    """The failure detector of one node."""

    def __init__(self, me: str, key: bytes, random: Callable[[], float]) -> None:
        """``key`` is the site's own, for the ring; ``random`` spreads heartbeats over time."""
        self.deadline: float | None = None
        self.unreachable: dict[str, float] = {}
        """Members that are given up, and since when (monotonic)."""
        self.counters: Counter[str] = Counter()
        self._me, self._key, self._random = me, key, random
        self._ring = Ring(key, [me])
        self._others: tuple[str, ...] = ()
        self._targets: tuple[str, ...] = ()  # who gets our heartbeats
        self._subjects: dict[str, None] = {}  # whom we observe
        self._heard: dict[str, float] = {}  # every other member: its last word to us
        self._clock: dict[str, float] = {}  # when we began to watch a subject, or woke
        self._word: dict[str, float] = {}  # its last word before that
        self._cases: dict[str, Suspicion] = {}
        self._refused: set[str] = set()
        self._ponged: dict[tuple[str, Way], float] = {}
        self._said: Counter[str] = Counter()  # opinions by peer, since the last heartbeat
        self._seating = 0
        self._beat_at = inf
        self._wake_at = inf
        self._look_at = inf
        self._wake_beats = 0
        self._late_at = inf
        self._hear_until = -inf

    # -- events ------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin."""
        assert self.deadline is None, "started twice"
        self._beat_at = now + self._random() * BEAT_S
        self._plan(now)
        return []

    def set_members(self, members: Collection[str], now: float) -> list[Effect]:
        """Say who belongs to the site now."""
        self._ring = Ring(self._key, {*members, self._me})
        self._others = tuple(sorted({*members} - {self._me}))
        known, self._heard = self._heard, {}
        for other in self._others:
            self._heard[other] = known.get(other, -inf)
        gone = tuple(sorted(self.unreachable.keys() - self._heard.keys()))
        for member in known.keys() - self._heard.keys():
            self._forget(member)
        effects: list[Effect] = [Changed((), gone)] if gone else []
        self._reseat(now, effects)
        self._plan(now)
        return effects

    def on_datagram(self, peer: str, data: bytes, now: float) -> list[Effect]:
        """Take what came from a member over UDP."""
        if now > self._late_at:
            self._woke(now)
        if data == BEAT and peer in self._heard and peer not in self._cases:
            self._heard[peer] = now
            return _NOTHING
        return self._on_message(peer, data, now, "cheap")

    def on_frame(self, peer: str, data: object, now: float) -> list[Effect]:
        """Take what came from a member over the link."""
        if now > self._late_at:
            self._woke(now)
        return self._on_message(peer, data, now, "link")

    def on_link_up(self, peer: str, now: float) -> list[Effect]:
        """A member has shown who it is, on a new link: forget what it said on an older one."""
        if now > self._late_at:
            self._woke(now)
        if peer not in self._heard:
            return _NOTHING
        effects: list[Effect] = []
        self._hear(peer, now, effects)
        for case in list(self._cases.values()):
            if case.opinions.pop(peer, None) is not None:
                self._work(case, now, effects)
            if case.state(self._me) == SUSPECT:
                opinion = Opinion(case.of, SUSPECT, now - self._heard[case.of])
                effects.append(Send((peer,), encode_opinion(opinion), "link"))
        return effects

    def on_refused(self, peer: str, now: float) -> list[Effect]:
        """The address where a member listened refuses connections."""
        if now > self._late_at:
            self._woke(now)
        if peer not in self._heard or peer in self.unreachable:
            return _NOTHING
        self._refused.add(peer)
        effects: list[Effect] = []
        case = self._case(peer)
        case.probe_at = now
        self._work(case, now, effects)
        return effects

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due at ``deadline`` (or later)."""
        if now > self._late_at:
            self._woke(now)
        if self.deadline is None or now < self.deadline:
            return _NOTHING
        if now > self.deadline + HASTE_S:
            self._hear_until = now + HEAR_S
        effects: list[Effect] = []
        if now >= self._beat_at:
            self._beat_at += BEAT_S
            if self._beat_at <= now:
                self._beat_at = now + BEAT_S
            self._said.clear()
            if self._targets:
                effects.append(Send(self._targets, BEAT, "cheap"))
        if now >= self._wake_at:
            self._speak_up(now, effects)
        if now >= self._look_at:
            for subject in self._subjects:
                if now >= self._heard[subject] + PROBE_S:
                    self._case(subject)
        if self._cases:
            for case in list(self._cases.values()):
                if case.wake_at <= now and not case.settled:
                    self._work(case, now, effects)
            self._decide(now, effects)
        self._plan(now)
        return effects

    # -- what others say ---------------------------------------------------------------------

    def _on_message(self, peer: str, data: object, now: float, way: Way) -> list[Effect]:
        if peer not in self._heard:
            self.counters["strangers"] += 1
            return _NOTHING
        try:
            message = decode(data)
        except CodecError:
            self.counters["garbage"] += 1
            return _NOTHING
        effects: list[Effect] = []
        self._hear(peer, now, effects)
        if message == "ping":
            if now - self._ponged.get((peer, way), -inf) >= PONG_EACH_S:
                self._ponged[peer, way] = now
                effects.append(Send((peer,), PONG, way))
        elif isinstance(message, Opinion):
            self._said[peer] += 1
            if way != "link":
                self.counters["misplaced"] += 1
            elif self._said[peer] > OPINIONS_A_BEAT_MAX:
                self.counters["flood"] += 1
            else:
                self._on_opinion(peer, message, now, effects)
        return effects

    def _on_opinion(
        self, peer: str, opinion: Opinion, now: float, effects: list[Effect]
    ) -> None:
        of = opinion.of
        if of == self._me:
            if opinion.state == SUSPECT:
                effects.append(Send((peer,), BEAT, "every"))
            return
        if of not in self._heard or of == peer:
            self.counters["strangers"] += 1
            return
        case = self._cases.get(of)
        if case is None:
            if opinion.state != SUSPECT:
                return
            case = self._case(of)
        case.opinions[peer] = (opinion.state, now - opinion.age_s)
        if case.settled:
            suspects, heard = case.tally(self._observers(case), self._cases, now)
            if refuted(suspects, len(heard)):
                self._back(case, now, effects)
            return
        self._work(case, now, effects)
        unsure = of in self._subjects and not self._proved(of)
        if opinion.state == SUSPECT and unsure and case.state(self._me) is None:
            nothing = encode_opinion(Opinion(of, MUTE, 0.0))  # nobody shall wait for us
            effects.append(Send((peer,), nothing, "link"))

    def _proved(self, subject: str) -> bool:
        """Tell whether a subject was heard since its clock was started by us."""
        return self._heard[subject] > self._clock[subject] + DRAIN_S

    def _hear(self, peer: str, now: float, effects: list[Effect]) -> None:
        """A member has said something to us: it lives."""
        self._heard[peer] = now
        self._refused.discard(peer)
        case = self._cases.get(peer)
        if case is None:
            return
        case.probes = 0
        case.probe_at = now + PROBE_S
        if peer in self._subjects and (case.settled or case.state(self._me) == SUSPECT):
            self._tell(case, HEARD if self._proved(peer) else MUTE, now, effects)
        if case.settled:
            self._back(case, now, effects)
        else:
            self._work(case, now, effects)

    # -- judging -----------------------------------------------------------------------------

    def _case(self, member: str) -> Suspicion:
        return self._cases.setdefault(member, Suspicion(member))

    def _observers(self, case: Suspicion) -> list[str]:
        if case.seats[0] != self._seating:
            found = self._ring.observers(case.of, self.unreachable)
            case.seats = (self._seating, found)
        return case.seats[1]

    def _limit_s(self, member: str) -> float:
        return REFUSED_S if member in self._refused else SILENCE_S

    def _work(self, case: Suspicion, now: float, effects: list[Effect]) -> None:
        """Suspect, ask, affirm or close, and say when to look again."""
        if case.settled:
            return
        of, mine = case.of, case.of in self._subjects
        heard_at, limit_s = self._heard[of], self._limit_s(of)
        silent = now >= heard_at + limit_s  # as the deadlines are reckoned, to the last bit
        veto_until = self._last_word(of) + limit_s
        missed = mine and now >= heard_at + min(PROBE_S, limit_s)
        suspecting = case.state(self._me) == SUSPECT
        if missed and silent and not suspecting and case.probes > 0:
            suspecting = True
            case.suspected_at = now
            self._tell(case, SUSPECT, now, effects)
            if len(self._ring) == 3:
                effects.append(Send(self._targets, PING, "every"))
        suspects, heard = case.tally(self._observers(case), self._cases, now)
        if suspects == 0 and not missed and of not in self._refused:
            del self._cases[of]
            return
        wake_at = heard_at + limit_s if mine and not silent else inf
        least = min(self._least(case), len(self._observers(case)))
        if now < veto_until or not agreed(suspects, len(heard), least):
            case.quorum_at = None
            if now < veto_until:
                wake_at = min(wake_at, veto_until)
            if suspects and heard:
                wake_at = min(wake_at, min(heard) + FRESH_S)
        elif case.quorum_at is None:
            case.quorum_at, case.probe_at, case.probes = now, now, 0
        if case.quorum_at is not None and now < case.quorum_at + STABLE_S:
            wake_at = min(wake_at, case.quorum_at + STABLE_S)
        if missed or case.quorum_at is not None:
            self._ask(case, now, effects)
            wake_at = min(wake_at, case.probe_at)
        elif mine:
            wake_at = min(wake_at, heard_at + min(PROBE_S, limit_s))
            if suspects and self._proved(of):
                if now >= case.affirm_at:
                    self._tell(case, HEARD, now, effects)
                wake_at = min(wake_at, case.affirm_at)
        case.wake_at = wake_at
        if self.deadline is not None and wake_at < self.deadline:
            self.deadline, self._late_at = wake_at, wake_at + LATE_S

    def _least(self, case: Suspicion) -> int:
        """Return how many must agree: of three one alone while the other says nothing."""
        if len(self._ring) != 3 or case.state(self._me) != SUSPECT:
            return AGREE_LEAST
        third = next(other for other in self._others if other != case.of)
        silent = self._heard[third] < case.suspected_at
        return 1 if silent or case.state(third) == MUTE else AGREE_LEAST

    def _ask(self, case: Suspicion, now: float, effects: list[Effect]) -> None:
        if now < case.probe_at:
            return
        every = case.of in self._subjects or case.probes % EVERY_WAY == 0
        way: Way = "every" if every else "cheap"
        effects.append(Send((case.of,), PING, way))
        case.probes += 1
        case.probe_at = now + (PROBE_EACH_S if case.probes < PROBES_QUICK else BEAT_S)

    def _tell(self, case: Suspicion, state: State, now: float, effects: list[Effect]) -> None:
        """Say to the whole site what we think of a member."""
        heard_at = self._heard[case.of]
        if state == MUTE:
            case.opinions.pop(self._me, None)
        else:
            case.opinions[self._me] = (state, heard_at)
            case.affirm_at = now + AFFIRM_S
        peers = tuple(other for other in self._others if other != case.of)
        if peers:
            opinion = Opinion(case.of, state, now - heard_at)
            effects.append(Send(peers, encode_opinion(opinion), "link"))

    def _decide(self, now: float, effects: list[Effect]) -> None:
        """Give up those whose observers have agreed long enough, together if they fall so."""
        pending = [case for case in self._cases.values() if case.quorum_at is not None]
        due = [case for case in pending if now >= _due(case)]
        if not due:
            return
        if now < self._hear_until:
            for case in due:
                case.wake_at = self._hear_until
            return
        until = min(map(_due, due)) + HOLD_S
        if len(due) < len(pending) and now < until:
            for case in due:
                case.wake_at = min([until, *(_due(one) for one in pending if one not in due)])
            return
        for case in due:
            case.settled, case.quorum_at = True, None
            self.unreachable[case.of] = now
            self._refused.discard(case.of)
        self.counters["given_up"] += len(due)
        down = tuple(sorted(case.of for case in due))
        effects.append(Changed(down, ()))
        self._moved(down, now, effects)

    def _back(self, case: Suspicion, now: float, effects: list[Effect]) -> None:
        case.settled, case.quorum_at = False, None
        del self.unreachable[case.of]
        self.counters["back"] += 1
        effects.append(Changed((), (case.of,)))
        self._moved((case.of,), now, effects)
        self._work(case, now, effects)

    # -- ourselves ---------------------------------------------------------------------------

    def _woke(self, now: float) -> None:
        """We were stalled: what we missed says nothing about others. Start all clocks anew."""
        self.counters["woke"] += 1
        for subject in self._subjects:
            case = self._cases.get(subject)
            if case is None or not (case.settled or case.state(self._me) == SUSPECT):
                self._watch(subject, now)
            else:
                self._word[subject] = self._last_word(subject)
                self._clock[subject] = now
        for case in self._cases.values():
            case.quorum_at = None
            case.probes = 0
            case.wake_at = now
        self._wake_at, self._wake_beats = now, WAKE_BEATS
        self._beat_at = now + BEAT_S
        self.deadline, self._late_at = now, now + LATE_S

    def _speak_up(self, now: float, effects: list[Effect]) -> None:
        way: Way = "every" if self._wake_beats == WAKE_BEATS else "cheap"
        peers = self._targets if self._wake_beats % 4 else self._others
        if peers:
            effects.append(Send(peers, BEAT, way))
        self._wake_beats -= 1
        self._wake_at = now + WAKE_EACH_S if self._wake_beats else inf

    def _reseat(self, now: float, effects: list[Effect]) -> None:
        """Take our place among those that are reachable: whom we observe, who observes us."""
        self._seating += 1
        self._targets = tuple(self._ring.after(self._me, self.unreachable))
        old = self._subjects
        self._subjects = dict.fromkeys(self._ring.before(self._me, self.unreachable))
        for member in self._subjects:
            if member in self.unreachable:
                self._clock.setdefault(member, now)
                if self._cases[member].state(self._me) != SUSPECT:  # what was decided stands
                    self._tell(self._cases[member], SUSPECT, now, effects)
            elif member not in old:
                self._watch(member, now)
        for member in old:
            case = self._cases.get(member)
            if member not in self._subjects and case and case.state(self._me) is not None:
                self._tell(case, MUTE, now, effects)

    def _moved(self, members: Collection[str], now: float, effects: list[Effect]) -> None:
        """Some members became reachable or unreachable: are they near us on the ring?"""
        self._seating += 1
        if any(one in self._subjects or one in self._targets for one in members):
            self._reseat(now, effects)

    def _watch(self, subject: str, now: float) -> None:
        """Start the clock of a subject, and remember its last word."""
        self._word[subject] = self._last_word(subject)
        self._heard[subject] = self._clock[subject] = now

    def _last_word(self, member: str) -> float:
        """Return when a member was really heard last."""
        heard_at = self._heard[member]
        began_at = self._clock.get(member, -inf)
        return heard_at if heard_at > began_at else self._word.get(member, -inf)

    def _forget(self, member: str) -> None:
        self.unreachable.pop(member, None)
        self._cases.pop(member, None)
        self._refused.discard(member)
        self._ponged.pop((member, "cheap"), None)
        self._ponged.pop((member, "link"), None)
        self._subjects.pop(member, None)
        self._clock.pop(member, None)
        self._word.pop(member, None)
        for case in self._cases.values():
            case.opinions.pop(member, None)

    def _plan(self, now: float) -> None:
        heard, cases = self._heard, self._cases
        if not cases:
            oldest = min(map(heard.__getitem__, self._subjects), default=inf)
        else:
            oldest = min(
                (heard[one] for one in self._subjects if one not in cases), default=inf
            )
        self._look_at = oldest + PROBE_S
        deadline = min(self._beat_at, self._wake_at, self._look_at)
        for case in cases.values():
            if case.wake_at < deadline and not case.settled:
                deadline = case.wake_at
        self.deadline = max(deadline, now)
        self._late_at = self.deadline + LATE_S


def _due(case: Suspicion) -> float:
    assert case.quorum_at is not None
    return case.quorum_at + STABLE_S
