"""Which scopes a member may author in, and keeps a copy of, by its roster record alone.

It knows no register. Rules (ARCHITECTURE section 4): everybody has the fleet's; hubs have all;
a node has its site's and what is sealed to it.
"""

from mesh.proto import tables
from mesh.proto.ids import NODE_ID_PATTERN
from mesh.proto.trust import ROLE_HUB, ROLE_NODE, ROLE_SITE_OPERATOR, RosterRecord


def is_site_node(roles: frozenset[str]) -> bool:
    """Tell whether a member works at its site."""
    return bool(roles & {ROLE_NODE, ROLE_SITE_OPERATOR})


def allowed(node_id: str, roster: RosterRecord, scope: str) -> bool:
    """Tell whether the scope rules let an active member author in, and carry, a scope."""
    is_hub = ROLE_HUB in roster.roles
    if scope == tables.FLEET:
        return True
    if scope == tables.HUBS:
        return is_hub
    kind, mark, name = scope.partition(":")
    if kind == "site" and mark:
        return is_hub or (bool(name) and roster.site == name and is_site_node(roster.roles))
    if kind == "pair" and mark and NODE_ID_PATTERN.match(name):
        return is_hub or node_id == name
    return False
