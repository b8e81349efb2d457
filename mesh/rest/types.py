"""Resources of ``/api/v1`` as they stand in JSON; hub and node serve the same shapes.

Times are Unix milliseconds (``_ms``), sizes bytes; what is unknown is null, never false. Lists
come as ``{"schema": "rackmesh/<noun>/1", "as_of_ms": ..., "items": [...]}``, a resource as
``{"schema": ..., "as_of_ms": ..., "item": {...}}``, errors as RFC 9457 problem documents.
"""

from typing import Any, TypedDict


class Problem(TypedDict, total=False):
    """An error for people and programs (RFC 9457, application/problem+json)."""

    type: str  # "about:blank"
    title: str
    status: int
    code: str  # stable word: not-found, conflict, denied, bad-request, unreachable, ...
    detail: str  # one sentence with the offending value and what would be right
    hint: str  # what to do next, where that is known


class Version(TypedDict):
    """Which program answers."""

    build: str
    role: str  # hub | node
    api: int


class Site(TypedDict):
    """A site and how it fares."""

    name: str
    region: str | None
    nodes: int
    nodes_reachable: int
    servers: int
    server_states: dict[str, int]  # state -> how many servers
    pending: int  # machines that wait to be accepted, without those put aside
    jobs_running: int
    last_contact_ms: int | None


class Node(TypedDict):
    """A member with role node or hub."""

    id: str
    name: str
    site: str
    roles: list[str]
    status: str  # member | suspended | left | revoked
    reachable: bool | None  # None: this program cannot know
    last_contact_ms: int | None
    build: str | None
    services: list[str]
    boot_url: str | None
    addresses: list[str]  # "host:port" of the mesh, best first
    started_ms: int | None  # of the running program
    key_epoch: int  # of its encryption key: how often that was changed
    relays: bool  # whether it may splice links of others
    linked_ms: int | None  # since when it has a link to who answers
    link_address: str | None  # where that link comes from


class Server(TypedDict):
    """A managed server."""

    id: str
    name: str
    site: str
    state: str
    state_text: str  # for people: "available (never cleaned)"
    cleaned: bool
    hold: bool
    administration: str  # managed | monitored: never powered, booted or wiped
    tags: list[str]
    serial: str | None
    macs: list[str]
    ip: str | None
    bmc: str | None  # URL
    bmc_secret: str | None  # id of the secret with its login
    boot_by: str | None  # network | media; none without a BMC
    image: str | None
    hostname: str | None
    job: str | None
    error: str | None
    summary: str | None
    changed_ms: int | None


class Inventory(TypedDict):
    """What the ramdisk found in a server, when it last ran there."""

    server: str | None  # id; None: the machine is not accepted
    mac: str  # of the interface it booted from
    summary: str | None
    seen_ms: int | None
    hardware: dict[str, Any]  # shape: node/ramdisk/inventory.py


class Pending(TypedDict):
    """A machine that was seen and not accepted."""

    mac: str
    site: str
    ip: str | None
    arch: str | None
    uuid: str | None
    serial: str | None
    vendor: str | None
    model: str | None
    port: str | None  # where it is plugged in, as the DHCP relay says (option 82)
    summary: str | None
    where: str
    first_ms: int
    last_ms: int
    seen_by: list[str]
    conflict: str | None  # why it cannot be what it says: a server has its serial number
    rejected: bool  # put aside by an operator; nothing was written to the machine
    rejected_by: str | None
    rejected_ms: int | None


class Step(TypedDict):
    """A step of a job."""

    id: str
    after: list[str]  # ids of the steps that must have ended before
    may_skip: bool  # whether a person may skip it once it failed
    name: str
    kind: str
    state: str
    done: int | None
    total: int | None
    unit: str | None
    started_ms: int | None
    ended_ms: int | None
    solo: bool
    error: str | None
    attempts: int  # how often it was begun
    evidence: dict[str, Any]


