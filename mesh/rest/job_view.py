"""A job as it looks from here and now: what its row cannot say, because nobody writes it.

Rows say what a job's runner wrote last. Who reads them knows in addition the time, who is a
member and whom it reaches. Rule: a pure function of the shown job and these facts; hub and node
use the same one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, cast

from mesh.rest.types import Job

_GOES_ON: Final = frozenset({"queued", "blocked", "running", "retry_wait", "held"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Who looks, and what it knows."""

    now_ms: int
    name: str
    """"this hub" or "this node"."""
    reachable: Collection[str]
    """Nodes that it reaches now, itself included."""
    members: Mapping[str, str]
    """Node id -> name of every active member."""


def as_seen(job: Job, here: Here) -> Job:
    """Return a job with what is plain from here: its order is too late, its runner is away."""
    if job["state"] not in _GOES_ON:
        return job
    runner = job["runner"]
    if runner is None:
        return _late(job, here)
    if runner not in here.members:
        waits = f"its runner {runner[:8]} is no member any more: cancel the job"
    elif runner not in here.reachable:
        waits = f"its runner {here.members[runner]} is out of reach of {here.name}"
    else:
        return job
    return cast(Job, {**job, "waits_for": waits})


def _late(job: Job, here: Here) -> Job:
    """An order that nobody took up in time is over, whoever sees it first."""
    until = job["not_after_ms"]
    if until is None or here.now_ms <= until:
        return job
    error = f"the order ran out of time before a node of site {job['site']} took it up"
    over = {"state": "failed", "waits_for": None, "error": error, "ended_ms": until}
    return cast(Job, {**job, **over})
