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
PRUNE_EACH_S: Final = 0.7
"""Then others are left alone for so long: the same circle may be cut already."""
EAGER_MIN: Final = 2
"""Eager links that a lone gateway keeps to other sites; one less with others in the site."""
EAGER_MAX: Final = 16
"""Eager links outside the site; who grafts beyond it gets what it asked for and no more."""
FLOW_S: Final = 1.0
FLOW_PARTS: Final = 10
"""So much news in FLOW_S is a flow."""
LATE_S: Final = 0.2
"""What was asked for in a flow and comes by itself does so in this time: a packet was lost."""
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
    asked_at: float | None = None
    """Since when we ask the peer for what does not come by itself."""
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
        self._prune_at = 0.0
        self._fed_by_star = False
        self._flow = self._flow_before = 0
        self._flow_at = 0.0

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
        self._fed_by_star = centre not in (None, self._me)
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

    def fed(self, parts: int, now: float) -> None:
        """So much that is new came by itself."""
        if now >= self._flow_at + FLOW_S:
            self._flow_before = self._flow if now < self._flow_at + 2 * FLOW_S else 0
            self._flow, self._flow_at = 0, now
        self._flow += parts

    def in_flow(self, now: float) -> bool:
        """Tell whether news come one after the other, so that a lost packet delays many."""
        recent = now < self._flow_at + 2 * FLOW_S
        return recent and max(self._flow, self._flow_before) >= FLOW_PARTS

    def asks_second(self, now: float) -> bool:
        """Tell whether, in a flow, another gateway of our site asks first, and passes it on."""
        return self._fed_by_star and self.in_flow(now)

    def asks(self, name: str, now: float) -> bool:
        """We ask a peer for what did not come: tell whether to keep its link from now on.

        In a flow what we ask for is mostly late, not lost, and an eager link would bring all of
        it twice until it is pruned again. So there the link is kept when what we first asked
        for has not come by itself after ``LATE_S``, and by one gateway of a site only.
        """
        link = self.all[name]
        if link.asked_at is None:
            link.asked_at = now
        if link.role == "aside":
            keep = now >= link.asked_at + LATE_S
        else:
            late = now >= link.asked_at + LATE_S
            keep = not self.in_flow(now) or (late and not self._fed_by_star)
        if keep:
            self.graft(name)
        return keep

    def was_late(self, name: str, other: str) -> None:
        """What we asked a peer for has come by another link too: that one lives.

        What comes over the star tells nothing of other sites: who passed it on has asked too.
        """
        link = self.all.get(name)
        if link is not None and (link.role == "aside" or self.all[other].role == "tree"):
            link.asked_at = None

    def graft(self, name: str) -> None:
        """Make a link eager, as far as there is room."""
        link = self.all[name]
        room = link.role != "tree" or link.eager or self._eager_outside() < EAGER_MAX
        if link.role != "silent" and room:
            link.eager, link.duplicates, link.asked_at = True, 0, None

    def prune(self, name: str) -> None:
        """The peer has what we push already."""
        link = self.all[name]
        link.eager = link.role == "star"

    def duplicate(self, name: str, count: int, now: float) -> bool:
        """Count duplicates that came over a link; tell whether it is to be pruned now."""
        link = self.all.get(name)
        if link is None or not count or link.role == "star":
            return False
        link.duplicates += count
        if link.duplicates < PRUNE_AFTER or now < self._prune_at:
            return False
        if link.role == "tree" and link.eager and self._eager_outside() <= self._least():
            return False
        link.duplicates, link.eager = 0, False
        self._prune_at = now + PRUNE_EACH_S
        return True

    def _least(self) -> int:
        """Return how many links outside stay eager: two for a site as a whole."""
        in_star = any(link.role == "star" for link in self.all.values())
        return EAGER_MIN - 1 if in_star else EAGER_MIN
