"""What REFERENCE rows say: which names there are, of what kind, and which sites want them.

It knows rows' bodies, no store. Rules: a name that was taken away is not there; the members of
a live system are references of their own, and who wants it wants them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto.content import IMAGE, KINDS, LIVE
from mesh.proto.ids import NAME_PATTERN

Body = Mapping[str, Any]

MEMBERS_MAX: Final = 8
CMDLINE_CHARS_MAX: Final = 1024
KERNEL: Final = "kernel"
INITRD: Final = "initrd"
PERIOD_MS: Final = 24 * 3600 * 1000
PERIOD_MS_MIN: Final = 3600 * 1000
PERIOD_MS_MAX: Final = 365 * PERIOD_MS
ROLES: Final = (KERNEL, INITRD)


class RowLike(Protocol):
    """What a row of the mesh store looks like from here."""

    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def body(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a live system: what it is for, and the reference that it is."""

    role: str
    name: str


def kind_of(body: Body) -> str:
    """Return the kind of a reference; rows of old hubs have none and mean raw images."""
    kind = body.get("kind")
    return kind if kind in KINDS else IMAGE


def members_of(body: Body) -> list[Member]:
    """Return the members of a live system, the kernel first; none for every other kind."""
    listed = body.get("members")
    if kind_of(body) != LIVE or not isinstance(listed, list):
        return []
    found = [
        Member(item["role"], item["name"])
        for item in listed[:MEMBERS_MAX]
        if isinstance(item, Mapping)
        and item.get("role") in ROLES
        and isinstance(item.get("name"), str)
        and NAME_PATTERN.match(item["name"])
    ]
    return sorted(found, key=lambda member: member.role != KERNEL)


def sites_of(body: Body) -> list[str]:
    """Return the sites that a reference's own row says want it."""
    return _sites(body, "want")


def pinned_at(body: Body) -> list[str]:
    """Return the sites where a reference's content stays whoever wants it."""
    return _sites(body, "pin")


def period_of(body: Body) -> int | None:
    """Return how often a site asks a reference's origin, ms; None: never."""
    period_ms = body.get("revalidate_ms")
    if not isinstance(period_ms, int) or isinstance(period_ms, bool) or period_ms < 0:
        return PERIOD_MS
    return max(PERIOD_MS_MIN, min(period_ms, PERIOD_MS_MAX)) if period_ms else None


def _sites(body: Body, field: str) -> list[str]:
    sites = body.get(field)
    return [site for site in sites if isinstance(site, str)] if isinstance(sites, list) else []


def in_force(rows: Iterable[RowLike]) -> dict[str, dict[str, Any]]:
    """Return the bodies of all references that are there, by name.

    ``want`` and ``pin`` of each name every site that wants it or where it stays, also for what
    it is a member of.
    """
    found = {row.key: dict(row.body) for row in rows if not row.body.get("removed_ms")}
    for body in list(found.values()):
        for member in members_of(body):
            part = found.get(member.name)
            if part is not None:
                part["want"] = sorted({*sites_of(part), *sites_of(body)})
                part["pin"] = sorted({*pinned_at(part), *pinned_at(body)})
    return found


def parents(references: Mapping[str, Body], name: str) -> list[str]:
    """Return the live systems that a reference is a member of."""
    return sorted(
        key
        for key, body in references.items()
        if any(member.name == name for member in members_of(body))
    )


def why_no_cmdline(text: str) -> str | None:
    """Say why a text cannot be a kernel's command line in a boot script, or None.

    iPXE expands ``${...}`` and ends a command at ``||`` and ``&&``: no row may make it do so.
    """
    if len(text) > CMDLINE_CHARS_MAX:
        return f"the command line is longer than {CMDLINE_CHARS_MAX} characters"
    if not text.isascii() or not text.isprintable():
        return "the command line holds something else than printable ASCII"
    if "${" in text or {"||", "&&"} & set(text.split(" ")):
        return "the command line holds ${, || or &&, which a boot script would act on"
    return None
