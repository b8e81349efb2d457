"""How many jobs at a time: of a site, at one device, of one kind; and who is next.

It knows no rows and no clock. Rules: a cap of 0 is none; the oldest goes first, but a job that
one cap keeps back keeps no other job back from what it does not use; every node comes to the
same answer from the same rows, so they stay inside the caps without asking each other.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Most jobs that run at a time; 0 or missing: no cap."""

    site: int = 0
    device: int = 0
    """At one device: servers may share a chassis' BMC."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """By kind of order, in the whole site."""

    def __bool__(self) -> bool:
        """Tell whether any cap is set."""
        return bool(self.site or self.device or self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A job as far as caps count it; ``id`` is a UUIDv7, so ids sort by age."""

    id: str
    kind: str
    name: str
    """Of its server, for people."""
    device: str | None
    """Host of its server's BMC; None: it has none."""
    running: bool
    waits: bool
    """It could begin but for caps; its runner is there."""


@dataclass(frozen=True, slots=True)
class _Cap:
    most: int
    what: str
    counts: Callable[[Entry], bool]


def delayed(job: Entry, others: Iterable[Entry], caps: Caps) -> str | None:
    """Say which cap keeps a job from beginning and who is before it; None: it may begin.

    Jobs that wait are let in from the oldest on as long as all their caps have room; what is
    let in before ``job`` counts like what runs.
    """
    others = [other for other in others if other.id != job.id]
    inside = sorted((o for o in others if o.running), key=lambda o: o.id)
    older = [o for o in others if o.waits and not o.running and o.id < job.id]
    for other in sorted(older, key=lambda o: o.id):
        if _full(other, inside, caps) is None:
            inside.append(other)
    cap = _full(job, inside, caps)
    if cap is None:
        return None
    before = [o for o in inside if cap.counts(o)]
    first = next((o for o in before if o.running), before[0])
    why = "to end" if first.running else "which was ordered before"
    comma = "" if first.running else ","
    more = f" (and {len(before) - 1} more)" if len(before) > 1 else ""
    return (
        f"delayed: at most {cap.most} {cap.what}: waits for {first.kind} of"
        f" {first.name}{comma} {why}{more}"
    )


def _full(job: Entry, inside: list[Entry], caps: Caps) -> _Cap | None:
    """Return the first cap of a job that has no room, or None."""
    for cap in _caps_of(job, caps):
        if sum(cap.counts(other) for other in inside) >= cap.most:
            return cap
    return None


def _caps_of(job: Entry, caps: Caps) -> list[_Cap]:
    found: list[_Cap] = []
    device, kind = job.device, job.kind
    if caps.device and device is not None:
        what = f"at the device {device} at a time"
        found.append(_Cap(caps.device, what, lambda o: o.device == device))
    if most := caps.kinds.get(kind):
        what = f"of kind {kind} run in the site"
        found.append(_Cap(most, what, lambda o: o.kind == kind))
    if caps.site:
        found.append(_Cap(caps.site, "jobs run in the site", lambda _: True))
    return found


def parse_kinds(texts: Iterable[str], known: Iterable[str]) -> dict[str, int]:
    """Return the caps of ``server.deploy 4`` and the like; ValueError with one sentence."""
    kinds, found = sorted(known), dict[str, int]()
    for text in texts:
        kind, _, most = text.strip().partition(" ")
        if kind not in kinds:
            raise ValueError(f"there is no kind of job {kind!r}; known: {', '.join(kinds)}")
        if not most.strip().isdecimal() or not 0 < int(most) <= 10_000:
            raise ValueError(f"{text!r} must be a kind and a number from 1, as {kind} 4")
        if kind in found:
            raise ValueError(f"{kind} stands twice in kinds_max")
        found[kind] = int(most)
    return found
