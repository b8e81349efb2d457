"""What a person's word makes of a job's row: retry, skip, confirm, kill, hold, archive.

It knows rows and plans, no runner and no store. Rules: each word is legal in named states only,
and every refusal is one sentence that says what would be right; a word that was carried out
leaves who said it in the row; nobody's word stands in for what later steps rest on
(``node.proto.plan.may_skip``), and no word makes a disk proved or cleaned.
"""

from collections.abc import Mapping
from typing import Any, Final

from node.proto.job import (
    DONE,
    ENDED,
    SENTENCE_CHARS_MAX,
    TERMINAL,
    cancel_row,
    next_attempt,
    reset,
    span,
)
from node.proto.plan import Step, may_skip

ATTEMPT_MAX: Final = 250
"""The capability has one byte for the attempt."""


def reopen(row: dict[str, Any], plan: tuple[Step, ...], now: int) -> str | None:
    """Make a failed, parked or cancelled job run again; return a refusal or None.

    Steps are done again from the plan's ``redo`` of the one that did not end; a person's word
    is what a one-shot step waited for.
    """
    if row["state"] not in {"failed", "parked", "cancelled"}:
        return (
            f"the job is {row['state']}; only a failed, parked or cancelled job is tried again"
        )
    if row["attempt"] >= ATTEMPT_MAX:
        return f"the job has had {row['attempt']} attempts; give a new order"
    at = next((s for s in plan if _entry_of(row, s.id)["state"] not in DONE), None)
    if at is not None:
        for name in span(plan, at.redo or at.id, at.id):
            reset(_entry_of(row, name), None)
    next_attempt(row)
    row["tried_by"] = []
    _queue(row, now)
    return None


def skip(
    row: dict[str, Any], plan: tuple[Step, ...], word: Mapping[str, Any], by: str, now: int
) -> str | None:
    """Let a failed or parked step count as skipped; return a refusal or None.

    ``word``: ``reason``, and ``step`` when another step than the first open one is meant. The
    attempt goes on, so a machine that waits in its ramdisk stays bound.
    """
    if row["state"] not in {"failed", "parked"}:
        return f"the job is {row['state']}; a step is skipped when its job failed or is parked"
    stuck = [s for s in plan if _entry_of(row, s.id)["state"] in {"failed", "parked"}]
    wanted = word.get("step")
    names = ", ".join(s.id for s in stuck)
    if wanted is not None:
        stuck = [s for s in stuck if s.id == wanted]
    if not stuck:
        if wanted is None or not names:
            return "no step of the job has failed or is parked, so there is none to skip"
        return f"step {wanted!r} of the job has not failed; those that may be meant: {names}"
    step = stuck[0]
    if not may_skip(step):
        return (
            f"the step {step.name} cannot be skipped: what follows rests on it; retry or cancel"
        )
    _entry_of(row, step.id).update(
        state="skipped", ended_ms=now, next_ms=None,
        evidence={"skipped by": by, "reason": word["reason"]},
    )  # fmt: skip
    _queue(row, now)
    return None


def confirm(
    row: dict[str, Any], plan: tuple[Step, ...], word: Mapping[str, Any], by: str, now: int
) -> str | None:
    """Take a person's word whether a parked one-shot step was done; refusal or None."""
    parked = [s for s in plan if _entry_of(row, s.id)["state"] == "parked"]
    shots = [s for s in parked if s.kind == "one-shot"]
    if row["state"] != "parked" or not shots:
        return (
            f"the job is {row['state']} and no step of it waits for a person to say whether it"
            " was done; a job that failed or is parked takes retry"
        )
    entry = _entry_of(row, shots[0].id)
    if word["done"]:
        evidence = {"confirmed by": by, "reason": word["reason"]}
        entry.update(state="done", ended_ms=now, error=None, evidence=evidence)
    _queue(row, now)
    if not word["done"]:
        said = f"{by} said that it was not done: {word['reason']}"
        entry["error"] = said[:SENTENCE_CHARS_MAX]
    return None


def kill(row: dict[str, Any], word: Mapping[str, Any], by: str, now: int) -> str | None:
    """End a job whatever its step does, and say that nobody knows how things stand."""
    if row["state"] in TERMINAL:
        return f"the job has ended already: {row['state']}"
    if row.get("started_ms") is None:
        cancel_row(row, by, now)
        return None
    name = row.get("server_name") or row.get("server") or "what it worked on"
    reason = f" ({word['reason']})" if word.get("reason") else ""
    error = f"killed by {by}{reason}: nobody knows how {name} stands, look at it"
    error = error[:SENTENCE_CHARS_MAX]
    for entry in row["steps"]:
        if entry["state"] in {"running", "parked"}:
            entry.update(state="failed", ended_ms=now, error=error)
    row.update(state="failed", ended_ms=now, waits_for=None, error=error, touched=True)
    row.update(killed_ms=now, held=None)
    return None


def hold(row: dict[str, Any], word: Mapping[str, Any], by: str, now: int) -> str | None:
    """Let a job begin no next step; refusal or None. One that is held stays so."""
    if row["state"] in ENDED:
        return f"the job is {row['state']}: only one that has not ended can be held"
    if not row.get("held"):
        row["held"] = {"by": by, "at_ms": now, "reason": word.get("reason")}
    return None


def unhold(row: dict[str, Any]) -> str | None:
    """Let a held job go on; refusal or None."""
    if not row.get("held"):
        return "the job is not held"
    row["held"] = None
    return None


def archive(row: dict[str, Any], now: int) -> str | None:
    """Put an ended job out of the lists; refusal or None."""
    if row["state"] not in TERMINAL:
        return f"the job is {row['state']}: only one that has ended goes to the archive"
    row["archived_ms"] = row.get("archived_ms") or now
    return None


def _queue(row: dict[str, Any], now: int) -> None:
    """Let the job begin anew with the steps that are not done."""
    for entry in row["steps"]:
        if entry["state"] not in DONE:
            reset(entry, None)
        entry["attempts"] = 0
    row.update(attempt_first=row["attempt"], state="queued", error=None, ended_ms=None)
    row.update(waits_for="waits for its turn", reopened_ms=now, archived_ms=None)


def _entry_of(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in row["steps"] if entry["id"] == name)
