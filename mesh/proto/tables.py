"""What stands in the replicated sets: the tables, their scopes, their keys and their fields.

Bodies are msgpack maps. Every field is optional on the wire (``total=False``): a reader
defaults what is missing, keeps what it does not know and passes it on (ARCHITECTURE section 4,
Schema). Times are Unix milliseconds (``_ms``), sizes are bytes, MAC addresses are lower case
with colons.

A *merged* table shows, per key, the row that is highest by (hlc, author); a *per author* table
is read author by author and never merged.
"""

from typing import Any, Final, Literal, TypedDict

FLEET: Final = "fleet"
HUBS: Final = "hubs"


def site_scope(site: str) -> str:
    """Scope of everything about one site; its nodes and the hubs carry it."""
    return f"site:{site}"


def pair_scope(node_id: str) -> str:
    """Scope that only its author and this one node carry."""
    return f"pair:{node_id}"


# -- fleet ---------------------------------------------------------------------------------

NODE: Final = "node"  # per author; key = node id of the author
SITE: Final = "site"  # merged; key = site name; written by hubs
REFERENCE: Final = "reference"  # merged; key = reference name; written by hubs
NAME: Final = "name"  # merged; key = reference name; written by hubs
TEMPLATE: Final = "template"  # merged; key = template name; written by hubs
HOOK: Final = "hook"  # merged; key = hook name; written by hubs
ASSET: Final = "asset"  # per author; key = reference name; by the node that read it
PRESENCE: Final = "presence"  # per author; key = asset id
CHECK: Final = "check"  # per author; key = reference name; by the node that asked its origin

# -- site:<name> ---------------------------------------------------------------------------

SIGHTING: Final = "sighting"  # per author; key = MAC
BMC_SIGHTING: Final = "bmc_sighting"  # per author; key = URL of the BMC
SERVER: Final = "server"  # merged; key = server id
INVENTORY: Final = "inventory"  # merged; key = MAC of the boot interface
BINDING: Final = "binding"  # merged; key = MAC
SUBNET: Final = "subnet"  # merged; key = CIDR
ORDER: Final = "order"  # merged; key = order id
JOB: Final = "job"  # merged; key = job id (= id of its order)
VERDICT: Final = "verdict"  # merged; key = MAC of a machine that is not accepted
CLEANUP: Final = "cleanup"  # merged; key = "site" or server id; written by operators
ERASE_RECORD: Final = "erase_record"  # merged; key = record id; never swept
PORT_LOCK: Final = "port_lock"  # merged; key = server id; written by operators
SITE_SECRET: Final = "site_secret"  # per author; key = "<member node id>/<epoch>"
BUDGET: Final = "budget"  # per author; key = order id; destructive work begun
NODE_SECRET: Final = "node_secret"  # per author; key = id of a secret that the author can open
SECRET_COPY: Final = "secret_copy"  # per author; key = "<node id>/<secret id>", sealed to it

# -- pair:<node> ---------------------------------------------------------------------------

SECRET: Final = "secret"  # merged; key = secret id; HPKE blob for this node

# -- every scope with merged tables ---------------------------------------------------------

INHERITED: Final = "inherited"  # merged; key = "<dead author>/<epoch>/<seq>"; by its heir

# -- hubs ----------------------------------------------------------------------------------

TOKEN: Final = "token"  # merged; key = token id
SECRET_INDEX: Final = "secret_index"  # merged; key = secret id; release ledger
ACCOUNT: Final = "account"  # merged; key = account name
API_TOKEN: Final = "api_token"  # merged; key = token id
HUB_KEYS: Final = "hub_keys"  # per author; key = node id of the author; its role keys, signed

PER_AUTHOR: Final = frozenset(
    {
        NODE,
        ASSET,
        PRESENCE,
        CHECK,
        SIGHTING,
        BMC_SIGHTING,
        SITE_SECRET,
        BUDGET,
        NODE_SECRET,
        SECRET_COPY,
        HUB_KEYS,
    }
)
"""Tables read author by author; every other table is a merged view."""


HUB_WRITTEN: Final = frozenset({SITE, REFERENCE, NAME, TEMPLATE, HOOK})
"""Tables of ``fleet`` that only hubs write: what everybody fetches, and what it is called.

A set of somebody else that holds such a row is not taken over (mesh/proto/intake.py), so no
reader ever has to ask who wrote one."""


def writable(scope: str, table: str, *, hub: bool) -> bool:
    """Tell whether a member that may author in a scope may write this table of it."""
    return hub or scope != FLEET or table not in HUB_WRITTEN


class NodeRow(TypedDict, total=False):
    """A member's own description of itself."""

    name: str
    site: str
    build: str
    addresses: list[list[Any]]  # [host, tcp_port, udp_port], best first
    boot_url: str  # http://host:port of its boot listener
    services: list[str]  # dhcp, tftp, http, cache, bmc, jobs
    started_ms: int


