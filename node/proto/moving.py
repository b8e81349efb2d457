"""A job whose node cannot do a step goes on at another node of its site.

It knows rows and the job's core, not who the other node is. Rule: the runner itself writes the
row that names the other node, under a higher epoch, and does nothing of the job afterwards; no
node is asked twice before a person says retry.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from mesh.proto.rendezvous import owner
from node.proto.job import SENTENCE_CHARS_MAX, Effect, Ended, Job, Note, reset

MOVED: Final = "moved"
"""What ``Ended`` says of a job that goes on elsewhere."""
NODES_MAX: Final = 5
"""Nodes that try a job before it fails."""
MOVES: Final = frozenset({"power", "boot", "disc", "fetch", "new-password", "inspect-oob"})
"""Verbs of steps that another node of the site may be able to do: it has other ways to the BMC
and to the sources of images."""


def elsewhere(job: Mapping[str, Any], able: Collection[str]) -> str | None:
    """Return the node that tries next, None when all have; ``able``: those that could."""
    tried = {job["runner"], *job.get("tried_by", ())}
    if len(tried) >= NODES_MAX:
        return None
    return owner(set(able) - tried, str(job["id"]))


def move(job: Job, step: str, error: str, to: str, now_ms: int) -> list[Effect]:
    """Give the job to another node, which begins the step anew."""
    row = job.row
    row["tried_by"] = [*row.get("tried_by", ()), row["runner"]]
    row.update(runner=to, epoch=int(row.get("epoch", 1)) + 1)
    error = error[:SENTENCE_CHARS_MAX]
    reset(job.entry(step), error)
    name = job.step(step).name
    note = Note(f"{name}: failed: {error}; another node of the site tries it")
    return [note, *job.on_changed(now_ms), Ended(MOVED)]
