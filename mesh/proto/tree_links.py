"""Which of a member's links are in the tree, and which of those are eager.

It knows no message. Rules: in a site the first gateway that is linked is the centre of a star,
whose links are always eager; the other gateways stand aside (lazy); between sites and towards
hubs a link is in the tree when either side wants it, begins as eager, and is pruned or grafted
by what comes over it, for both directions at once; all others are silent. Every link that takes
part says so first, so a peer of an older release is never sent anything.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from mesh.proto.broadcast_ports import Place
from mesh.proto.sets import SetId

PRUNE_AFTER: Final = 3
"""Duplicates on one link until it is pruned; fewer are crossing, or somebody's detour."""
EAGER_MIN: Final = 2
"""Eager links that a lone gateway keeps to other sites; one less with others in the site."""
EAGER_MAX: Final = 16
"""Eager links outside the site; who grafts beyond it gets what it asked for and no more."""
HUB_FIRST: Final = 2
"""Links to nodes that a hub begins with as eager ones; nodes graft what they need."""

Role = Literal["star", "aside", "tree", "silent"]


@dataclass(slots=True)
class TreeLink:
    """What we know of one link."""

    role: Role = "silent"
    eager: bool = False
    here: bool = False
    wants_tree: bool = False
    said_tree: bool | None = None
    duplicates: int = 0
    grafts: int = 0
    told: dict[SetId, tuple[int, int]] = field(default_factory=dict)
    """What the peer is still to be told of, at ``tell_at``."""
    tell_at: float | None = None
    serving: bool = False
    garbage: int = 0
    strikes: int = 0


class TreeLinks:
    """The links of one member."""

    def __init__(self, me: str, place: Place) -> None:
        self.all: dict[str, TreeLink] = {}
        self._me, self._place = me, place

    def here(self, name: str) -> bool:
        """Tell whether a peer takes part."""
        link = self.all.get(name)
        return link is not None and link.here

    def unwanted(self, name: str) -> bool:
        """Tell whether a link to another site is of no use to either side's tree."""
        link, theirs = self.all[name], self._place.site_of(name)
        return (
            link.here
            and bool(theirs)
            and link.role == "silent"
            and (theirs != self._place.site_of(self._me))
        )

    def look(self) -> list[tuple[str, bool]]:
        """See which link is what; return whom to tell if we want its link in the tree."""
        site = self._place.site_of(self._me)
        gateways = self._place.gateways(site) if site else []
        linked = [node for node in gateways if node == self._me or self.here(node)]
        centre = linked[0] if linked else None
        said: list[tuple[str, bool]] = []
        for name, link in self.all.items():
            tree = self._wants_tree(name, site, centre)
            if link.said_tree != tree:
                link.said_tree = tree
                said.append((name, tree))
            role = self._role(name, link, site, linked)
            if role != link.role:
                link.role, link.duplicates = role, 0
                link.eager = role == "star" or (role == "tree" and self._begins_eager(name))
        return said

    def _wants_tree(self, name: str, site: str | None, centre: str | None) -> bool:
        """Tell whether we want a link in the tree between sites and hubs."""
        theirs = self._place.site_of(name)
        if theirs is None or site is None or (site and theirs == site):
            return False
        if not theirs:  # a hub: gateways keep it in, and whoever has no gateway to turn to
            return not site or self._place.is_gateway or centre is None
        return bool(site) and self._place.is_gateway and name in self._place.wanted()

    def _role(self, name: str, link: TreeLink, site: str | None, linked: list[str]) -> Role:
        if not link.here:
            return "silent"
        if site and self._place.site_of(name) == site:
            if linked and linked[0] in (self._me, name):
                return "star"
            return "aside" if self._me in linked or name in linked else "silent"
        return "tree" if link.said_tree or link.wants_tree else "silent"

    def _begins_eager(self, name: str) -> bool:
        hub_to_node = not self._place.site_of(self._me) and self._place.site_of(name)
        return self._eager_outside() < (HUB_FIRST if hub_to_node else EAGER_MAX)

    def _eager_outside(self) -> int:
        return sum(link.eager for link in self.all.values() if link.role == "tree")

    def fed(self, name: str) -> None:
        """Something new came over a link: if it is the star's, nobody has to stand in."""
        if self.all[name].role == "star":
            for link in self.all.values():
                link.grafts = 0

    def asks(self, name: str) -> bool:
        """We ask a peer for what did not come: tell whether to keep its link from now on.

        In a site that is so from the second time on: the first is mostly a lost packet.
        """
        link = self.all[name]
        link.grafts += 1
        keep = link.role != "aside" or link.grafts > 1
        if keep:
            self.graft(name)
        return keep

    def graft(self, name: str) -> None:
        """Make a link eager, as far as there is room."""
        link = self.all[name]
        room = link.role != "tree" or link.eager or self._eager_outside() < EAGER_MAX
        if link.role != "silent" and room:
            link.eager, link.duplicates = True, 0

    def prune(self, name: str) -> None:
        """The peer has what we push already."""
        link = self.all[name]
        link.eager = link.role == "star"

    def duplicate(self, name: str, count: int) -> bool:
        """Count duplicates that came over a link; tell whether it is to be pruned now."""
        link = self.all.get(name)
        if link is None or not count or link.role == "star":
            return False
        link.duplicates += count
        if link.duplicates < PRUNE_AFTER:
            return False
        if link.role == "tree" and link.eager and self._eager_outside() <= self._least():
            return False
        link.duplicates, link.eager = 0, False
        return True

    def _least(self) -> int:
        """Return how many links outside stay eager: two for a site as a whole."""
        in_star = any(link.role == "star" for link in self.all.values())
        return EAGER_MIN - 1 if in_star else EAGER_MIN