class SiteRow(TypedDict, total=False):
    """A site as the operator named it."""

    title: str
    region: str
    created_ms: int


class ReferenceRow(TypedDict, total=False):
    """A name that stands for content somewhere: a URL, what it must hash to, who wants it."""

    name: str
    url: str | None  # None: the content was uploaded, see NAME
    sha256: str | None  # hex, as the operator gave it
    kind: str  # "image" | "file"
    want: list[str]  # sites that shall hold it
    revalidate_ms: int  # how often a site asks the origin; 0: never; absent: once a day
    created_ms: int


class NameRow(TypedDict, total=False):
    """name -> asset id, signed with the assets key (mesh/proto/naming.py)."""

    name: str
    asset: str  # "b3:<64 hex>"
    size: int
    sha256: str
    signed: bytes
    trust: str  # why the hub signed it: "declared-sha256" | "tofu" | "upload"
    by: str  # node id of whoever read or took the content
    replaced: list[str]  # assets that it stood for before, the latest first


class TemplateRow(TypedDict, total=False):
    """A boot template; orders name it by the digest of its text, so that is what is signed."""

    name: str
    format: str  # mesh/proto/template_text.py
    text: str
    created_ms: int
    changed_ms: int
    by: str
    removed_ms: int


class HookRow(TypedDict, total=False):
    """A hook: the fields of ``Hook`` (mesh/proto/hook.py), which orders carry, and these."""

    name: str
    created_ms: int
    changed_ms: int
    by: str
    removed_ms: int


class AssetRow(TypedDict, total=False):
    """What a resolver found behind a reference: the claim that a hub turns into a NAME row.

    Keyed by name: two names may stand for one content, and each needs its claim."""

    name: str  # reference name
    asset: str
    size: int
    sha256: str
    chunk_bytes: int
    trust: str  # "declared-sha256" | "tofu"
    replaces: str | None  # asset that the name stood for when its origin had other content


class SeenRow(TypedDict, total=False):
    """What an origin said of content that it had."""

    asset: str
    etag: str | None
    modified: str | None
    size: int | None


class CheckRow(SeenRow, total=False):
    """The last time that the author asked an origin, for its site.

    ``asset`` and its validators are of what the name stood for; ``next`` is what it shall stand
    for once a hub has signed that."""

    at_ms: int
    ok_ms: int | None  # when the origin last answered
    failed: bool
    stale: str | None  # why the name does not stand for what the origin has, a sentence
    next: SeenRow | None
    same: int  # times in a row that other validators came with the same content


class PresenceRow(TypedDict, total=False):
    """How much of an asset the author holds, and where the bytes came from."""

    name: str
    site: str
    state: str  # absent | wanted | fetching | verified | corrupt | failed
    have: int  # chunks
    of: int  # chunks
    origin_bytes: int
    peer_bytes: int
    near_bytes: int  # of peer_bytes, from nodes of its own site: never on the uplink
    error: str | None
    updated_ms: int


class SightingRow(TypedDict, total=False):
    """A machine seen by the author: on DHCP, or by its ramdisk."""

    mac: str
    macs: list[str]
    ip: str
    arch: str
    uuid: str | None
    first_ms: int
    last_ms: int
    where: str  # "dhcp" | "ipxe" | "ramdisk"
    summary: str  # one line for people: vendor, model, serial, memory, disks
    port: str  # where it is plugged in, as the relay says (option 82): remote id, circuit id


class BmcSightingRow(TypedDict, total=False):
    """A BMC that a scan of the author has found; nobody was logged in."""

    url: str  # https://10.0.0.9, or ipmi://10.0.0.9 where Redfish is not answered
    ip: str
    redfish: str | None  # URL of the service
    ipmi: str | None  # URL
    ipmi_version: str  # "2.0", "1.5", "" for not told
    vendor: str
    product: str
    uuid: str
    version: str  # of Redfish
    tls_sha256: str | None  # of the certificate that it showed
    first_ms: int
    last_ms: int


class VerdictRow(TypedDict, total=False):
    """What an operator decided about a machine short of accepting it.

    Rejecting writes nothing to the machine: it is put aside in the lists, until that is undone
    or it is accepted after all."""

    mac: str
    rejected: bool
    by: str
    at_ms: int


class BmcRow(TypedDict, total=False):
    """Where a server's BMC answers and which secret opens it."""

    url: str  # Redfish: URL of the ComputerSystem
    secret: str | None  # secret id


class SystemRow(TypedDict, total=False):
    """What an installed system said of itself when it phoned in."""

    ip: str  # where the phone-in came from
    host_keys: list[str]  # "type base64", of its ssh server


ServerState = Literal[
    "inspecting", "available", "deploying", "deploy-wait", "active",
    "deleting", "cleaning",
    "adopting", "adopting failed",
    "inspecting failed", "deploying failed", "deploy-wait failed",
    "deleting failed", "cleaning failed",
]  # fmt: skip


