"""Groups: orders that were given together, and how they fare as one.

A group is no row of its own: each order carries its group's id under its signature, and the
group is what its jobs say. So it is known wherever its jobs are, at a node for its site's part.
Rule: what cannot be ordered on a server is told for that server and stops no other one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from mesh.proto.order import CANCEL, DEPLOY, GROUPED, RETRY
from mesh.rest.lists import JOB_OVER
from mesh.rest.orders import Draft, Known, draft, server_named
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import GROUP_MAX
from mesh.rest.types import Group, GroupOrder, GroupRefused, GroupWait

NAMED_MAX: Final = 10
"""Servers that one reason to wait is shown with by name."""
_MAY: Final[Mapping[str, tuple[frozenset[str] | None, str]]] = {
    CANCEL: (None, "all have ended"),
    RETRY: (frozenset({"failed", "parked", "cancelled"}), "none has failed or is parked"),
}
Body = Mapping[str, Any]


def drafts(
    kind: str, params: Body, servers: Sequence[Body], known: Known
) -> tuple[list[Draft], list[GroupRefused]]:
    """Return an order for each server, and why some get none.

    Raises RequestProblem when the request makes no sense, or no server gets one.
    """
    if kind not in GROUPED:
        raise RequestProblem(
            "bad-request", f"groups are of {', '.join(sorted(GROUPED))}, not {kind!r}"
        )
    if not servers:
        raise RequestProblem("not-found", "no server is meant: nothing passes the filter")
    if len(servers) > GROUP_MAX:
        raise RequestProblem(
            "too-large", f"a group has at most {GROUP_MAX} servers, not {len(servers)}"
        )
    if kind == DEPLOY and params.get("hostname") and len(servers) > 1:
        raise RequestProblem(
            "bad-request", f"{len(servers)} servers cannot all be called"
            f" {str(params['hostname'])[:60]!r}: leave hostname out, each keeps its name",
        )  # fmt: skip
    made: list[Draft] = []
    refused: list[GroupRefused] = []
    for server in servers:
        request = {"kind": kind, "server": server["id"], "params": params}
        try:
            made.append(draft(request, known, ""))
        except RequestProblem as exc:
            if exc.code != "conflict":
                raise  # wrong for every server
            name = str(server["name"])
            refused.append(GroupRefused(server=server["id"], server_name=name, detail=str(exc)))
    if not made:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise RequestProblem(
            "conflict", f"no server can take the order: {refused[0]['detail']}{more}"
        )
    return made, refused


def chosen(asked: Body, known: Known, filtered: Callable[[str], list[Body]]) -> list[Body]:
    """Return the servers that a request for a group means, each once.

    ``filtered`` gives the servers that pass a filter. Raises RequestProblem.
    """
    names, text = asked.get("servers"), asked.get("filter")
    if (names is None) == (text is None):
        raise RequestProblem("bad-request", "say which servers: either servers or filter")
    if text is not None:
        found = filtered(str(text))
    else:
        by_id = {s["id"]: s for name in names or () for s in (server_named(name, known),)}
        found = list(by_id.values())
    expect = asked.get("expect")
    if expect is not None and expect != len(found):
        raise RequestProblem(
            "conflict", f"{len(found)} servers are meant by now, not {expect}: look again"
        )
    return found


def ordered(order_id: str, made: Draft, names: Mapping[str, str]) -> GroupOrder:
    """Show one order of a new group."""
    return GroupOrder(
        order=order_id, job=order_id, site=made.site, server=made.server,
        server_name=names.get(str(made.server)),
    )  # fmt: skip


def to_do(group: str, kind: str, jobs: Iterable[Body]) -> list[Draft]:
    """Return a cancel or retry for each job of a group that can take it."""
    states, why = _MAY[kind]
    found = [
        job
        for job in jobs
        if (job["state"] in states if states is not None else job["state"] not in JOB_OVER)
    ]
    if not found:
        raise RequestProblem(
            "conflict", f"no job of group {group} can take {kind.partition('.')[2]}: {why}"
        )
    return [
        Draft(kind=kind, site=job["site"], server=job.get("server"), params={"job": job["id"]},
              order_class="normal")
        for job in found
    ]  # fmt: skip


def groups(jobs: Iterable[Body]) -> list[Group]:
    """Return the groups that jobs say they are of, newest first."""
    by_id: dict[str, list[Body]] = {}
    for job in jobs:
        if job.get("group"):
            by_id.setdefault(job["group"], []).append(job)
    return [group(key, by_id[key]) for key in sorted(by_id, reverse=True)]


def group(group_id: str, jobs: Sequence[Body]) -> Group:
    """Return how the jobs of one group fare together; there is at least one."""
    assert jobs
    states = Counter(str(job["state"]) for job in jobs)
    over = sum(states[state] for state in JOB_OVER)
    failed = [job for job in jobs if job.get("error") and job["state"] in ("failed", "parked")]
    first = min(failed, key=lambda job: (job.get("ended_ms") or 0, job["id"]), default=None)
    ended = [job["ended_ms"] for job in jobs if job.get("ended_ms")]
    known_ms = [job["created_ms"] for job in jobs if job.get("created_ms")]
    return Group(
        id=group_id,
        kind=str(jobs[0]["kind"]),
        author=jobs[0].get("author"),
        sites=sorted({str(job["site"]) for job in jobs}),
        state=_state(states, over, len(jobs)),
        total=len(jobs),
        over=over,
        states=dict(sorted(states.items())),
        error=f"{first['server_name'] or first['server']}: {first['error']}" if first else None,
        waits=_waits(jobs),
        created_ms=min(known_ms, default=None),
        ended_ms=max(ended, default=None) if over == len(jobs) else None,
    )


def _state(states: Counter[str], over: int, total: int) -> str:
    if states["running"]:
        return "running"
    if over < total:
        return "parked" if over + states["parked"] == total else "waiting"
    for state in ("failed", "refused", "cancelled"):
        if states[state]:
            return "cancelled" if state == "cancelled" else "failed"
    return "succeeded"


def _waits(jobs: Sequence[Body]) -> list[GroupWait]:
    """Return what jobs wait for, the commonest reason first."""
    names: dict[str, list[str]] = {}
    for job in jobs:
        if job.get("waits_for") and job["state"] not in JOB_OVER:
            name = str(job.get("server_name") or job.get("server"))
            names.setdefault(str(job["waits_for"]), []).append(name)
    return [
        GroupWait(waits_for=why, jobs=len(names[why]), servers=sorted(names[why])[:NAMED_MAX])
        for why in sorted(names, key=lambda why: (-len(names[why]), why))
    ]
