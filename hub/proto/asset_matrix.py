"""Assets by sites, and what the uplinks were spared: from the asset resources of the API.

It knows no markup. Rules: every asset has a cell for every site, "absent" where nothing is
known; uplink saved is only what nodes of the same site gave each other (``near_bytes``): what
another site gave spared the origin, but crossed both uplinks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Body = Mapping[str, Any]

WORDS: Final[Mapping[str, str]] = {"verified": "held", "wanted": "wanted", "absent": "absent"}
"""Residency states that read otherwise than they are called; the rest stand as they are."""
TRUST: Final[Mapping[str, str]] = {
    "declared-sha256": "declared: the content has the SHA-256 that was given",
    "tofu": "tofu: trusted on first use, no SHA-256 was given",
    "upload": "upload: the content was given to this organisation's hub",
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that came from an origin, from other sites, and from the site's own nodes."""

    origin: int = 0
    far: int = 0
    near: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        """Return both together."""
        return Traffic(self.origin + other.origin, self.far + other.far, self.near + other.near)

    @property
    def saved_percent(self) -> int | None:
        """Return the share of all bytes that never crossed an uplink; None for no bytes."""
        total = self.origin + self.far + self.near
        return 100 * self.near // total if total else None


@dataclass(frozen=True, slots=True)
class Cell:
    """An asset at a site."""

    site: str
    state: str
    words: str
    percent: int | None
    wanted: bool
    error: str | None
    updated_ms: int | None
    traffic: Traffic
    checked_ms: int | None = None
    """When the site last heard the origin."""
    stale: str | None = None
    """Why it serves something else than the origin has, or may have."""


@dataclass(frozen=True, slots=True)
class Line:
    """An asset and its cells, in the order of the matrix's sites."""

    asset: Body
    cells: list[Cell]
    traffic: Traffic

    @property
    def held(self) -> int:
        """Return how many sites hold all of it."""
        return sum(cell.state == "verified" for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Matrix:
    """All assets, all sites, and the sums."""

    sites: list[str]
    lines: list[Line]
    by_site: dict[str, Traffic]
    traffic: Traffic


def matrix(assets: Sequence[Body], sites: Iterable[str]) -> Matrix:
    """Return the matrix of asset resources over the named sites and those that hold any."""
    names = sorted({*sites, *(at["site"] for asset in assets for at in asset["sites"])})
    lines: list[Line] = []
    by_site = {name: Traffic() for name in names}
    for asset in assets:
        known = {at["site"]: at for at in asset["sites"]}
        cells = [cell(known.get(name), name) for name in names]
        for one in cells:
            by_site[one.site] += one.traffic
        lines.append(Line(asset, cells, _sum(one.traffic for one in cells)))
    return Matrix(names, lines, by_site, _sum(by_site.values()))


def cell(residency: Body | None, site: str) -> Cell:
    """Return how an asset stands at a site, in words."""
    if residency is None:
        return Cell(site, "absent", "absent", None, False, None, None, Traffic())
    state, have, of = residency["state"], residency["have"], residency["of"]
    percent = min(100, 100 * have // of) if state == "fetching" and of else None
    words = WORDS.get(state, state) if percent is None else f"fetching {percent} %"
    near = residency.get("near_bytes") or 0
    traffic = Traffic(residency["origin_bytes"], max(0, residency["peer_bytes"] - near), near)
    return Cell(
        site, state, words, percent, residency["wanted"], residency["error"],
        residency["updated_ms"], traffic, residency.get("checked_ms"), residency.get("stale"),
    )  # fmt: skip


def here(asset: Body, site: str) -> Cell:
    """Return how one asset stands at one site."""
    return cell(next((at for at in asset["sites"] if at["site"] == site), None), site)


def _sum(parts: Iterable[Traffic]) -> Traffic:
    total = Traffic()
    for part in parts:
        total += part
    return total
