"""The stages of a server's life as people read them, from its state and its jobs.

Six stages stand for the state machine of DOMAIN section 2. It knows no clock. Rule: a stage's
time is one that a row holds; a stage that this hub has no row about has no time, never a
guessed one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mesh.proto.order import ACCEPT, ADOPT, DEPLOY, RELEASE

Body = Mapping[str, Any]
Standing = Literal["done", "now", "failed", "ahead"]

STAGES: Final = ("discovered", "accepted", "available", "deploying", "active", "releasing")
_AT: Final[Mapping[str, str]] = {
    "inspecting": "accepted", "adopting": "accepted", "available": "available",
    "deploying": "deploying", "deploy-wait": "deploying", "active": "active",
    "deleting": "releasing", "cleaning": "releasing",
}  # fmt: skip
_FAILED: Final = " failed"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: where the server stands towards it, since when, and what to know of it."""

    name: str
    standing: Standing
    since_ms: int | None
    note: str

    @property
    def words(self) -> str:
        """Return the standing for people and screen readers."""
        return {"done": "done", "now": "now", "failed": "failed", "ahead": "not yet"}[
            self.standing
        ]


def stages(server: Body, jobs: Iterable[Body]) -> list[Stage]:
    """Return the stages of a server; ``jobs`` are its own, in any order."""
    state = str(server.get("state"))
    failed = state.endswith(_FAILED)
    here = _AT.get(state.removesuffix(_FAILED), "")
    at = STAGES.index(here) if here else -1
    jobs = list(jobs)
    since = _since(server, jobs)
    adopted = not server.get("image") and any(job.get("kind") == ADOPT for job in jobs)
    found: list[Stage] = []
    for number, name in enumerate(STAGES):
        standing: Standing = "done" if number < at else "ahead"
        if number == at:
            standing = "failed" if failed else "now"
        if standing == "done" and adopted and name in ("available", "deploying"):
            note = "not by us: it was running"
        elif standing == "done" and name == "available" and server.get("cleaned") is not True:
            note = "never cleaned"
        elif standing == "now":
            note = _note(server, state)
        else:
            note = ""
        known = since.get(name) if standing != "ahead" else None
        found.append(Stage(name, standing, known, note))
    return found


def _note(server: Body, state: str) -> str:
    if state == "available":
        return "clean" if server.get("cleaned") is True else "never cleaned"
    if state == "active":
        return str(server.get("image") or "")
    return "" if state in STAGES else state


def _since(server: Body, jobs: Iterable[Body]) -> dict[str, int]:
    """Return when each stage began, from the newest jobs that brought it about."""
    found: dict[str, int] = {}
    for job in sorted(jobs, key=lambda one: _time(one.get("created_ms"))):
        kind, started, ended = job.get("kind"), job.get("started_ms"), job.get("ended_ms")
        over = ended if job.get("state") == "succeeded" else None
        if kind == ACCEPT:
            begun = _first_step(job) or _time(job.get("created_ms"))
            found |= _known(accepted=begun, available=over)
        elif kind == ADOPT:
            begun = _first_step(job) or _time(job.get("created_ms"))
            found |= _known(accepted=begun, active=over)
        elif kind == DEPLOY:
            found |= _known(deploying=started, active=over)
        elif kind == RELEASE:
            found |= _known(releasing=started, available=over)
    here = _AT.get(str(server.get("state")).removesuffix(_FAILED), "")
    changed = _time(server.get("changed_ms"))
    if here and changed and here not in found:
        found[here] = changed
    return found


def _first_step(job: Body) -> int:
    steps = job.get("steps")
    begun = [_time(step.get("started_ms")) for step in steps] if isinstance(steps, list) else []
    return min((at for at in begun if at), default=0)


def _known(**times: Any) -> dict[str, int]:
    return {name: at for name, at in times.items() if _time(at)}


def _time(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
