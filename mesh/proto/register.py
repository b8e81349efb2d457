"""The register: who belongs to the organisation, in which role, and with which keys.

A pure set of signed records with a merge that gives the same result in every order of arrival
(once trust document and roster are there). It knows no disk, no link and no clock. Rules:
records are ordered by (trust version, version); ``revoked`` beats everything, then (once sites
have keys of their own) a membership key beats a site key, then the lower hash; an equal version
with other bytes is an alarm; a record that is not signed by a key that may say so is Rejected
and counted. Presence here admits, reachability removes nobody.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Final

from mesh.errors import CodecError
from mesh.proto import fields, tables
from mesh.proto.codec import unpack_map
from mesh.proto.ids import NODE_ID_PATTERN, ROOT_FINGERPRINT_BYTES, node_id
from mesh.proto.sign import RECORD_BYTES_MAX, Signed, split_record
from mesh.proto.trust import (
    HUB,
    KEY,
    MEMBER,
    REVOKED,
    ROLE_HUB,
    ROLE_NODE,
    ROLE_SITE_OPERATOR,
    ROSTER,
    TRUST,
    HubRecord,
    KeyRecord,
    OrderKeys,
    RosterRecord,
    TrustDocument,
    open_hub_record,
    open_key_record,
    open_roster_record,
    open_trust_document,
)

DIGEST_BYTES: Final = 16
MEMBERS_MAX: Final = 20_000
"""Identities that a register holds; the next one is Rejected."""
ALARMS_KEPT: Final = 32
KIND_ORDER: Final = (TRUST, ROSTER, KEY, HUB)
"""Order in which records are handed out, so that each finds what it needs already merged."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The record is new and holds; it must be kept and passed on."""

    kind: str
    subject: str  # node id, or "" for the trust document


@dataclass(frozen=True, slots=True)
class Ignored:
    """The record is good but an equal or a stronger one is already there."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The record is not acceptable now; ``reason`` is a constant phrase."""

    reason: str


Outcome = Merged | Ignored | Rejected


@dataclass(frozen=True, slots=True)
class Member:
    """What the register knows of one identity."""

    node_id: str
    identity_public: bytes
    site: str
    roles: frozenset[str]
    capabilities: frozenset[str]
    status: str
    heads: dict[str, tuple[int, int, bytes]]
    kem_public: bytes | None
    kem_epoch: int
    name: str
    trust_version: int
    version: int


