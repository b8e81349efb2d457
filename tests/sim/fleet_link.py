"""One end of a link in a simulated fleet: the real handshake, then the real LinkCore.

It knows no service. What is left out of a real link: records are not sealed (the handshake that
makes their keys is real, its randomness from the seed). Rules: the shell's (mesh/link/link.py,
session.py): one handshake within its time, messages of a service only while it has credit, and
what was received is granted again at once.
"""

from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from mesh.proto.frames import SERVICES, Hello
from mesh.proto.handshake import Acceptor, Dialler, Done, Failed, Learned
from mesh.proto.handshake import Send as SendHandshake
from mesh.proto.link import LinkCore
from mesh.proto.link_effects import Closed, Granted, Ready, Received, Send
from tests.sim.fleet_net import Wire

if TYPE_CHECKING:
    from tests.sim.fleet_member import FleetMember

HANDSHAKE_S: Final = 10.0
HANDSHAKE_CPU_S: Final = 0.0002
"""CPU of one handshake at one side (measured, notes on links)."""
OUTBOX_MAX: Final = 256
KINDS: Final = {code: kind for kind, code in SERVICES.items()}
RECORD_BYTES: Final = 19
"""Header and tag of a record."""


class LinkEnd:
    """One end of one link, from its first byte to its end."""

    def __init__(
        self, member: "FleetMember", wire: Wire, peer: str | None, address: str = ""
    ) -> None:
        """``peer``: whom we dialled at ``address``, or None when somebody connected to us."""
        self.address = address
        self.member, self.wire, self.dialled = member, wire, peer is not None
        self.peer = peer or ""
        self.number = member.clock.next_number()
        self.core: LinkCore | None = None
        self.closed = self.ready = False
        self.since = 0.0
        self.key_record = b""
        self.made_ms = 0
        self.counters: Counter[str] = Counter()
        self._outbox: dict[str, deque[Any]] = {}
        self._timer_at: float | None = None
        wire.receiver = self._gated
        entropy = member.entropy
        self._handshake: Dialler | Acceptor
        if peer is not None:
            self._handshake = Dialler(peer, member.identity, member.book, entropy)
        else:
            self._handshake = Acceptor(member.identity, member.book, entropy)
        self._shake_by = member.clock.now + HANDSHAKE_S
        self._set_timer(self._shake_by)

    # -- handshake -------------------------------------------------------------------------

    def start(self) -> None:
        """Say the first word, when we dialled."""
        if isinstance(self._handshake, Dialler):
            self._shake(self._handshake.start())

    def _shake(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case SendHandshake(kind, message):
                    self.wire.send((kind, message), len(message) + 3)
                case Learned(record):
                    self.member.learn(record)
                case Done():
                    self.peer, self.key_record = effect.peer, effect.key_record
                    self.made_ms = effect.key.made_ms
                    self.member.clock.counters["handshakes"] += 1
                    self.core = LinkCore(self.member.hello(), dialled=self.dialled)
                    self._perform(self.core.start(self.member.clock.now))
                case Failed(reason):
                    self.member.counters[f"handshake: {reason[-40:]}"] += 1
                    self.end("handshake failed")

    # -- what arrives ----------------------------------------------------------------------

    def _gated(self, item: Any) -> None:
        """Take a message when the member's loop runs and has had time for it."""
        member = self.member
        if item is not None and self.core is None and not self.closed:
            member.when_idle(HANDSHAKE_CPU_S, self._arrived, item)
        elif member.stalled_until > member.clock.now:
            member.later(self._arrived, item)
        else:
            self._arrived(item)

    def _arrived(self, item: Any) -> None:
        if self.closed or not self.member.up:
            return
        if item is None:
            self.end("the stream is over")
        elif isinstance(item, tuple):
            if self.core is None:
                self._shake(self._handshake.on_message(*item))
        elif self.core is not None:
            self._perform(self.core.on_message(item, self.member.clock.now))

    def _perform(self, effects: list[Any]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                self._write(effect.message)
            elif kind is Received:
                self._received(effect)
            elif kind is Ready:
                self._ready(effect.hello)
            elif kind is Granted:
                self._pump(KINDS.get(effect.flow, ""))
            elif kind is Closed:
                self.end(effect.reason)
        core = self.core
        if core is not None and core.deadline is not None:
            at = self._timer_at
            if at is None or core.deadline < at:
                self._set_timer(core.deadline)

    def _received(self, effect: Received) -> None:
        assert self.core is not None
        granted = self.core.taken(effect.flow, effect.charge)
        if granted:
            self._perform(granted)
        kind = KINDS.get(effect.flow)
        if kind is not None and not self.closed:
            self.member.on_service(self, kind, effect.body)

    def _ready(self, hello: Hello) -> None:
        self.since = self.member.clock.now
        self.peer_hello, self.ready = hello, True
        self.member.on_ready(self)

    def _write(self, message: bytes) -> None:
        assert self.core is not None
        self.core.on_sent(self.member.clock.now)
        self.wire.send(message, len(message) + RECORD_BYTES)

    # -- what we send ----------------------------------------------------------------------

    def post(self, kind: str, body: Any) -> None:
        """Send a message of a service as soon as it has credit."""
        if self.closed or self.core is None:
            return
        waiting = self._outbox.setdefault(kind, deque())
        waiting.append(body)
        self._pump(kind)
        if len(waiting) > OUTBOX_MAX:
            self.close("the peer does not read")

    def waiting(self) -> int:
        """Return how many messages wait for credit."""
        return sum(map(len, self._outbox.values()))

    def _pump(self, kind: str) -> None:
        waiting, core = self._outbox.get(kind), self.core
        while waiting and core is not None and core.may_send(SERVICES[kind]):
            for effect in core.service(kind, waiting.popleft()):
                assert isinstance(effect, Send)
                self._write(effect.message)

    # -- time and end ----------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        if self._timer_at is None or at < self._timer_at:
            self._timer_at = at
            self.member.timer(at, self._on_timer, at)

    def _on_timer(self, at: float) -> None:
        if self.closed or self._timer_at != at:
            return
        self._timer_at = None
        core, now = self.core, self.member.clock.now
        if core is None:
            if now >= self._shake_by:
                self.end("the handshake takes too long")
            else:
                self._set_timer(self._shake_by)
        elif core.deadline is not None and now < core.deadline:
            self._set_timer(core.deadline)
        else:
            self._perform(core.on_timer(now))

    def close(self, reason: str) -> None:
        """Close the link, saying why."""
        if self.core is not None and not self.closed:
            self._perform(self.core.close(reason))
        self.end(reason)

    def end(self, reason: str) -> None:
        """The link is over."""
        if self.closed:
            return
        self.closed = True
        self.wire.close()
        self.member.counters[f"closed: {reason[:40]}"] += 1
        self.member.on_end(self, reason)

    def cut_off(self) -> None:
        """The process died: the kernel ends the stream, or, without power, nobody does."""
        self.closed = True
        if self.member.powered:
            self.wire.close()
        else:
            self.wire.vanish()
