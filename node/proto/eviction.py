"""Which assets of this node may go when its disk is short: a pure function of what is known.

It knows no disk. Rules: what this site wants, what is pinned here, what local work waits for
and what a job of the site names stays; the last whole copy stays while any site wants it or no
origin gives it again; content that no name stands for any more goes first, then the oldest.
"""

from collections.abc import Collection, Sequence

from mesh.proto.beside import is_next, next_of
from mesh.proto.references import pinned_at, sites_of
from node.proto.residency import View


def evictable(
    view: View, shelf: Sequence[tuple[str, str]], in_use: Collection[str]
) -> list[str]:
    """Return what may go, the first one first.

    ``shelf``: (asset, name it came under) of what is whole here, the oldest first; ``in_use``:
    assets that jobs of the site work with.
    """
    found: list[tuple[bool, str]] = []
    for asset, came_as in shelf:
        names = {name for name, body in view.names.items() if body.get("asset") == asset}
        if is_next(came_as) or came_as not in view.names:
            names.add(came_as.removesuffix(next_of("")))  # found by us, not signed yet
        if asset in in_use or not names.isdisjoint(view.wanted):
            continue
        references = [view.references[name] for name in names if name in view.references]
        wanting = {site for body in references for site in sites_of(body)}
        if view.site in wanting or any(view.site in pinned_at(body) for body in references):
            continue
        elsewhere = any(
            holder.whole and holder.node != view.node for holder in view.holders.get(asset, ())
        )
        needed = bool(wanting) or any(not body.get("url") for body in references)
        if elsewhere or not needed:
            found.append((bool(references), asset))
    return [asset for _, asset in sorted(found, key=lambda item: item[0])]