class Job(TypedDict):
    """A job and its steps."""

    id: str
    kind: str
    site: str
    server: str | None
    server_name: str | None
    state: str
    waits_for: str | None
    author: str | None
    runner: str | None
    group: str | None  # of the orders that were given together
    held: bool  # no next step begins until a person takes the hold off
    archived: bool  # out of the lists; it has ended
    attempt: int
    created_ms: int | None
    started_ms: int | None
    ended_ms: int | None
    not_after_ms: int | None  # when the order runs out unless its work has begun
    error: str | None
    params: dict[str, Any]  # what was ordered, without user-data: that may hold secrets
    steps: list[Step]


class LogLine(TypedDict):
    """A line of a job's log."""

    seq: int
    at_ms: int
    text: str


class Residency(TypedDict):
    """An asset at a site: the best of its nodes, and the bytes all of them took."""

    site: str
    wanted: bool
    pinned: bool  # what is there stays, wanted or not
    state: str  # absent | wanted | fetching | verified | corrupt | failed
    have: int
    of: int
    origin_bytes: int
    peer_bytes: int
    near_bytes: int  # of peer_bytes, from nodes of the site itself: uplink saved
    error: str | None
    updated_ms: int | None
    checked_ms: int | None  # when the origin last said that it has this, or something else
    stale: str | None  # why the site serves something else than the origin has, or may have


class AssetMember(TypedDict):
    """A file of a live system: a reference of its own."""

    role: str  # kernel | initrd
    name: str
    asset: str | None


class Asset(TypedDict):
    """A reference and, once known, the asset behind it."""

    name: str
    kind: str  # image | qcow2 | live | iso | file
    url: str | None
    asset: str | None  # a live system has none: its members have
    size: int | None
    sha256: str | None  # of the asset: what machines get
    declared_sha256: str | None  # what the operator said that the published file hashes to
    source_sha256: str | None  # of the published file, where the asset is made from it (qcow2)
    trust: str | None  # why its name was signed: declared-sha256 | tofu | upload
    cmdline: str | None  # of a live system
    members: list[AssetMember]  # of a live system, the kernel first
    revalidate_s: int | None  # how often a site asks the origin; 0: never; null: has none
    created_ms: int | None
    sites: list[Residency]


class AssetNamed(TypedDict):
    """An asset that was uploaded, cloned or taken away."""

    name: str


class AssetDeclared(TypedDict):
    """A reference as it was asked for."""

    name: str
    kind: str | None  # null: as it was, at first a raw image
    url: str | None
    sha256: str | None
    want: list[str]


class AssetWanted(TypedDict):
    """An asset and the site that shall hold it from now on."""

    name: str
    want: list[str]


class Token(TypedDict):
    """A join token without its secret."""

    id: str
    site: str
    roles: list[str]
    state: str  # open | used | expired | revoked
    created_ms: int
    expires_ms: int
    used_by: str | None  # id of the node that joined with it
    used_ms: int | None
    contacted_ms: int | None  # when somebody last came with it; since the hub's start
    refused: str | None  # why the last who came with it was refused; since the hub's start
    refused_ms: int | None


class NewToken(Token):
    """A token just made, with its text, which is shown this once."""

    token: str


class Hub(TypedDict):
    """A hub of the organisation."""

    id: str
    name: str
    region: str
    urls: list[str]
    state: str  # named | waits | silent (said no keys yet) | suspended | left | revoked
    keys: list[str]  # public: membership, orders, assets
    record: str | None  # base64; its keys as it signed them


class Region(TypedDict):
    """Who signs orders for a region."""

    region: str
    epoch: int
    keys: list[str]


class Trust(TypedDict):
    """What the root says: which keys play which role."""

    version: int
    root_fingerprint: str
    document: str  # base64; as the root signed it
    membership: list[str]
    assets: list[str]
    regions: list[Region]


class Account(TypedDict):
    """A person who may sign in at the organisation's hubs."""

    name: str
    role: str  # viewer | operator | admin
    disabled: bool
    created_ms: int
    changed_ms: int


