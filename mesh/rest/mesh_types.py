"""Resources about the mesh itself: members, links, how far behind, who sees whom.

Live data of whoever answers, never kept: each says as of when. Times are Unix milliseconds,
sizes bytes, round trips milliseconds; what is unknown is null.
"""

from typing import TypedDict


class MeshLink(TypedDict):
    """A link of the member that answers."""

    node: str
    name: str
    site: str  # "" for a hub
    role: str  # hub | node
    path: str  # tcp | websocket | udp | relay
    address: str
    dialled: bool  # by the member that answers
    since_ms: int
    round_trip_ms: float | None
    bytes_in: int  # since the link is up
    bytes_out: int
    in_per_s: float | None  # over the last seconds
    out_per_s: float | None
    synced_ms: int | None  # last completed anti-entropy


class MeshAway(TypedDict):
    """A member out of reach; it stays a member."""

    node: str
    name: str
    site: str
    role: str
    since_ms: int | None
    by: str  # site: its site's observers agree; here: it has no link to who answers


class MeshSite(TypedDict):
    """How fresh what is known of a site's members is."""

    site: str  # "" for hubs
    members: int
    linked: int
    away: int
    newest_ms: int | None  # stamp of the newest row known of any of them


class Mesh(TypedDict):
    """The mesh as one member sees it."""

    node: str
    name: str
    site: str
    role: str  # hub | node
    healthy: bool
    sentence: str
    gateways: list[str]  # of its own site; empty for a hub
    members: dict[str, int]  # by status
    links: list[MeshLink]
    away: list[MeshAway]
    sites: list[MeshSite]
    sets: int
    digests: dict[str, str]  # scope -> hex over the heads of its sets; equal: same content
    register: str  # hex digest of the signed records
    counters: dict[str, int]  # what links and replication counted since the start


class TopologyNode(TypedDict):
    """A member in the graph of links."""

    node: str
    name: str
    site: str
    role: str
    gateway: bool | None
    as_of_ms: int | None  # when it said what it sees; null: it was not heard
    part: int | None  # the part of the mesh it is in; null: not known


class TopologyEdge(TypedDict):
    """A link between two members, as at least one of them said."""

    a: str
    b: str
    path: str
    round_trip_ms: float | None
    said_by: int  # 1 or 2 of them


class TopologyPart(TypedDict):
    """Members that have links among each other and to nobody else: one halo."""

    number: int
    nodes: int
    sites: list[str]
    here: bool  # the part of the member that answers


class Topology(TypedDict):
    """Who has links with whom, from all that could be asked."""

    node: str
    asked: int
    answered: int
    nodes: list[TopologyNode]
    edges: list[TopologyEdge]
    parts: list[TopologyPart]
    unknown: list[str]  # active members of whom nobody asked sees a link
