"""What happened last, in sentences: told from the times that resources carry.

It knows resources of the API, no store and no clock. Rule: nothing is kept for this; what is
shown follows from what is known now, so it is the same after a restart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hub import show

SHOWN_MAX: Final = 10
Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened."""

    at_ms: int
    tone: str  # good | bad | busy | warn | quiet
    text: str
    href: str
    site: str


def latest(
    jobs: Iterable[Item], pending: Iterable[Item], nodes: Iterable[Item],
    most: int = SHOWN_MAX,
) -> list[Happening]:  # fmt: skip
    """Return what happened last, the newest first."""
    found = [_job(job) for job in jobs]
    found += [_machine(seen) for seen in pending]
    found += [_node(node) for node in nodes]
    known = [happening for happening in found if happening is not None]
    return sorted(known, key=lambda happening: -happening.at_ms)[:most]


def _job(job: Item) -> Happening | None:
    title, state = show.job_title(dict(job)), str(job["state"])
    over = job["ended_ms"]
    at_ms = over or job["started_ms"] or job["created_ms"]
    if at_ms is None:
        return None
    if over:
        said = f"{title} {state}"
    elif job["started_ms"]:
        said = f"{title} began" if state == "running" else f"{title} is {state}"
    else:
        said = f"{title} was ordered"
    return Happening(at_ms, show.tone(state), said, f"/jobs/{job['id']}", str(job["site"]))


def _machine(seen: Item) -> Happening | None:
    if not seen["first_ms"] or seen["rejected"]:
        return None
    what = seen["model"] or "machine"
    said = f"New {what} {seen['mac']} waits to be accepted"
    return Happening(seen["first_ms"], "busy", said, "/pending", str(seen["site"]))


def _node(node: Item) -> Happening | None:
    site, href = str(node["site"]), f"/nodes/{node['id']}"
    if node["status"] != "member" or "node" not in node["roles"]:
        return None
    if node["linked_ms"]:
        return Happening(node["linked_ms"], "good", f"{node['name']} linked up", href, site)
    if not node["reachable"] and node["last_contact_ms"]:
        said = f"{node['name']} fell silent"
        return Happening(node["last_contact_ms"], "bad", said, href, site)
    return None