@dataclass(frozen=True, slots=True)
class HubAddress:
    """Where an active hub answers."""

    node_id: str
    urls: tuple[str, ...]
    tls_sha256: bytes
    region: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """Two records of one version that say different things: a key is misused or was copied."""

    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A kept record: its wire form, its place in the order, and what it says."""

    wire: bytes
    digest: bytes
    version: tuple[int, int]
    rank: tuple[bool, tuple[int, int], bytes]
    says: TrustDocument | RosterRecord | KeyRecord | HubRecord


class Register:
    """The signed records of one organisation, merged."""

    def __init__(self, root_fp: bytes) -> None:
        assert len(root_fp) == ROOT_FINGERPRINT_BYTES
        self.root_fp = root_fp
        self.trust: TrustDocument | None = None
        self.alarms: list[Alarm] = []
        self.counters: Counter[str] = Counter()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._digest: bytes | None = None
        self._generation = 0
        self._members: tuple[int, dict[str, Member]] = (0, {})

    # -- merging ---------------------------------------------------------------------------

    def merge(self, record: bytes) -> Outcome:
        """Take one record from anywhere."""
        try:
            signed = split_record(record)
            kind = fields.text(unpack_map(signed.body, RECORD_BYTES_MAX), "kind")
            outcome = self._merge(kind, signed)
        except CodecError:
            outcome = Rejected("garbage or a signature that does not hold")
        self.counters[type(outcome).__name__.lower()] += 1
        return outcome

    def _merge(self, kind: str, signed: Signed) -> Outcome:
        wire = signed.wire()
        match kind:
            case "trust":
                trust = open_trust_document(wire, self.root_fp)
                return self._keep(kind, "", signed, (trust.version, 0), trust)
            case "roster":
                return self._merge_roster(wire, signed)
            case "key":
                key = open_key_record(wire)
                return self._merge_own(kind, signed, key.kem_epoch, key)
            case "hub":
                hub = open_hub_record(wire, self.root_fp)
                return self._merge_own(kind, signed, hub.version, hub)
            case _:
                return Rejected("unknown kind of record")

    def _merge_roster(self, wire: bytes, signed: Signed) -> Outcome:
        roster, signer = open_roster_record(wire, self.root_fp)
        if self.trust is None:
            return Rejected("no trust document yet")
        if signer not in self.trust.membership:
            return Rejected("not signed by a membership key")
        if roster.trust_version > self.trust.version:
            return Rejected("needs a newer trust document")
        subject = roster.node_id
        if len(self._entries) >= 3 * MEMBERS_MAX and (ROSTER, subject) not in self._entries:
            self.counters["full"] += 1
            return Rejected("the register is full")
        version = (roster.trust_version, roster.version)
        return self._keep(ROSTER, subject, signed, version, roster)

    def _merge_own(
        self, kind: str, signed: Signed, version: int, says: KeyRecord | HubRecord
    ) -> Outcome:
        subject = node_id(signed.public)
        if (ROSTER, subject) not in self._entries:
            return Rejected("not about a member")
        return self._keep(kind, subject, signed, (0, version), says)

    def _keep(
        self,
        kind: str,
        subject: str,
        signed: Signed,
        version: tuple[int, int],
        says: TrustDocument | RosterRecord | KeyRecord | HubRecord,
    ) -> Outcome:
        digest = hashlib.blake2b(signed.body, digest_size=DIGEST_BYTES).digest()
        revoked = isinstance(says, RosterRecord) and says.status == REVOKED
        rank = (revoked, version, bytes(255 - byte for byte in digest))
        old = self._entries.get((kind, subject))
        if old is not None:
            if old.digest == digest:
                return Ignored()
            if old.version == version:
                self._raise_alarm(Alarm(kind, subject))
            if old.rank > rank:
                return Ignored()
        self._entries[kind, subject] = _Entry(signed.wire(), digest, version, rank, says)
        self._digest = None
        self._generation += 1
        if isinstance(says, TrustDocument):
            self.trust = says
        return Merged(kind, subject)

    def _raise_alarm(self, alarm: Alarm) -> None:
        self.counters["alarm"] += 1
        if alarm not in self.alarms and len(self.alarms) < ALARMS_KEPT:
            self.alarms.append(alarm)

    # -- exchange --------------------------------------------------------------------------

    def records(self) -> list[bytes]:
        """Return every kept record, in an order that an empty register can merge."""
        keys = sorted(self._entries, key=lambda key: (KIND_ORDER.index(key[0]), key[1]))
        return [self._entries[key].wire for key in keys]

    def record(self, kind: str, subject: str) -> bytes | None:
        """Return the kept record of a kind about one node id ("" for the trust document)."""
        entry = self._entries.get((kind, subject))
        return entry.wire if entry else None

    def digest(self) -> bytes:
        """Return 16 bytes that are equal when two registers say the same."""
        if self._digest is None:
            total = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for key in sorted(self._entries):
                total.update(self._entries[key].digest)
            self._digest = total.digest()
        return self._digest

    # -- questions -------------------------------------------------------------------------

    def member(self, node_id: str) -> Member | None:
        """Return what is known of an identity, whatever its status."""
        return self._known().get(node_id)

    def members(self) -> list[Member]:
        """Return every identity that ever was a member, by node id."""
        return list(self._known().values())

    def _known(self) -> dict[str, Member]:
        """Return every member by node id; may be called from the store's writer thread."""
        generation, known = self._members
        if generation != self._generation:
            generation = self._generation  # read first: what is newer is seen the next time
            ids = sorted(subject for kind, subject in list(self._entries) if kind == ROSTER)
            known = {subject: self._member(subject) for subject in ids}
            self._members = (generation, known)
        return known

    def _member(self, node_id: str) -> Member:
        roster = self._entries[ROSTER, node_id].says
        assert isinstance(roster, RosterRecord)
        key_entry = self._entries.get((KEY, node_id))
        key = key_entry.says if key_entry else None
        assert key is None or isinstance(key, KeyRecord)
        return Member(
            node_id=node_id,
            identity_public=roster.identity_public,
            site=roster.site,
            roles=roster.roles,
            capabilities=roster.capabilities,
            status=roster.status,
            heads=dict(roster.heads),
            kem_public=key.kem_public if key else None,
            kem_epoch=key.kem_epoch if key else 0,
            name=roster.name,
            trust_version=roster.trust_version,
            version=roster.version,
        )

    def active(self, node_id: str) -> bool:
        """Tell whether an identity is a member now."""
        return self._roster(node_id) is not None

    def site_members(self, site: str) -> list[Member]:
        """Return the active nodes of a site, by node id."""
        return [
            member
            for member in self.members()
            if member.status == MEMBER and member.site == site and _is_site_node(member.roles)
        ]

    def hubs(self) -> list[HubAddress]:
        """Return the addresses of the active hubs, by node id."""
        found: list[HubAddress] = []
        for kind, subject in sorted(self._entries):
            roster = self._roster(subject) if kind == HUB else None
            if roster is None or ROLE_HUB not in roster.roles:
                continue
            hub = self._entries[HUB, subject].says
            assert isinstance(hub, HubRecord)
            found.append(HubAddress(subject, hub.urls, hub.tls_sha256, hub.region))
        return found

    def role_key(self, role: str) -> tuple[bytes, ...]:
        """Return the public keys of a role: membership, orders, assets or approvers."""
        return self.trust.role_key(role) if self.trust else ()

    def order_keys(self, region: str) -> OrderKeys | None:
        """Return the epoch and the keys that sign orders for a region."""
        return self.trust.orders.get(region) if self.trust else None

    def may_author(self, node_id: str, scope: str) -> bool:
        """Tell whether a member may write rows into a scope."""
        roster = self._roster(node_id)
        return roster is not None and _allowed(node_id, roster, scope)

    def carries(self, node_id: str, scope: str, author: str | None = None) -> bool:
        """Tell whether a member keeps a copy of a scope.

        A ``pair:<node>`` set is kept by its author and by that node; without ``author`` any hub
        may be the author.
        """
        roster = self._roster(node_id)
        if roster is None or not _allowed(node_id, roster, scope):
            return False
        target = scope.removeprefix("pair:")
        if target != scope and author is not None:
            return node_id in (author, target)
        return True

    def _roster(self, node_id: str) -> RosterRecord | None:
        """Return the roster record of an active member."""
        entry = self._entries.get((ROSTER, node_id))
        if entry is None:
            return None
        assert isinstance(entry.says, RosterRecord)
        return entry.says if entry.says.status == MEMBER else None


def _is_site_node(roles: frozenset[str]) -> bool:
    return bool(roles & {ROLE_NODE, ROLE_SITE_OPERATOR})


def _allowed(node_id: str, roster: RosterRecord, scope: str) -> bool:
    """Tell whether the scope rules let an active member author in, and carry, a scope."""
    is_hub = ROLE_HUB in roster.roles
    if scope == tables.FLEET:
        return True
    if scope == tables.HUBS:
        return is_hub
    kind, mark, name = scope.partition(":")
    if kind == "site" and mark:
        return is_hub or (bool(name) and roster.site == name and _is_site_node(roster.roles))
    if kind == "pair" and mark and NODE_ID_PATTERN.match(name):
        return is_hub or node_id == name
    return False
