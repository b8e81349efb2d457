"""When may this node believe that what was its work is still its work? A pure decision.

While a process was down, or stood still (stopped, swapped out, its machine paused), others of
the site may have taken over what they had never seen a job row of. So after a start and after a
standstill it waits until it has met them and their rows are here, or long enough.

It knows no jobs. Rule: a site of one node never waits.
"""

from collections.abc import Collection, Mapping
from typing import Any


class Hold:
    """The wait of one node; times in seconds of a clock that nobody sets."""

    def __init__(self, settle_s: float, meet_s: float) -> None:
        """At most ``settle_s``; ``meet_s`` after all others are linked is enough."""
        self._settle_s, self._meet_s = settle_s, meet_s
        self._since: float | None = None
        self._met: float | None = None

    @property
    def on(self) -> bool:
        """Whether it waits, as of the last look."""
        return self._since is not None

    def begin(self, now: float) -> None:
        """The process has started, or finds that it stood still."""
        self._since, self._met = now, None

    def look(self, now: float, others: bool, met: bool) -> bool:
        """Say whether it still waits; ``met``: all ``others`` of the site are linked now."""
        if self._since is None:
            return False
        self._met = (now if self._met is None else self._met) if met else None
        over = not others or now >= self._since + self._settle_s
        if over or (self._met is not None and now >= self._met + self._meet_s):
            self._since = None
        return self._since is not None


class Met:
    """Which other nodes have been linked for so long that their rows are here.

    Who counts what all have done must not count a node as asked in the moment in which its
    link comes up: what it did while it was away is still on its way.
    """

    def __init__(self, meet_s: float) -> None:
        self._meet_s = meet_s
        self._since: dict[str, float] = {}

    def look(self, linked: Collection[str], now: float) -> frozenset[str]:
        """Return the nodes that have been linked for ``meet_s``, at each look since then."""
        self._since = {node: self._since.get(node, now) for node in linked}
        return frozenset(n for n, since in self._since.items() if now >= since + self._meet_s)


def witnessed(job: Mapping[str, Any]) -> bool:
    """Whether another node is known to hold this job's row: nobody else begins it then."""
    return any(
        step.get("state") == "done" and step.get("kind") != "observe" and not step.get("solo")
        for step in job.get("steps") or ()
    )


def doubted(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's row as who takes it over in a site of two must write it.

    There the one that is left works on alone, and tells nobody of its begins; the other, once
    it is back and takes over, cannot know how far it came. So each one-shot step that is not
    known to be done counts as begun: the job machine probes it, and parks without evidence.
    """
    steps: list[dict[str, Any]] = []
    for step in job["steps"]:
        begun = step["kind"] == "one-shot" and step["state"] == "waiting"
        more = {"state": "running", "attempts": step["attempts"] + 1} if begun else {}
        steps.append({**step, **more})
    return {**job, "steps": steps}
