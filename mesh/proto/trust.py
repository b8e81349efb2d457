"""The signed records of the register: what they say, how they are made and opened.

Trust document (the root says which keys play which role), roster record (a membership key or a
site's key says who is a member, of which site, in which roles), key record (a member says which
X25519 key is its own) and hub record (a hub says where it answers). What the root says about a
void key (``void.py``) belongs to its document. Which record counts and holds is decided in
``standing.py`` and ``register.py``. Rule: bodies are maps in which unknown fields are allowed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import (
    NAME_PATTERN,
    SITE_PATTERN,
    node_id,
    root_fingerprint,
)
from mesh.proto.sign import KEY_BYTES, NO_ROOT, Signer, open_record, sign_record

TRUST: Final = "trust"
ROSTER: Final = "roster"
KEY: Final = "key"
HUB: Final = "hub"

MEMBER: Final = "member"
SUSPENDED: Final = "suspended"
LEFT: Final = "left"
REVOKED: Final = "revoked"
STATUSES: Final = frozenset({MEMBER, SUSPENDED, LEFT, REVOKED})
Status = Literal["member", "suspended", "left", "revoked"]

ROLE_HUB: Final = "hub"
ROLE_NODE: Final = "node"
ROLE_SITE_OPERATOR: Final = "site-operator"
ROLES: Final = frozenset({ROLE_HUB, ROLE_NODE, ROLE_SITE_OPERATOR})

KEYS_PER_ROLE_MAX: Final = 16
REGIONS_MAX: Final = 64
SITE_KEYS_MAX: Final = 1024
"""Sites with keys of their own."""
PAST_KEYS_MAX: Final = 256
"""Retired keys, and void ones, that a document names."""
VOID_LISTS_MAX: Final = 16
HASH_BYTES: Final = 16
URLS_MAX: Final = 8
HEADS_MAX: Final = 512
"""Last accepted heads in a roster record; 16 before 2026-11-26."""


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """Who may sign orders for a region: its epoch and its keys."""

    epoch: int
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Retired:
    """A key that signs no more: its records up to a trust version stand."""

    site: str  # "" for a membership key, else the site whose key it was
    until: int


@dataclass(frozen=True, slots=True)
class Void:
    """A key that leaked: only the records in its lists stand, whoever made others."""

    site: str
    lists: tuple[bytes, ...]
    """Hashes of the lists of record digests; the root of their tree, one level deep."""


@dataclass(frozen=True, slots=True)
class TrustDocument:
    """What the root says: the role keys and the region epochs, by version."""

    version: int
    root_public: bytes
    membership: tuple[bytes, ...]
    assets: tuple[bytes, ...]
    orders: Mapping[str, OrderKeys]
    approvers: tuple[bytes, ...] = ()
    site_keys: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """Keys that admit and end nodes of one site, by site."""
    retired: Mapping[bytes, Retired] = field(default_factory=dict)
    void: Mapping[bytes, Void] = field(default_factory=dict)

    def role_key(self, role: str) -> tuple[bytes, ...]:
        """Return the public keys of a role; none for a role that this version does not name."""
        match role:
            case "membership":
                return self.membership
            case "assets":
                return self.assets
            case "approvers":
                return self.approvers
            case "orders":
                return tuple(key for keys in self.orders.values() for key in keys.keys)
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class RosterRecord:
    """What a membership key says about one identity."""

    identity_public: bytes
    trust_version: int
    version: int
    site: str  # "" for a hub that belongs to no site
    roles: frozenset[str]
    status: Status = MEMBER
    capabilities: frozenset[str] = frozenset()
    name: str = ""
    heads: Mapping[str, tuple[int, int, bytes]] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        """The id that follows from the identity key."""
        return node_id(self.identity_public)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A member's X25519 key, by epoch."""

    identity_public: bytes
    kem_public: bytes
    kem_epoch: int
    made_ms: int = 0  # 0 when the record does not say it


@dataclass(frozen=True, slots=True)
class HubRecord:
    """Where a hub answers and which TLS certificate it shows."""

    identity_public: bytes
    version: int
    urls: tuple[str, ...]
    tls_sha256: bytes  # empty when not announced
    region: str = ""


