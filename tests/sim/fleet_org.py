"""The organisation of a simulated fleet: its root, its role keys over the years, its members.

It knows no link: it makes signed records, somebody else carries them. Rules: all keys follow
from labels and epochs; a role key is replaced in two steps, as an operator does it: a document
that names both, every roster record signed anew, a document that names the new one alone.
"""

import copy
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from mesh.identity import Identity, make_identity
from mesh.proto.ids import root_fingerprint
from mesh.proto.register import Register
from mesh.proto.sign import KeySigner
from mesh.proto.trust import (
    OrderKeys,
    RosterRecord,
    Status,
    make_hub_record,
    make_roster_record,
    make_trust_document,
)


def seed(label: str) -> bytes:
    """Return 32 bytes that follow from a label."""
    return hashlib.blake2b(label.encode(), digest_size=32).digest()


FLEET_MS: Final = 1_798_000_000_000
"""Where simulated time begins: late 2026."""


@lru_cache(maxsize=4096)
def identity(label: str, kem_epoch: int = 1, made_ms: int = FLEET_MS) -> Identity:
    """Return a member's identity with its X25519 key of an epoch; nobody may change it."""
    kem = seed(f"{label}/kem/{kem_epoch}/{made_ms}")
    return make_identity(seed(f"{label}/id"), kem, kem_epoch, made_ms)


@dataclass(frozen=True, slots=True)
class Plan:
    """A member to be: its label, its site ("" for a hub), its roles, whether NAT hides it."""

    label: str
    site: str
    roles: frozenset[str] = frozenset({"node"})
    capabilities: frozenset[str] = frozenset()

    @property
    def is_hub(self) -> bool:
        """Tell whether it is a hub."""
        return "hub" in self.roles


class Organisation:
    """Who signs what, now."""

    def __init__(self, label: str, plans: Iterable[Plan]) -> None:
        self.label = label
        self.root = KeySigner(seed(f"{label}/root"))
        self.root_fp = root_fingerprint(self.root.public)
        self.generation = 1
        self.trust_version = 1
        self.named = [self.membership.public]
        self.site_keys: dict[str, KeySigner] = {}
        self.roster: dict[str, RosterRecord] = {}
        self.hub_versions: dict[str, int] = {}
        self.plans = {plan.label: plan for plan in plans}

    @property
    def membership(self) -> KeySigner:
        """The membership key of today."""
        return KeySigner(seed(f"{self.label}/membership/{self.generation}"))

    # -- records ---------------------------------------------------------------------------

    def founding(self) -> list[bytes]:
        """Return the records of the first day."""
        records = [self.trust_document()]
        for plan in self.plans.values():
            records.append(self.admit(plan))
        for plan in self.plans.values():
            records.append(identity(plan.label).key_record)
            if plan.is_hub:
                records.append(self.hub_address(plan.label, hub_url(plan.label, 1)))
        return records

    def trust_document(self) -> bytes:
        """Return the trust document of today."""
        orders = KeySigner(seed(f"{self.label}/orders")).public
        sites = {name: [key.public] for name, key in self.site_keys.items()}
        more = {"site_keys": sites} if sites else {}
        return make_trust_document(
            self.root,
            version=self.trust_version,
            membership=self.named,
            assets=[KeySigner(seed(f"{self.label}/assets")).public],
            orders={"eu": OrderKeys(1, (orders,))},
            **more,  # type: ignore[arg-type]
        )

    def admit(self, plan: Plan, signer: KeySigner | None = None) -> bytes:
        """Return the roster record of a new member, signed by the membership key or another."""
        self.plans[plan.label] = plan
        record = RosterRecord(
            identity_public=identity(plan.label).public,
            trust_version=self.trust_version,
            version=1,
            site=plan.site,
            roles=plan.roles,
            capabilities=plan.capabilities,
            name=plan.label,
        )
        return self._sign(plan.label, record, signer)

    def end(
        self,
        label: str,
        status: Status,
        heads: dict[str, tuple[int, int, bytes]] | None = None,
        signer: KeySigner | None = None,
    ) -> bytes:
        """Return the record that changes a member's status."""
        old = self.roster[label]
        same = old.trust_version == self.trust_version
        record = replace(
            old,
            status=status,
            heads=heads or {},
            trust_version=self.trust_version,
            version=old.version + 1 if same else 1,
        )
        return self._sign(label, record, signer)

    def _sign(self, label: str, record: RosterRecord, signer: KeySigner | None = None) -> bytes:
        self.roster[label] = record
        return make_roster_record(signer or self.membership, self.root_fp, record)

    def hub_address(self, label: str, url: str, tls: bytes = b"") -> bytes:
        """Return a hub's record of where it answers."""
        version = self.hub_versions[label] = self.hub_versions.get(label, 0) + 1
        who = identity(label)
        return make_hub_record(
            who, self.root_fp, version=version, urls=[url], tls_sha256=tls, region="eu"
        )

    # -- rotation --------------------------------------------------------------------------

    def begin_rotation(self) -> list[bytes]:
        """Name a new membership key beside the old one; sign every roster record anew."""
        self.generation += 1
        self.trust_version += 1
        self.named = [*self.named, self.membership.public]
        records = [self.trust_document()]
        for label, old in self.roster.items():
            record = replace(old, trust_version=self.trust_version, version=1)
            records.append(self._sign(label, record))
        return records

    def end_rotation(self) -> list[bytes]:
        """Name the new key alone."""
        self.trust_version += 1
        self.named = [self.membership.public]
        return [self.trust_document()]

    def delegate(self, sites: Iterable[str]) -> bytes:
        """Give sites keys of their own; return the document that says so."""
        self.site_keys = {site: KeySigner(seed(f"{self.label}/{site}")) for site in sites}
        self.trust_version += 1
        return self.trust_document()


def hub_url(label: str, version: int) -> str:
    """Return where a hub answers."""
    return f"https://{label}-{version}.example:8443"


def book_like(register: Register) -> Register:
    """Return a register that says the same, without checking every record once more."""
    twin: Register = _twin(register)
    return twin


def _twin(value: Any) -> Any:
    """Copy what changes; signed records and what was read from them do not."""
    if isinstance(value, dict):
        copied = copy.copy(value)
        copied.update({key: _twin(one) for key, one in value.items()})
        return copied
    if isinstance(value, (list, set)):
        return copy.copy(value)
    if not hasattr(value, "__dict__") or isinstance(value, type):
        return value
    copied = copy.copy(value)
    for name, one in vars(value).items():
        setattr(copied, name, _twin(one))
    return copied
