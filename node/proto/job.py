"""The job machine: which step is next, what is durable before it, what nobody knows.

Theory of operation. A job is a DAG of steps (``node.proto.plan``); all it knows stands in its
JOB row, which the shell writes when told ``Save``. A fresh step goes

    waiting -> running (Save: its begin) -> Confirm (another node has it) -> Act -> done

and a side effect never leaves before ``Save`` is durable and ``Confirm`` is answered; with no
other node in reach the step is marked solo and saved again. After a crash the same row is
loaded, ``start`` finds steps that are running, and since nobody knows how far they came, it
asks the world first: ``Probe``, then goes on. A one-shot step without evidence parks the job
for a human. Keyed steps look before they create, also when fresh.

It knows nothing of stores, devices or clocks: ``now`` is Unix milliseconds. Rule: effects are
carried out in the order given, each ``Save`` durable before the next effect starts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from node.proto.plan import Step, may_skip

BACKOFF_FIRST_MS: Final = 2_000
BACKOFF_MAX_MS: Final = 60_000
PROGRESS_SAVE_MS: Final = 2_000
"""Progress alone is saved at most this often; a change of state at once."""
ATTEMPTS_PER_RETRY: Final = 3
"""Attempts of a job before a person has to say retry; each is a new capability and session."""
SENTENCE_CHARS_MAX: Final = 400
STRAYED: Final = "the machine booted from its disk instead of the network"

TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
ENDED: Final = TERMINAL | {"parked"}
DONE: Final = frozenset({"done", "skipped"})

Witness = str | None
Seen = Literal["done", "not done", "unknown"]


@dataclass(frozen=True, slots=True)
class Save:
    """Write ``job.row`` durably, with what it makes of the server's row."""

    urgent: bool = True
    """False: only progress changed, the server's row did not."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Wait until another node of the site has the last Save; answer ``on_confirmed``."""

    step: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Look whether the step's target stands already; answer ``on_probed``."""

    step: str