class ServerRow(TypedDict, total=False):
    """A server (DOMAIN section 2)."""

    id: str
    name: str
    site: str
    administration: str  # managed (also when missing) | monitored
    tags: list[str]
    serial: str | None
    macs: list[str]
    state: ServerState
    cleaned: bool  # False: "available (never cleaned)"
    hold: bool
    bmc: BmcRow | None
    ip: str | None  # its fixed address on the provisioning network
    job: str | None  # job that works on it now
    image: str | None
    hostname: str | None
    system: SystemRow | None  # what is installed, as it phoned in
    error: str | None
    summary: str
    accepted_ms: int
    changed_ms: int


class BindingRow(TypedDict, total=False):
    """A dynamic DHCP binding of an unknown machine."""

    mac: str
    ip: str
    uuid: str | None
    claimed_ms: int


class PortLockRow(TypedDict, total=False):
    """A server is answered on this port alone (option 82), and no other machine there."""

    port: str  # as relays say it and sightings show it: remote id, circuit id
    by: str
    at_ms: int


class CleanupRow(TypedDict, total=False):
    """How disks are erased (mesh/proto/cleanup.py), of a site or of one server."""

    level: str
    methods: list[str]
    fallback: list[str]
    samples: int
    by: str
    at_ms: int
    removed_ms: int  # a server's: it goes by its site's again


class EraseRecordRow(TypedDict, total=False):
    """A record of an erase, as its node signed it (mesh/proto/erase_record.py)."""

    signed: bytes
    server: str
    at_ms: int


class SubnetRow(TypedDict, total=False):
    """A provisioning subnet of the site (site policy)."""

    cidr: str
    first: str  # pool, inclusive
    last: str
    router: str | None
    dns: list[str]
    lease_s: int
    salt: str  # fixed salt of the candidate rule, hex
    mode: str  # "serve" | "proxy": another server gives the addresses
    beside: list[str]  # addresses of DHCP servers of others that are meant to be there


class OrderRow(TypedDict, total=False):
    """A signed order as it was received (mesh/proto/order.py decodes it)."""

    signed: bytes
    created_ms: int


class StepRow(TypedDict, total=False):
    """One step of a job as people see it."""

    name: str
    kind: str  # observe | set | keyed | one-shot
    state: str  # waiting | running | done | failed | skipped | parked
    solo: bool
    started_ms: int | None
    ended_ms: int | None
    done: int | None
    total: int | None
    unit: str | None
    evidence: dict[str, Any]
    error: str | None
    attempts: int


class JobRow(TypedDict, total=False):
    """A job (DOMAIN section 4); its id is its order's."""

    id: str
    kind: str  # server.accept | server.deploy | server.release | server.power
    site: str
    server: str | None  # server id
    server_name: str | None
    runner: str  # node id
    state: str  # queued blocked running succeeded failed retry_wait held cancelled parked
    waits_for: str | None
    author: str
    params: dict[str, Any]
    attempt: int
    steps: list[StepRow]
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    error: str | None


class NodeSecretRow(TypedDict, total=False):
    """The author can open this secret (its id is the key): never more than its version."""

    version: int


class SecretRow(TypedDict, total=False):
    """A secret sealed to one node (mesh/proto/seal.py): by a hub in ``pair``, or, as a
    SECRET_COPY row, by another node of its site that could open it."""

    id: str
    version: int
    kem_epoch: int
    sealed: bytes
    kind: str  # "bmc" | "opaque"


class SecretIndexRow(TypedDict, total=False):
    """Release ledger: which nodes could ever read which version of a secret."""

    id: str
    kind: str
    site: str
    version: int
    released: list[str]  # node ids
    changed_ms: int


class InheritedRow(TypedDict, total=False):
    """A dead author's set was taken over up to here, by whoever wrote this (``collect.py``)."""

    author: str
    epoch: int
    seq: int


class TokenRow(TypedDict, total=False):
    """A join token; only the public half of its secret is kept."""

    id: str
    site: str
    roles: list[str]
    public: bytes
    created_ms: int
    expires_ms: int
    used_by: str | None
    used_ms: int | None
    revoked: bool


class AccountRow(TypedDict, total=False):
    """A person who may sign in at any hub."""

    name: str
    role: str  # viewer | operator | admin (mesh/rest/roles.py)
    password: str  # argon2id, as libsodium writes it
    disabled: bool
    created_ms: int
    changed_ms: int
    stamp: bytes  # new with every change: sessions of another stamp are over


class ApiTokenRow(TypedDict, total=False):
    """A program's token; only the SHA-256 of its secret is kept."""

    id: str
    name: str
    role: str
    digest: bytes
    created_ms: int
    created_by: str
    expires_ms: int | None
    revoked_ms: int | None
