"""The desk where one job meets the ramdisk agent of its machine.

Theory of operation. The first hello with a valid capability binds its ephemeral key to the
job's attempt. What follows is signed by that key with strictly growing counters, and each such
call is a heartbeat. Another key is not bound while the heartbeat is fresh:

* other hardware (SMBIOS UUID or serial): the job parks with an alarm at once;
* the same hardware: it may be this machine after a reset. It is told to wait; if the first key
  is heard again, two machines speak for one server and the job parks with an alarm; if it stays
  silent for ``SILENCE_MS``, a new attempt opens and the second key is bound.

After our own power cycle (``on_power_cut``) the next key binds without waiting. The desk gives
one command at a time and keeps giving it until its report came, since answers get lost. Which
disks are wiped or written comes from the bound machine's own hello, and from no row that
somebody else could have changed.

It knows nothing of HTTP, of capabilities' bytes or of what a command does: the caller has
checked the capability. Rule: garbage never raises; every refusal is a status and one sentence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.proto.agent_wire import Hello, Report, SignedCall, disks_of, signed_message

SILENCE_MS: Final = 15_000
"""A bound machine is alive while its last signed call is younger than this."""
POLL_S: Final = 1.0
WAIT_POLL_S: Final = 3.0
IDLE_S: Final = 600
REJECTED_MAX: Final = 1_000_000
"""Where the count of rejected calls stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the agent shall do; ``args`` are made anew for each session that asks."""

    id: str
    do: str
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the machine."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bound:
    """Binding changed: ``agent_row`` and ``attempt`` must be durable before the answer
    leaves."""

    attempt: int
    reset: bool
    """True: a new attempt was opened because the machine fell silent or was power cycled."""


@dataclass(frozen=True, slots=True)
class Reported:
    """The agent ended a command."""

    command: str
    ok: bool
    evidence: dict[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True)
class Progressed:
    """The agent came further with a command."""

    command: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """Two machines speak for one server, or similar: park the job."""

    sentence: str


Effect = Answer | Bound | Reported | Progressed | Alarm


class AgentDesk:
    """The bindings and the one command of a job, at its runner."""

    def __init__(
        self, name: str, attempt: int, attempt_first: int, attempts: int, agent: Any, now: int
    ) -> None:
        """``agent`` is the JOB row's field, None when nobody is bound."""
        self.name = name
        self.attempt = attempt
        self._attempt_end = attempt_first + attempts
        self.key: str | None = None
        self.uuid: str | None = None
        self.serial: str | None = None
        self.inventory: dict[str, Any] | None = None
        """Disks as the bound machine named them (``agent_wire.disks_of``); None: not known."""
        self._heard = now
        self._session: str | None = None
        self._seal = b""
        self._counter = 0
        self._waiting: str | None = None
        self._cut = False
        self.command: Command | None = None
        self.rejected = 0
        if isinstance(agent, Mapping):
            self.key, self.uuid, self.serial = (
                _text_or_none(agent.get(field)) for field in ("key", "uuid", "serial")
            )
            told = agent.get("inventory")
            self.inventory = dict(told) if isinstance(told, Mapping) else None

    # -- what others may ask ---------------------------------------------------------------

    @property
    def session(self) -> str | None:
        """The live session, or None."""
        return self._session

    @property
    def seal(self) -> bytes:
        """X25519 public key of the live session."""
        return self._seal

    def agent_row(self) -> dict[str, Any] | None:
        """Return what the JOB row keeps of the binding."""
        if self.key is None:
            return None
        return {
            "key": self.key, "uuid": self.uuid, "serial": self.serial,
            "inventory": self.inventory,
        }  # fmt: skip

    def silent_ms(self, now: int) -> int:
        """Return for how long the bound machine has not been heard."""
        return max(0, now - self._heard)

    def alive(self, now: int) -> bool:
        """Whether a machine is bound and its heartbeat is fresh."""
        return self._session is not None and self.silent_ms(now) < SILENCE_MS

    # -- events ----------------------------------------------------------------------------

    def on_power_cut(self) -> None:
        """We switched the machine off and read it back: its session is over."""
        self._session, self._waiting = None, None
        self._cut = True

    def on_new_attempt(self, attempt: int) -> None:
        """The job opened an attempt by itself: nobody is bound."""
        self.attempt = attempt
        self._session = self._waiting = self.key = self.uuid = self.serial = None
        self.inventory = None
        self._cut = False
        self.command = None

    def on_hello(
        self, hello: Hello, capability_attempt: int, session: str, now: int
    ) -> list[Effect]:
        """A machine shows a capability of this job; ``session`` is a new random name.

        The capability's bytes and time have been checked, its attempt is checked here.
        """
        if hello.key == self.key:
            if capability_attempt not in (self.attempt, self.attempt - 1):
                return [_refuse(403, f"the capability of {self.name} is not of this attempt")]
            return self._bind(hello, session, now, reset=False)
        if capability_attempt != self.attempt:
            return [_refuse(403, f"the capability of {self.name} is of an older attempt")]
        if self.key is None:
            return self._bind(hello, session, now, reset=False)
        if self._cut or self.silent_ms(now) >= SILENCE_MS:
            return self._rebind(hello, session, now)
        if self._other_hardware(hello):
            sentence = (
                f"a second machine says it is {self.name} while the first is alive:"
                f" {_hardware(hello.uuid, hello.serial)} instead of"
                f" {_hardware(self.uuid, self.serial)}"
            )
            return [Alarm(sentence), _refuse(409, sentence)]
        self._waiting = hello.key
        wait_s = (SILENCE_MS - self.silent_ms(now)) / 1000
        detail = f"{self.name} is bound to another key; ask again in {wait_s:.0f} s"
        body = {
            "session": "", "bound": False, "poll_s": WAIT_POLL_S, "idle_s": IDLE_S,
            "detail": detail,
        }  # fmt: skip
        return [Answer(200, body)]

    def on_next(
        self,
        call: SignedCall,
        report: Report | None,
        args_for: Callable[[Command], Mapping[str, Any]],
        now: int,
    ) -> list[Effect]:
        """The agent reports and asks for the next command.

        ``args_for(command)`` returns the arguments for this session (sealed data, URLs).
        """
        bad = self._reject(call, now)
        if bad is not None:
            return bad
        effects: list[Effect] = []
        if report is not None and self.command is not None and report.step == self.command.id:
            effects.append(Reported(report.step, report.ok, report.evidence, report.error))
            self.command = None
        step: dict[str, Any] | None = None
        if self.command is not None:
            step = {**args_for(self.command), "id": self.command.id, "do": self.command.do}
        return [*effects, Answer(200, {"step": step, "poll_s": POLL_S})]

    def on_progress(
        self, call: SignedCall, step: str, done: int, total: int, now: int
    ) -> list[Effect]:
        """The agent works; a command that nobody wants any more is called off."""
        bad = self._reject(call, now)
        if bad is not None:
            return bad
        if self.command is None or self.command.id != step:
            return [Answer(200, {"abort": f"the job of {self.name} does not want {step} now"})]
        return [Progressed(step, done, total), Answer(200, {})]

    # -- inside ----------------------------------------------------------------------------

    def _reject(self, call: SignedCall, now: int) -> list[Effect] | None:
        """Check session, signature and counter, in this order; a good call is a heartbeat."""
        if self._session is None or call.session != self._session or self.key is None:
            self._count()
            return [_refuse(403, "this session is over; say hello again")]
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
        message = signed_message(call.session, call.counter, call.path, call.body)
        try:
            key.verify(call.signature, message)
        except InvalidSignature:
            self._count()
            return [_refuse(403, "the signature is not of this session's key")]
        if call.counter <= self._counter:
            self._count()
            return [_refuse(409, f"the counter {call.counter} was used before")]
        self._counter = call.counter
        self._heard = now
        if self._waiting is not None:
            self._waiting = None
            sentence = f"two machines say they are {self.name}: two keys spoke within 15 s"
            return [Alarm(sentence), _refuse(409, sentence)]
        return None

    def _rebind(self, hello: Hello, session: str, now: int) -> list[Effect]:
        if self.attempt + 1 >= self._attempt_end:
            sentence = (
                f"{self.name} began again too often"
                " in this job; look at the machine, then retry the job"
            )
            return [Alarm(sentence), _refuse(409, sentence)]
        self.attempt += 1
        return self._bind(hello, session, now, reset=True)

    def _bind(self, hello: Hello, session: str, now: int, *, reset: bool) -> list[Effect]:
        self.key, self.uuid, self.serial = hello.key, hello.uuid, hello.serial
        self.inventory = disks_of(hello.inventory)
        self._session, self._seal = session, hello.seal
        self._counter, self._heard = 0, now
        self._waiting, self._cut = None, False
        body = {
            "session": session, "bound": True, "poll_s": POLL_S, "idle_s": IDLE_S,
            "detail": f"{self.name}, attempt {self.attempt}",
        }  # fmt: skip
        return [Bound(self.attempt, reset), Answer(200, body)]

    def _other_hardware(self, hello: Hello) -> bool:
        pairs = ((self.uuid, hello.uuid), (self.serial, hello.serial))
        return any(old is not None and new is not None and old != new for old, new in pairs)

    def _count(self) -> None:
        self.rejected = min(self.rejected + 1, REJECTED_MAX)


def _refuse(status: int, detail: str) -> Answer:
    return Answer(status, {"detail": detail})


def _hardware(uuid: str | None, serial: str | None) -> str:
    return f"UUID {uuid or 'unknown'}, serial {serial or 'unknown'}"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