@dataclass(frozen=True, slots=True)
class Act:
    """Do it; answer ``on_done``, ``on_failed``, ``on_lost`` or ``on_unsure``."""

    step: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop what is going on for a step; no answer is wanted."""

    step: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the job's log."""

    line: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more to do, as ``job.row['state']`` says; a parked job waits for a person."""

    state: str


Effect = Save | Confirm | Probe | Act | Stop | Note | Ended


@dataclass(slots=True)
class _Live:
    """A step that the shell works on."""

    since: int
    probe: bool
    """A look is due before anything else."""
    confirm: bool
    """The begin is not yet known to be elsewhere."""


class Job:
    """One job from its row to its end."""

    def __init__(self, row: dict[str, Any], steps: Iterable[Step]) -> None:
        self.row = row
        self.plan = tuple(steps)
        self._step = {step.id: step for step in self.plan}
        self._live: dict[str, _Live] = {}
        self._says: dict[str, str] = {}
        self._saved = 0
        self._unsaved = False
        names = [entry.get("id") for entry in row["steps"]]
        assert names == [step.id for step in self.plan], "the row was planned otherwise"
        self._entry: dict[str, dict[str, Any]] = {e["id"]: e for e in row["steps"]}

    # -- what others may ask ---------------------------------------------------------------

    @property
    def deadline(self) -> int | None:
        """When ``on_timer`` is due, Unix milliseconds."""
        times = [live.since + self._step[name].limit_ms for name, live in self._live.items()]
        if not self.row.get("held"):
            times += [entry["next_ms"] for entry in self.row["steps"] if _retries(entry)]
        if self._unsaved:
            times.append(self._saved + PROGRESS_SAVE_MS)
        return None if self.ended else min(times, default=None)

    @property
    def ended(self) -> bool:
        """Whether the shell has nothing more to do for it."""
        return self.row["state"] in ENDED

    def step(self, name: str) -> Step:
        """Return the plan of a step."""
        return self._step[name]

    def entry(self, name: str) -> dict[str, Any]:
        """Return the row of a step."""
        return self._entry[name]

    def current(self) -> Step | None:
        """Return the first step that is not done, or None."""
        return current_step(self.row, self.plan)

    # -- events ----------------------------------------------------------------------------

    def start(self, now: int) -> list[Effect]:
        """Begin a new job, or go on with one whose runner was gone."""
        assert not self.ended
        assert not self._live
        effects: list[Effect] = []
        if self.row.get("started_ms") is None:
            self.row["started_ms"] = now
        for step in self.plan:
            entry = self._entry[step.id]
            if entry["state"] == "running":
                look = step.kind != "observe"
                self._live[step.id] = _Live(now, probe=look, confirm=look)
                effects += [Note(f"{step.name}: goes on after a break"), self._next(step)]
            elif _retries(entry):
                entry["next_ms"] = min(entry["next_ms"], now + BACKOFF_MAX_MS)
        return effects + self._advance(now)

    def on_confirmed(self, name: str, witness: Witness, now: int) -> list[Effect]:
        """The begin is durable at ``witness``, or at nobody else (None: solo)."""
        live = self._live.get(name)
        if live is None or not live.confirm:
            return []
        live.confirm = False
        step, effects = self._step[name], list[Effect]()
        if witness is None and not self._entry[name].get("solo"):
            self._entry[name]["solo"] = True
            effects = [
                *self._save(now),
                Note(f"{step.name}: solo, no other node has its begin"),
            ]
        return [*effects, self._next(step)]

    def on_probed(
        self, name: str, seen: Seen, evidence: dict[str, Any] | None, now: int
    ) -> list[Effect]:
        """The world was looked at."""
        live = self._live.get(name)
        if live is None or not live.probe:
            return []
        live.probe = False
        step = self._step[name]
        if seen == "done":
            return [Note(f"{step.name}: stands already"), *self.on_done(name, evidence, now)]
        if seen == "unknown" and step.kind == "one-shot":
            return self.on_unsure(name, "nobody knows whether it was done", now)
        return [self._next(step)]

    def on_done(self, name: str, evidence: dict[str, Any] | None, now: int) -> list[Effect]:
        """The step's target stands."""
        if self._live.pop(name, None) is None:
            return []
        self._says.pop(name, None)
        entry = self._entry[name]
        entry.update(state="done", ended_ms=now, error=None, evidence=evidence or {})
        took_s = (now - (entry.get("started_ms") or now)) / 1000
        note = Note(f"{self._step[name].name}: done in {took_s:.1f} s{_shown(evidence)}")
        return [note, *self._advance(now, changed=True)]

    def on_failed(self, name: str, error: str, passing: bool, now: int) -> list[Effect]:
        """The try failed; ``passing``: trying again may help."""
        if self._live.pop(name, None) is None:
            return []
        self._says.pop(name, None)
        step, entry = self._step[name], self._entry[name]
        error = error[:SENTENCE_CHARS_MAX]
        entry["error"] = error
        if passing and entry["attempts"] < step.tries:
            wait = backoff_ms(entry["attempts"])
            entry.update(state="waiting", next_ms=now + wait)
            note = Note(f"{step.name}: {error}; tries again in {wait / 1000:.0f} s")
            return [note, *self._advance(now, changed=True)]
        entry.update(state="skipped" if step.optional else "failed", ended_ms=now)
        word = "failed, the job goes on" if step.optional else "failed"
        return [Note(f"{step.name}: {word}: {error}"), *self._advance(now, changed=True)]

    def on_lost(self, name: str, error: str, now: int) -> list[Effect]:
        """The machine that a step works on is gone: begin again from the plan's ``redo``."""
        step = self._step[name]
        if name not in self._live:
            return []
        if step.redo is None or not may_attempt(self.row):
            return self.on_failed(name, error, False, now)
        del self._live[name]
        self._says.pop(name, None)
        next_attempt(self.row)
        notes: list[Effect] = [Note(f"{step.name}: {error}; attempt {self.row['attempt']}")]
        for other in span(self.plan, step.redo, name):
            if other in self._live:
                del self._live[other]
                notes.append(Stop(other))
            reset(self._entry[other], error if other == name else None)
        return [*notes, *self._advance(now, changed=True)]

    def on_strayed(self, now: int) -> list[Effect]:
        """The machine came up from its disk while a step waits for its ramdisk.

        With a BMC it is switched off and booted again at once, in a new attempt; without one
        the step goes on waiting and says what is to be done by hand.
        """
        step = self.current()
        if step is None or step.do != "ramdisk" or step.id not in self._live:
            return []
        if step.redo is not None:
            return self.on_lost(step.id, STRAYED, now)
        return self.on_waits(step.id, f"{STRAYED}: restart it by hand from the network", now)

    def on_unsure(self, name: str, error: str, now: int) -> list[Effect]:
        """The outcome cannot be known: park for a human, never try blindly again."""
        if self._live.pop(name, None) is None:
            return []
        self._entry[name].update(state="parked", error=error[:SENTENCE_CHARS_MAX])
        return self.on_park(f"{self._step[name].name}: {error}", now)

    def on_park(self, reason: str, now: int) -> list[Effect]:
        """Something is wrong that only a person can judge: stop and say so."""
        if self.ended:
            return []
        stops: list[Effect] = [Stop(name) for name in self._live]
        for name in self._live:
            self._entry[name]["state"] = "parked"
        self._live.clear()
        reason = reason[:SENTENCE_CHARS_MAX]
        self.row.update(state="parked", error=reason, waits_for=f"a person: {reason}")
        return [*stops, Note(f"parked: {reason}"), *self._save(now), Ended("parked")]

    def on_cancel(self, by: str, now: int) -> list[Effect]:
        """A person ends it."""
        if self.ended:
            return []
        stops: list[Effect] = [Stop(name) for name in self._live]
        self._live.clear()
        cancel_row(self.row, by, now)
        return [*stops, Note(f"cancelled by {by}"), *self._save(now), Ended("cancelled")]

    def on_progress(self, name: str, done: int, total: int, now: int) -> list[Effect]:
        """A step came further."""
        if name not in self._live or not 0 <= done <= total:
            return []
        entry = self._entry[name]
        if (entry.get("done"), entry.get("total")) == (done, total):
            return []
        entry.update(done=done, total=total, unit="bytes")
        self._unsaved = True
        return self._save(now, urgent=False) if self._save_due(now) else []

    def on_waits(self, name: str, sentence: str | None, now: int) -> list[Effect]:
        """A running step says what it waits for now (None: what its plan says)."""
        if name not in self._live or self._says.get(name) == sentence:
            return []
        if sentence is None:
            del self._says[name]
        else:
            self._says[name] = sentence[:SENTENCE_CHARS_MAX]
        self._settle(now)
        return self._save(now)

    def on_changed(self, now: int) -> list[Effect]:
        """The shell changed a field of the row that others must see (its agent)."""
        return [] if self.ended else self._save(now)

    def on_timer(self, now: int) -> list[Effect]:
        """Some deadline has passed."""
        if self.ended:
            return []
        effects: list[Effect] = []
        for name, live in list(self._live.items()):
            step = self._step[name]
            if now >= live.since + step.limit_ms and name in self._live:
                effects.append(Stop(name))
                error = f"{step.name} did not end within {_span_text(step.limit_ms)}"
                if step.waits:
                    error = f"{error}: it {self._says.get(name, step.waits)}"
                if step.redo:
                    effects += self.on_lost(name, error, now)
                elif step.kind == "one-shot":
                    effects += self.on_unsure(name, error, now)
                else:
                    effects += self.on_failed(name, error, True, now)
        if not self.ended:
            effects += self._advance(now)
        if self._unsaved and self._save_due(now):
            effects += self._save(now, urgent=False)
        return effects

    def on_hold(self, held: Mapping[str, Any] | None, now: int) -> list[Effect]:
        """A person holds it (``by``, ``reason``), or lets it go on (None).

        Steps that have begun end; none begins while it is held.
        """
        if self.ended or (self.row.get("held") is None) == (held is None):
            return []
        self.row["held"] = held
        note = Note("goes on: the hold is off" if held is None else _held(held))
        return [note, *self._advance(now, changed=True)]

    # -- inside ----------------------------------------------------------------------------

    def _next(self, step: Step) -> Effect:
        live = self._live[step.id]
        if live.probe:
            return Probe(step.id)
        return Confirm(step.id) if live.confirm else Act(step.id)

    def _advance(self, now: int, changed: bool = False) -> list[Effect]:
        """Begin what is ready; settle the job's state; save when something changed."""
        begun: list[Step] = []
        failed = any(entry["state"] == "failed" for entry in self.row["steps"])
        if not failed and not self.row.get("held"):
            begun = [step for step in self.plan if self._ready(step, now)]
        for step in begun:
            entry = self._entry[step.id]
            entry.update(state="running", attempts=entry["attempts"] + 1, started_ms=now)
            entry.update(ended_ms=None, next_ms=None, solo=False)
            self._live[step.id] = _Live(
                now, probe=step.kind == "keyed", confirm=step.kind != "observe"
            )
            self.row["touched"] = bool(self.row.get("touched")) or step.touches
            self.row["dirty"] = bool(self.row.get("dirty")) or step.dirties
        before = (self.row["state"], self.row.get("waits_for"))
        self._settle(now)
        after = (self.row["state"], self.row.get("waits_for"))
        effects = self._save(now) if begun or changed or before != after else []
        effects += [self._next(step) for step in begun]
        return [*effects, Ended(self.row["state"])] if self.ended else effects

    def _ready(self, step: Step, now: int) -> bool:
        entry = self._entry[step.id]
        if entry["state"] != "waiting" or step.id in self._live:
            return False
        if (entry.get("next_ms") or 0) > now:
            return False
        return all(self._entry[name]["state"] in DONE for name in step.after)

    def _settle(self, now: int) -> None:
        """Set the job's state and what it waits for from its steps."""
        row, entries = self.row, self.row["steps"]
        if all(entry["state"] in DONE for entry in entries):
            row.update(state="succeeded", ended_ms=now, waits_for=None, error=None)
            return
        if self._live:
            says = [self._says.get(name) or self._step[name].waits for name in self._live]
            row.update(state="running", waits_for=next((s for s in says if s), None))
            return
        failed = next((entry for entry in entries if entry["state"] == "failed"), None)
        if failed is not None:
            row.update(state="failed", ended_ms=now, waits_for=None)
            row["error"] = f"{failed['name']}: {failed['error']}"[:SENTENCE_CHARS_MAX]
            return
        if row.get("held"):
            row.update(state="held", waits_for=held_sentence(row))
            return
        retry = min((e for e in entries if _retries(e)), key=lambda e: int(e["next_ms"]))
        wait_s = backoff_ms(retry["attempts"]) / 1000
        row.update(
            state="retry_wait",
            waits_for=f"waits {wait_s:.0f} s to try {retry['name']} again: {retry['error']}",
        )

    def _save(self, now: int, urgent: bool = True) -> list[Effect]:
        self._saved, self._unsaved = now, False
        return [Save(urgent)]

    def _save_due(self, now: int) -> bool:
        return now - self._saved >= PROGRESS_SAVE_MS