def make_trust_document(
    root: Signer,
    *,
    version: int,
    membership: Sequence[bytes],
    assets: Sequence[bytes],
    orders: Mapping[str, OrderKeys],
    approvers: Sequence[bytes] = (),
    site_keys: Mapping[str, Sequence[bytes]] | None = None,
    retired: Mapping[bytes, Retired] | None = None,
    void: Mapping[bytes, Void] | None = None,
) -> bytes:
    """Return a signed trust document; ``version`` must be above every earlier one."""
    assert version > 0
    body = {
        "kind": TRUST,
        "version": version,
        "root": root.public,
        "membership": list(membership),
        "assets": list(assets),
        "approvers": list(approvers),
        "orders": {
            region: {"epoch": keys.epoch, "keys": list(keys.keys)}
            for region, keys in orders.items()
        },
        "site_keys": {site: list(keys) for site, keys in (site_keys or {}).items()},
        "retired": [[key, one.site, one.until] for key, one in (retired or {}).items()],
        "void": [[key, one.site, list(one.lists)] for key, one in (void or {}).items()],
    }
    return sign_record(root, TRUST, 1, root_fingerprint(root.public), body)


def open_trust_document(data: bytes, root_fp: bytes) -> TrustDocument:
    """Return the document when it is signed by the root with this fingerprint."""
    body, signer, _ = open_record(data, TRUST, 1, root_fp)
    if root_fingerprint(signer) != root_fp:
        raise CodecError("the trust document is signed by another organisation's root")
    orders: dict[str, OrderKeys] = {}
    for region, value in fields.mapping(body, "orders", count_max=REGIONS_MAX).items():
        if not SITE_PATTERN.match(region) or not isinstance(value, dict):
            raise CodecError("the trust document names an impossible region")
        orders[region] = OrderKeys(fields.integer(value, "epoch"), _keys(value, "keys"))
    return TrustDocument(
        version=fields.integer(body, "version", least=1),
        root_public=signer,
        membership=_keys(body, "membership"),
        assets=_keys(body, "assets"),
        orders=orders,
        approvers=_keys(body, "approvers", default=()),
        site_keys=_site_keys(body),
        retired=_retired(body),
        void=_void(body),
    )


def make_roster_record(membership: Signer, root_fp: bytes, record: RosterRecord) -> bytes:
    """Return a signed roster record."""
    assert record.status in STATUSES
    assert record.roles <= ROLES, f"unknown roles {sorted(record.roles - ROLES)}"
    assert record.version > 0
    body = {
        "kind": ROSTER,
        "trust": record.trust_version,
        "version": record.version,
        "identity": record.identity_public,
        "site": record.site,
        "roles": sorted(record.roles),
        "caps": sorted(record.capabilities),
        "status": record.status,
        "name": record.name,
        "heads": {scope: list(head) for scope, head in record.heads.items()},
    }
    return sign_record(membership, ROSTER, 1, root_fp, body)


def open_roster_record(data: bytes, root_fp: bytes) -> tuple[RosterRecord, bytes]:
    """Return (record, signer's key); the caller asks whether that key may admit members."""
    body, signer, _ = open_record(data, ROSTER, 1, root_fp)
    status = fields.text(body, "status")
    if status not in STATUSES:
        raise CodecError("a roster record has an unknown status")
    site = fields.text(body, "site")
    if site and not SITE_PATTERN.match(site):
        raise CodecError("a roster record names an impossible site")
    name = fields.text(body, "name", default="")
    if name and not NAME_PATTERN.match(name):
        raise CodecError("a roster record holds an impossible name")
    record = RosterRecord(
        identity_public=fields.raw(body, "identity", KEY_BYTES),
        trust_version=fields.integer(body, "trust", least=1),
        version=fields.integer(body, "version", least=1),
        site=site,
        roles=frozenset(fields.texts(body, "roles", count_max=16)),
        status=status,  # type: ignore[arg-type]  # checked against STATUSES above
        capabilities=frozenset(fields.texts(body, "caps", count_max=64, default=())),
        name=name,
        heads=_heads(body),
    )
    return record, signer


def make_key_record(
    identity: Signer, kem_public: bytes, kem_epoch: int, made_ms: int = 0
) -> bytes:
    """Return a member's signed X25519 key.

    It is bound to no organisation: an identity is made before it joins one, and the record says
    nothing that an organisation could dispute.
    """
    assert len(kem_public) == KEY_BYTES
    assert kem_epoch > 0
    body: dict[str, Any] = {"kind": KEY, "epoch": kem_epoch, "kem": kem_public}
    if made_ms:
        body["made"] = made_ms
    return sign_record(identity, KEY, 1, NO_ROOT, body)


