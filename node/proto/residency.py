"""What this node shall fetch next, and from where: a pure decision over the rows it has.

It knows neither links nor disk. Rules: an asset crosses a site's uplink once (the rendezvous
owner takes it, the other nodes of the site take it from there); the first wanting site reads
the origin, every other site takes the chunks from nodes that hold them; the origin is asked
again, by the first site, only when nobody holds the whole asset: chunks that were lost
everywhere would be waited for in vain.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.rendezvous import owner

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Read the origin."""

    name: str
    url: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Take the asset from nodes that hold it."""

    name: str
    asset: str


@dataclass(frozen=True, slots=True)
class Holder:
    """A node's claim on an asset."""

    node: str
    site: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the decision rests on."""

    node: str
    site: str
    alive: Collection[str]
    """Nodes of our site that count, ourselves among them."""
    references: Mapping[str, Body]
    names: Mapping[str, Body]
    """Verified NAME bodies by name."""
    holders: Mapping[str, Collection[Holder]]
    """By asset id."""
    held: Collection[str]
    """Asset ids that are whole here."""
    wanted: Collection[str]
    """Names that local work needs now, whatever the references say."""


def decide(view: View) -> list[Resolve | Fetch]:
    """Return what should be on its way now, most wanted first."""
    orders: list[Resolve | Fetch] = []
    names = sorted(
        view.references.keys() | set(view.wanted), key=lambda n: (n not in view.wanted, n)
    )
    for name in names:
        if NAME_PATTERN.match(name) and (order := _one(view, name)) is not None:
            orders.append(order)
    return orders


def _one(view: View, name: str) -> Resolve | Fetch | None:
    reference = view.references.get(name, {})
    sites = [site for site in reference.get("want", []) if isinstance(site, str)]
    if view.site not in sites and name not in view.wanted:
        return None
    asset = view.names.get(name, {}).get("asset")
    ours = owner(view.alive, name) == view.node
    if not isinstance(asset, str) or not ASSET_PATTERN.match(asset):
        first = min(sites, default=view.site) if reference.get("want") else view.site
        return _resolve(reference, name, None) if ours and view.site == first else None
    if asset in view.held:
        return None
    others = [holder for holder in view.holders.get(asset, ()) if holder.node != view.node]
    if any(holder.whole and holder.site == view.site for holder in others):
        return Fetch(name, asset)
    if not ours:
        return None
    if any(holder.whole for holder in others):
        return Fetch(name, asset)
    origin = _resolve(reference, name, view.names[name].get("sha256"))
    if others and (origin is None or view.site != min(sites, default=view.site)):
        return Fetch(name, asset)
    return origin


def _resolve(reference: Body, name: str, sha256: str | None) -> Resolve | None:
    url = reference.get("url")
    declared = sha256 or reference.get("sha256")
    if not isinstance(url, str):
        return None
    return Resolve(name, url, declared if isinstance(declared, str) else None)


def fetch_from(holders: Iterable[Holder], view_site: str, node: str) -> list[str]:
    """Return whom to ask: nodes of our own site when one holds it whole, else all others."""
    others = [holder for holder in holders if holder.node != node]
    near = [holder.node for holder in others if holder.site == view_site and holder.whole]
    return near or [holder.node for holder in others]