# -- rows without a runner -----------------------------------------------------------------


def new_steps(plan: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the step rows of a job that has not begun."""
    return [
        {
            "id": step.id, "name": step.name, "kind": step.kind, "state": "waiting",
            "after": list(step.after), "may_skip": may_skip(step),
            "solo": False, "started_ms": None, "ended_ms": None, "done": None, "total": None,
            "unit": None, "evidence": {}, "error": None, "attempts": 0, "next_ms": None,
        }
        for step in plan
    ]  # fmt: skip


def current_step(row: Mapping[str, Any], plan: Iterable[Step]) -> Step | None:
    """Return the first step of a job that is not done, or None."""
    state = {entry["id"]: entry["state"] for entry in row["steps"]}
    return next((step for step in plan if state.get(step.id) not in DONE), None)


def backoff_ms(attempts: int) -> int:
    """Return the pause after so many failed tries of a step."""
    return min(BACKOFF_FIRST_MS << max(0, min(attempts - 1, 16)), BACKOFF_MAX_MS)


def may_attempt(row: dict[str, Any]) -> bool:
    """Say whether one more attempt is allowed before a person says retry."""
    return int(row["attempt"]) + 1 < int(row.get("attempt_first", 1)) + ATTEMPTS_PER_RETRY


def next_attempt(row: dict[str, Any]) -> None:
    """Open a new attempt: older capabilities and sessions are void."""
    row["attempt"] += 1
    row["agent"] = None


def cancel_row(row: dict[str, Any], by: str, now: int) -> None:
    """Write the end that a person ordered into a job's row."""
    for entry in row["steps"]:
        if entry["state"] in {"running", "parked"}:
            entry.update(state="failed", ended_ms=now, error=f"cancelled by {by}")
    row.update(state="cancelled", ended_ms=now, waits_for=None, error=f"cancelled by {by}")
    row["held"] = None


def span(plan: tuple[Step, ...], first: str, last: str) -> list[str]:
    """Return the names of steps from one to another, both included."""
    names = [step.id for step in plan]
    return names[names.index(first) : names.index(last) + 1]


def reset(entry: dict[str, Any], error: str | None) -> None:
    """Let a step begin as if it never had."""
    entry.update(state="waiting", started_ms=None, ended_ms=None, next_ms=None, error=error)
    entry.update(done=None, total=None, solo=False, evidence={}, attempts=0)


def held_sentence(row: Mapping[str, Any]) -> str | None:
    """Say who holds a job, None when nobody does."""
    return f"a person: {_held(row['held'])}" if row.get("held") else None


def _held(held: Mapping[str, Any]) -> str:
    reason = f" ({held['reason']})" if held.get("reason") else ""
    return f"held by {held.get('by')}{reason}"[:SENTENCE_CHARS_MAX]


def _retries(entry: dict[str, Any]) -> bool:
    return entry["state"] == "waiting" and entry.get("next_ms") is not None


def _shown(evidence: dict[str, Any] | None) -> str:
    if not evidence:
        return ""
    return " (" + ", ".join(f"{key} {value}" for key, value in sorted(evidence.items())) + ")"


def _span_text(ms: int) -> str:
    return f"{ms // 60_000} minutes" if ms >= 60_000 else f"{ms / 1000:g} s"
