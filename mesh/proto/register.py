"""The register: who belongs to the organisation, in which role, and with which keys.

A pure set of signed records with a merge that gives the same result in every order of arrival.
It knows no disk, no link and no clock. Rules: which roster records stand and which of them
holds is said in ``standing.py``, by the current trust document alone; when that changes, all
are judged anew. A document that voids keys is current once all lists that it names are here;
what comes before the document or the roster record that it needs is held, within limits, and
merged then. An equal version with other bytes is an alarm. Presence here admits, reachability
removes nobody.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.codec import unpack_map
from mesh.proto.held import Held
from mesh.proto.ids import ROOT_FINGERPRINT_BYTES, node_id
from mesh.proto.scope_rules import allowed, is_site_node
from mesh.proto.sign import DIGEST_BYTES, RECORD_BYTES_MAX, Signed, digest_of, split_record
from mesh.proto.standing import Early, Stands, holding, standing, surplus
from mesh.proto.trust import (
    HUB,
    KEY,
    MEMBER,
    REVOKED,
    ROLE_HUB,
    ROSTER,
    SUSPENDED,
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
from mesh.proto.trust_chain import TrustChain
from mesh.proto.void import KEPT

MEMBERS_MAX: Final = 20_000
"""Identities that a register holds; the next one is Rejected."""
ALARMS_KEPT: Final = 32


@dataclass(frozen=True, slots=True)
class Merged:
    """The record is new and holds; it must be kept and passed on."""

    kind: str
    subject: str  # node id, or "" for the trust document and its lists
    wire: bytes = field(default=b"", repr=False, compare=False)


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
    signer: bytes
    digest: bytes
    version: tuple[int, int]
    rank: tuple[bool, tuple[int, int], bytes]
    says: RosterRecord | KeyRecord | HubRecord


class Register:
    """The signed records of one organisation, merged."""

    def __init__(self, root_fp: bytes) -> None:
        assert len(root_fp) == ROOT_FINGERPRINT_BYTES
        self.root_fp = root_fp
        self.trust: TrustDocument | None = None
        self.alarms: list[Alarm] = []
        self.counters: Counter[str] = Counter()
        self._chain = TrustChain(root_fp)
        self._entries: dict[tuple[str, str], _Entry] = {}
        """What holds about members, by (kind, node id)."""
        self._slots: dict[str, dict[str, _Entry]] = {}
        """Every roster record that stands, by node id and slot."""
        self._held = Held()
        self._released: list[Merged] = []
        self._digest: bytes | None = None
        self._generation = 0
        self._members: tuple[int, dict[str, Member]] = (0, {})

    # -- merging ---------------------------------------------------------------------------

    def merge(self, record: bytes) -> Outcome:
        """Take one record from anywhere."""
        outcome = self._merge_wire(record)
        self.counters[type(outcome).__name__.lower()] += 1
        return outcome

    def _merge_wire(self, record: bytes) -> Outcome:
        try:
            signed = split_record(record)
            kind = fields.text(unpack_map(signed.body, RECORD_BYTES_MAX), "kind")
            return self._merge(kind, signed)
        except CodecError:
            return Rejected("garbage or a signature that does not hold")

    def _merge(self, kind: str, signed: Signed) -> Outcome:
        wire = signed.wire()
        match kind:
            case "trust":
                return self._merge_trust(signed, open_trust_document(wire, self.root_fp))
            case "kept":
                return self._merge_kept(signed)
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

    # -- the trust document and its lists --------------------------------------------------

    def _merge_trust(self, signed: Signed, trust: TrustDocument) -> Outcome:
        digest = digest_of(signed.body)
        if digest == self._chain.digest:
            return Ignored()
        if self.trust is not None and trust.version == self.trust.version:
            self._raise_alarm(Alarm(TRUST, ""))
        if (trust.version, _inverse(digest)) < self._chain.rank:
            return Ignored()
        if not self._chain.put_document(signed):
            self._retry("")  # its lists may have come first
            if self._chain.digest != digest:
                return Rejected("needs the lists that it names")
            return Merged(TRUST, "", self._chain.wire)
        self._judge_anew()
        return Merged(TRUST, "", self._chain.wire)

    def _merge_kept(self, signed: Signed) -> Outcome:
        match self._chain.put_list(signed):
            case "known":
                return Ignored()
            case "early":
                self._held.put("", signed.wire())
                return Rejected("a list that no trust document names")
            case "kept":
                pass
            case "current":
                self._released.append(Merged(TRUST, "", self._chain.wire))
                self._judge_anew()
        return Merged(KEPT, "", signed.wire())

    def _judge_anew(self) -> None:
        """The trust document has changed: let go of what does not stand under it."""
        self.trust = self._chain.current
        slots: dict[str, dict[str, _Entry]] = {}
        entries: dict[tuple[str, str], _Entry] = {}
        for subject, old in self._slots.items():
            for entry in old.values():
                found = self._standing(entry)
                if isinstance(found, Stands):
                    slots.setdefault(subject, {})[found.slot] = entry
                else:
                    self._held.put("", entry.wire)
        for subject, standing_slots in slots.items():
            entries[ROSTER, subject] = _holding(standing_slots)
        for (kind, subject), entry in self._entries.items():
            if kind == ROSTER:
                continue
            if subject in slots:
                entries[kind, subject] = entry
            else:
                self._held.put(subject, entry.wire)
        self._slots, self._entries = slots, entries  # at once: a thread may look
        self._changed()
        self._retry("")

    # -- roster records --------------------------------------------------------------------

    def _merge_roster(self, wire: bytes, signed: Signed) -> Outcome:
        roster, _ = open_roster_record(wire, self.root_fp)
        subject = roster.node_id
        if len(self._slots) >= MEMBERS_MAX and subject not in self._slots:
            self.counters["full"] += 1
            return Rejected("the register is full")
        entry = _entry(signed, (roster.trust_version, roster.version), roster)
        found = self._standing(entry)
        if isinstance(found, Early):
            self._held.put("", wire)
            return Rejected(found.reason)
        slots = self._slots.get(subject, {})
        old = slots.get(found.slot)
        if old is not None and (outcome := self._against(old, entry, ROSTER, subject)):
            return outcome
        slots = {**slots, found.slot: entry}
        extra = surplus(slots)
        if extra == found.slot:
            return Rejected("too many sites claim this node")
        slots.pop(extra or "none", None)
        self._slots[subject] = slots
        self._entries[ROSTER, subject] = _holding(slots)
        self._changed()
        self._retry(subject)
        return Merged(ROSTER, subject, wire)

    def _standing(self, entry: _Entry) -> Stands | Early:
        return standing(self.trust, self._chain.kept, entry.signer, _says(entry), entry.digest)

    # -- what members say of themselves ----------------------------------------------------

    def _merge_own(
        self, kind: str, signed: Signed, version: int, says: KeyRecord | HubRecord
    ) -> Outcome:
        subject = node_id(signed.public)
        if (ROSTER, subject) not in self._entries:
            self._held.put(subject, signed.wire())
            return Rejected("not about a member")
        entry = _entry(signed, (0, version), says)
        old = self._entries.get((kind, subject))
        if old is not None and (outcome := self._against(old, entry, kind, subject)):
            return outcome
        self._entries[kind, subject] = entry
        self._changed()
        return Merged(kind, subject, entry.wire)

    def _against(self, old: _Entry, new: _Entry, kind: str, subject: str) -> Outcome | None:
        """Return why a record does not replace a kept one, None when it does."""
        if old.digest == new.digest:
            return Ignored()
        if old.version == new.version:
            self._raise_alarm(Alarm(kind, subject))
        return Ignored() if old.rank > new.rank else None

    def _changed(self) -> None:
        self._digest = None
        self._generation += 1

    # -- what came too early ---------------------------------------------------------------

    def _retry(self, waits_for: str) -> None:
        """Merge what was held for what is here now."""
        for wire in self._held.take(waits_for):
            outcome = self._merge_wire(wire)
            if isinstance(outcome, Merged):
                self._released.append(outcome)

    def take_released(self) -> list[Merged]:
        """Return what was merged besides the given records since the last call."""
        released, self._released = self._released, []
        return released

    def _raise_alarm(self, alarm: Alarm) -> None:
        self.counters["alarm"] += 1
        if alarm not in self.alarms and len(self.alarms) < ALARMS_KEPT:
            self.alarms.append(alarm)

    # -- exchange --------------------------------------------------------------------------

    def records(self) -> list[bytes]:
        """Return every kept record, in an order that an empty register can merge."""
        found = reversed(self._signed_above())
        return [wire for _, wire in (*found, *self._by_kind(KEY), *self._by_kind(HUB))]

    def _by_kind(self, kind: str) -> list[tuple[bytes, bytes]]:
        """Return (digest, wire) of what members say of themselves, by node id."""
        subjects = sorted(subject for one, subject in self._entries if one == kind)
        entries = [self._entries[kind, subject] for subject in subjects]
        return [(entry.digest, entry.wire) for entry in entries]

    def _signed_above(self) -> list[tuple[bytes, bytes]]:
        """Return (digest, wire) of rosters, lists and trust document."""
        found: list[tuple[bytes, bytes]] = []
        for _, slots in sorted(self._slots.items()):
            found += [(entry.digest, entry.wire) for _, entry in sorted(slots.items())]
        found += self._chain.lists()
        return [*found, (self._chain.digest, self._chain.wire)] if self.trust else found

    def record(self, kind: str, subject: str) -> bytes | None:
        """Return the record of a kind that holds about a node ("" for the trust document)."""
        if kind == TRUST:
            return self._chain.wire or None
        entry = self._entries.get((kind, subject))
        return entry.wire if entry else None

    def digest(self) -> bytes:
        """Return 16 bytes that are equal when two registers say the same."""
        if self._digest is None:
            total = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for record in self._by_kind(HUB) + self._by_kind(KEY) + self._signed_above():
                total.update(record[0])
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

    def signer_of(self, node_id: str) -> bytes | None:
        """Return the key that signed the roster record that holds about a node."""
        entry = self._entries.get((ROSTER, node_id))
        return entry.signer if entry else None

    def lists(self) -> set[bytes]:
        """Return the names of the lists (``void.py``) that are here."""
        return {name for name, _ in self._chain.lists()}

    def admitted_by(self, node_id: str) -> str | None:
        """Return whose key speaks for a node: "" membership, else its site; None: nobody."""
        slots = self._slots.get(node_id)
        return holding({slot: _says(entry) for slot, entry in slots.items()}) if slots else None

    def signed_by(self, key: bytes) -> list[tuple[str, bytes]]:
        """Return (node id, digest) of every roster record of a key that stands."""
        return [
            (subject, entry.digest)
            for subject, slots in sorted(self._slots.items())
            for entry in slots.values()
            if entry.signer == key
        ]

    def active(self, node_id: str) -> bool:
        """Tell whether an identity is a member now."""
        return self._roster(node_id) is not None

    def site_members(self, site: str) -> list[Member]:
        """Return the active nodes of a site, by node id."""
        return [
            member
            for member in self.members()
            if member.status == MEMBER and member.site == site and is_site_node(member.roles)
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
        return roster is not None and allowed(node_id, roster, scope)

    def could_author(self, node_id: str, scope: str) -> bool:
        """Tell whether a member may write into a scope, or may once it is not suspended."""
        entry = self._entries.get((ROSTER, node_id))
        if entry is None or _says(entry).status not in (MEMBER, SUSPENDED):
            return False
        return allowed(node_id, _says(entry), scope)

    def carries(self, node_id: str, scope: str, author: str | None = None) -> bool:
        """Tell whether a member keeps a copy of a scope, whoever is the author in it.

        In ``pair:<node>`` what stands is sealed to the node; the hubs keep one another's sets,
        since only who sees the other rows of a key can tell when its marker may go.
        """
        return self.may_author(node_id, scope)

    def _roster(self, node_id: str) -> RosterRecord | None:
        """Return the roster record of an active member."""
        entry = self._entries.get((ROSTER, node_id))
        if entry is None:
            return None
        assert isinstance(entry.says, RosterRecord)
        return entry.says if entry.says.status == MEMBER else None


def _entry(
    signed: Signed, version: tuple[int, int], says: RosterRecord | KeyRecord | HubRecord
) -> _Entry:
    digest = digest_of(signed.body)
    revoked = isinstance(says, RosterRecord) and says.status == REVOKED
    rank = (revoked, version, _inverse(digest))
    return _Entry(signed.wire(), signed.public, digest, version, rank, says)


def _inverse(digest: bytes) -> bytes:
    """Return bytes that sort the lower digest higher."""
    return bytes(255 - byte for byte in digest)


def _says(entry: _Entry) -> RosterRecord:
    assert isinstance(entry.says, RosterRecord)
    return entry.says


def _holding(slots: Mapping[str, _Entry]) -> _Entry:
    return slots[holding({slot: _says(entry) for slot, entry in slots.items()})]
