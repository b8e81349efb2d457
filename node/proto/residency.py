"""What this node shall fetch next, and from where: a pure decision over the rows it has.

It knows neither links nor disk. Rules: an asset crosses a site's uplink once (the rendezvous
owner reads the origin; of what nodes elsewhere hold, all nodes of the site take their shares at
the same time, and the rest from each other); what only a job here wants, and what the owner
fails to get, a node takes by itself; the first wanting site reads the origin, every other site
takes the chunks from nodes that hold them; the origin is asked again, by the first site, only
when nobody holds the whole asset: chunks that were lost everywhere would be waited for in vain.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.proto.beside import aside
from mesh.proto.content import IMAGE
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.references import kind_of, sites_of
from mesh.proto.rendezvous import owner, ranked

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Read the origin."""

    name: str
    url: str
    sha256: str | None
    """What the published file must hash to."""
    kind: str = IMAGE
    made_sha256: str | None = None
    """What must come out where the asset is made from the file (qcow2)."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Take the asset from nodes that hold it."""

    name: str
    asset: str
    sha256: str | None
    """What the hub signed that the whole of it hashes to."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Keep up with the node that reads the origin, to go on there when it dies."""

    name: str
    node: str
    sentence: str
    """What a job here waits for meanwhile."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do here before somebody else has done something."""

    sentence: str


Order = Resolve | Fetch | Follow


@dataclass(frozen=True, slots=True)
class Holder:
    """A node's claim on an asset; ``site`` is where the roster says that the node is."""

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
    site_nodes: Collection[str] = ()
    """Nodes that the roster has at our site, alive or not."""
    references: Mapping[str, Body]
    names: Mapping[str, Body]
    """Verified NAME bodies by name."""
    holders: Mapping[str, Collection[Holder]]
    """By asset id."""
    held: Collection[str]
    """Asset ids that are whole here."""
    wanted: Collection[str]
    """Names that local work needs now, whatever the references say."""
    claimed: Mapping[str, str]
    """SHA-256 as published by name, of what this node has read and told the hubs."""
    failed: Collection[tuple[str, str]]
    """(node, name) of our site: that node says that it cannot get the name now."""
    reading: Collection[tuple[str, str]] = ()
    """(node, name) of our site: that node says that the name is on its way to it."""
    begun: Collection[tuple[str, str]] = ()
    """(name, asset) that local work began with, whatever the name stands for now."""


def decide(view: View) -> list[Order]:
    """Return what should be on its way now, most wanted first."""
    orders: list[Order] = []
    names = sorted(
        view.references.keys() | set(view.wanted), key=lambda n: (n not in view.wanted, n)
    )
    for name in names:
        order = _one(view, name) if NAME_PATTERN.match(name) else None
        if isinstance(order, Order):
            orders.append(order)
    for name, asset in sorted(view.begun):
        held = asset in view.held or view.names.get(name, {}).get("asset") in (None, asset)
        if not held and any(holder.whole for holder in view.holders.get(asset, ())):
            orders.insert(0, Fetch(aside(name, asset), asset, None))
    return orders


def waits_for(view: View, name: str) -> str | None:
    """Return what a wanted name waits for before it can be on its way here, for people."""
    found = _one(view, name)
    return found.sentence if isinstance(found, Wait | Follow) else None


def _one(view: View, name: str) -> Order | Wait | None:
    reference = view.references.get(name, {})
    sites = sites_of(reference)
    local = name in view.wanted
    if view.site not in sites and not local:
        return None
    asset = view.names.get(name, {}).get("asset")
    keeper = owner(view.alive, name)
    # The owner takes what the site wants; of what only a job here wants, it does not know.
    unhelped = view.site not in sites or (keeper, name) in view.failed
    ours = keeper == view.node or (local and unhelped)
    if not isinstance(asset, str) or not ASSET_PATTERN.match(asset):
        return _unnamed(view, name, keeper, ours)
    if asset in view.held:
        return None
    others = [holder for holder in view.holders.get(asset, ()) if holder.node != view.node]
    shared = view.site in sites
    if any(h.whole and (shared or h.site == view.site) for h in others):
        return Fetch(name, asset, _text(view.names[name].get("sha256")))
    if not ours:
        sentence = f"waits for node {keeper} of this site, which takes {name} first"
        return _follow(view, name, keeper, sentence)
    origin = _resolve(reference, name, view.names[name])
    first = view.site == min(sites, default=view.site)
    if any(holder.whole for holder in others) or (others and (origin is None or not first)):
        return Fetch(name, asset, _text(view.names[name].get("sha256")))
    return origin or Wait(f"waits for a node that holds {name}")


def _follow(view: View, name: str, keeper: str | None, sentence: str) -> Follow | Wait:
    """Wait for the keeper; the next in rank keeps up with it meanwhile."""
    heirs = [node for node in ranked(view.alive, name) if node != keeper]
    wanted = view.site in sites_of(view.references.get(name, {}))
    if wanted and heirs[:1] == [view.node] and (keeper, name) in view.reading:
        return Follow(name, str(keeper), sentence)
    return Wait(sentence)


def _unnamed(view: View, name: str, keeper: str | None, ours: bool) -> Resolve | Follow | Wait:
    """What no hub has signed yet: somebody must read it once and say what it is."""
    reference = view.references.get(name)
    if reference is None:
        return Wait(f"waits for a hub to tell what {name} is")
    declared = reference.get("sha256")
    claimed = view.claimed.get(name)
    if claimed is not None and declared in (None, claimed):
        return Wait(f"waits for a hub to sign the name {name}")
    first = min(sites_of(reference), default=view.site)
    if first != view.site:
        return Wait(f"waits for site {first} to read the origin of {name}")
    if not ours:
        sentence = f"waits for node {keeper} of this site to read the origin of {name}"
        return _follow(view, name, keeper, sentence)
    return _resolve(reference, name, {}) or Wait(f"waits for {name} to be uploaded to a hub")


def _resolve(reference: Body, name: str, signed: Body) -> Resolve | None:
    """Return how to read the origin; ``signed`` is empty while nobody has signed the name."""
    url, source = reference.get("url"), _text(signed.get("source_sha256"))
    if not isinstance(url, str):
        return None
    declared = source or _text(signed.get("sha256")) or _text(reference.get("sha256"))
    made = _text(signed.get("sha256")) if source else None
    return Resolve(name, url, declared, kind_of(reference), made)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Sharing:
    """From whom an asset is taken, and with whom that is shared (cache.api.Members)."""

    sources: tuple[str, ...]
    fellows: tuple[str, ...]
    ring: tuple[str, ...]


def sharing(view: View, name: str, asset: str) -> Sharing:
    """Return who takes part in the fetch of an asset.

    Sources: nodes of our own site that hold it whole, else nodes elsewhere that do, else all
    that hold a part.
    """
    others = [h for h in view.holders.get(asset, ()) if h.node != view.node]
    whole = [h for h in others if h.whole]
    near = [h.node for h in whole if h.site == view.site]
    sources = near or [h.node for h in whole] or [h.node for h in others]
    fellows = ring = [view.node]
    if view.site in sites_of(view.references.get(name, {})):
        ring = ranked({*view.site_nodes, *view.alive, view.node}, asset)
        can = {n for n in view.alive if (n, name) not in view.failed} - set(near)
        fellows = [n for n in ring if n in can or n == view.node]
    return Sharing(tuple(sorted(sources)), tuple(fellows), tuple(ring))