class ApiToken(TypedDict):
    """A program's token without its secret."""

    id: str
    name: str
    role: str
    state: str  # active | expired | revoked
    created_ms: int
    created_by: str
    expires_ms: int | None  # None: never
    last_used_ms: int | None  # at this hub, by the hour


class NewApiToken(ApiToken):
    """A program's token just made, with its text, which is shown this once."""

    token: str


class Secret(TypedDict):
    """A secret without its value."""

    id: str
    kind: str
    site: str
    version: int
    released: list[str]  # node ids that could ever read it
    changed_ms: int
    retired_ms: int | None  # since when it opens nothing: a server.password job changed it


class GroupWait(TypedDict):
    """What some jobs of a group wait for."""

    waits_for: str
    jobs: int
    servers: list[str]  # names, the first ten


class Group(TypedDict):
    """Orders that were given together, told from their jobs."""

    id: str
    kind: str
    author: str | None
    sites: list[str]
    state: str  # waiting | running | parked | succeeded | failed | cancelled
    total: int
    over: int  # jobs that have ended
    states: dict[str, int]  # jobs by state
    error: str | None  # the first one, with its server
    waits: list[GroupWait]
    created_ms: int | None
    ended_ms: int | None


class GroupOrder(TypedDict):
    """An order of a new group."""

    order: str
    job: str
    site: str
    server: str | None
    server_name: str | None


class GroupRefused(TypedDict):
    """A server that got no order, and why."""

    server: str
    server_name: str
    detail: str


class GroupAccepted(TypedDict):
    """Answer to ``POST /groups``."""

    group: str
    kind: str
    destructive: int  # orders that lose data; a site begins few of them an hour
    orders: list[GroupOrder]
    refused: list[GroupRefused]


class GroupVerb(TypedDict):
    """Answer to a cancel or retry of a group: the jobs that it goes to."""

    group: str
    kind: str
    jobs: list[str]


class OrderAccepted(TypedDict):
    """Answer to ``POST /orders``: the job carries the order's id."""

    order: str
    job: str
    site: str
    server: str | None


class Status(TypedDict):
    """First thing an operator asks: how is it?"""

    role: str  # hub | node
    name: str
    node: str
    site: str | None
    healthy: bool
    sentence: str
    problems: list[str]
    build: str
    started_ms: int
    root_fingerprint: str
    peers: list[dict[str, Any]]
    services: dict[str, Any]


class Holdings(TypedDict):
    """What a member holds; where digests are equal, everything is."""

    register: str
    scopes: dict[str, str]


class Event(TypedDict):
    """What changed: read that resource again."""

    kind: str
    id: str
    site: str


class RestoredRow(TypedDict):
    """A row that this hub had written after its backup and got back from another member."""

    at_ms: int
    site: str  # "" for what is not about one site
    table: str  # order, token, account, ...
    key: str
    what: str


class AssetLeftOut(TypedDict):
    """Uploaded content that is not inside a backup."""

    name: str
    asset: str
    size: int | None
    sites: list[str]  # that hold it


class RestoreReport(TypedDict):
    """What a restore brought back, and what nobody can account for.

    What this hub wrote between ``lost_from_ms`` and ``lost_until_ms`` and that reached no other
    machine is lost; sites that were not met may still hold rows of that time.
    """

    state: str  # waits | went on
    forced: bool
    backup_ms: int | None  # None: there was no backup, the database was lost
    restored_ms: int
    went_on_ms: int | None
    waits_for: list[str]
    got_back: list[RestoredRow]
    got_back_more: int
    orders_got_back: int
    sites_not_met: list[str]
    lost_from_ms: int | None
    lost_until_ms: int
    jobs_without_order: list[str]
    assets_not_inside: list[AssetLeftOut]


class Session(TypedDict):
    """Who asks."""

    account: str
    via: str  # session | token | socket
    role: str
    csrf: str | None


class SignedIn(TypedDict):
    """A session that began; ``csrf`` goes into the header X-CSRF-Token of every write."""

    account: str
    role: str
    csrf: str
    until_ms: int