def open_key_record(data: bytes) -> KeyRecord:
    """Return whose X25519 key this is; raise CodecError when the signature does not hold."""
    body, signer, _ = open_record(data, KEY, 1, NO_ROOT)
    return KeyRecord(
        identity_public=signer,
        kem_public=fields.raw(body, "kem", KEY_BYTES),
        kem_epoch=fields.integer(body, "epoch", least=1, most=(1 << 32) - 1),
        made_ms=fields.integer(body, "made", default=0),
    )


def make_hub_record(
    identity: Signer,
    root_fp: bytes,
    *,
    version: int,
    urls: Sequence[str],
    tls_sha256: bytes = b"",
    region: str = "",
) -> bytes:
    """Return a hub's signed address record."""
    assert 0 < len(urls) <= URLS_MAX
    assert len(tls_sha256) in (0, 32)
    body = {
        "kind": HUB,
        "version": version,
        "urls": list(urls),
        "tls_sha256": tls_sha256,
        "region": region,
    }
    return sign_record(identity, HUB, 1, root_fp, body)


def open_hub_record(data: bytes, root_fp: bytes) -> HubRecord:
    """Return where a hub says that it answers; the caller asks whether it is a hub at all."""
    body, signer, _ = open_record(data, HUB, 1, root_fp)
    urls = fields.texts(body, "urls", count_max=URLS_MAX)
    if not all(url_is_plain(url) for url in urls):
        raise CodecError("a hub record holds something that is not an https or wss URL")
    tls_sha256 = fields.raw(body, "tls_sha256", bytes_max=32)
    if len(tls_sha256) not in (0, 32):
        raise CodecError("a hub record holds an impossible TLS fingerprint")
    return HubRecord(
        identity_public=signer,
        version=fields.integer(body, "version", least=1),
        urls=urls,
        tls_sha256=tls_sha256,
        region=fields.text(body, "region", default="", chars_max=31),
    )


def url_is_plain(url: str) -> bool:
    """Tell whether a text looks like an https or wss URL that is safe to print and to dial."""
    return (
        url.startswith(("https://", "wss://"))
        and url.isascii()
        and url.isprintable()
        and not any(char in url for char in " \"'<>\\@")
    )


def _keys(
    body: Mapping[str, Any], name: str, default: Any = fields.MISSING
) -> tuple[bytes, ...]:
    return fields.raws(body, name, KEY_BYTES, count_max=KEYS_PER_ROLE_MAX, default=default)


def _heads(body: Mapping[str, Any]) -> dict[str, tuple[int, int, bytes]]:
    heads: dict[str, tuple[int, int, bytes]] = {}
    for scope, value in fields.mapping(body, "heads", count_max=HEADS_MAX, default={}).items():
        if not isinstance(value, list) or len(value) != 3:
            raise CodecError("a roster record holds a head of the wrong shape")
        head: Iterable[Any] = value
        epoch, seq, root = head
        inner = {"epoch": epoch, "seq": seq, "root": root}
        heads[scope] = (
            fields.integer(inner, "epoch"),
            fields.integer(inner, "seq"),
            fields.raw(inner, "root", bytes_max=64),
        )
    return heads


def _site_keys(body: Mapping[str, Any]) -> dict[str, tuple[bytes, ...]]:
    named = fields.mapping(body, "site_keys", count_max=SITE_KEYS_MAX, default={})
    if not all(SITE_PATTERN.match(site) for site in named):
        raise CodecError("the trust document names an impossible site")
    return {site: _keys(named, site) for site in named}


def _retired(body: Mapping[str, Any]) -> dict[bytes, Retired]:
    found: dict[bytes, Retired] = {}
    for key, site, until in _past_keys(body, "retired"):
        found[key] = Retired(site, fields.integer({"until": until}, "until"))
    return found


def _void(body: Mapping[str, Any]) -> dict[bytes, Void]:
    found: dict[bytes, Void] = {}
    for key, site, lists in _past_keys(body, "void"):
        hashes = fields.raws({"lists": lists}, "lists", HASH_BYTES, count_max=VOID_LISTS_MAX)
        found[key] = Void(site, hashes)
    return found


def _past_keys(body: Mapping[str, Any], name: str) -> Iterable[tuple[bytes, str, Any]]:
    for entry in fields.items(body, name, count_max=PAST_KEYS_MAX, default=()):
        if not isinstance(entry, list) or len(entry) != 3:
            raise CodecError("the trust document names a past key in the wrong shape")
        inner = {"key": entry[0], "site": entry[1]}
        site = fields.text(inner, "site", chars_max=31)
        if site and not SITE_PATTERN.match(site):
            raise CodecError("the trust document names an impossible site")
        yield fields.raw(inner, "key", KEY_BYTES), site, entry[2]
