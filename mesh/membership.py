"""What is done to the register: found the organisation, admit, change and end members.

It knows no tokens (``join_desk.py``) and no link. Rules: every change is a new version of a
signed record, durable here before the call returns; starting again changes nothing that already
holds; ``revoked`` is for good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mesh.errors import Refused
from mesh.hub_keys import HubKeys
from mesh.identity import Identity
from mesh.proto.register import Member, Register
from mesh.proto.sign import Signer
from mesh.proto.trust import (
    HUB,
    MEMBER,
    REVOKED,
    ROLE_HUB,
    SUSPENDED,
    RosterRecord,
    Status,
    TrustDocument,
    make_hub_record,
    make_roster_record,
    open_hub_record,
)
from mesh.register_store import RegisterStore

VERSION_FIRST: Final = 1


def found(
    keys: HubKeys,
    identity: Identity,
    store: RegisterStore,
    *,
    urls: Sequence[str],
    tls_sha256: bytes = b"",
    name: str = "",
) -> None:
    """Put a hub into its own register: trust document, membership, key, address. Idempotent."""
    store.merge(keys.trust_document)
    if store.register.trust is None:
        raise Refused("the hub's trust document does not belong to this register")
    if store.register.member(identity.node_id) is None:
        admit(keys, store, identity.public, site="", roles=frozenset({ROLE_HUB}), name=name)
    store.merge(identity.key_record)
    announce(keys, identity, store, urls=urls, tls_sha256=tls_sha256)


def announce(
    keys: HubKeys,
    identity: Identity,
    store: RegisterStore,
    *,
    urls: Sequence[str],
    tls_sha256: bytes = b"",
) -> None:
    """Say where the hub answers, when that is not what the register says already."""
    version = VERSION_FIRST
    old = store.register.record(HUB, identity.node_id)
    if old is not None:
        record = open_hub_record(old, keys.root_fp)
        if (record.urls, record.tls_sha256) == (tuple(urls), tls_sha256):
            return
        version = record.version + 1
    store.merge(
        make_hub_record(
            identity,
            keys.root_fp,
            version=version,
            urls=urls,
            tls_sha256=tls_sha256,
            region=keys.region,
        )
    )


def admit(
    keys: HubKeys,
    store: RegisterStore,
    identity_public: bytes,
    *,
    site: str,
    roles: frozenset[str],
    name: str = "",
) -> None:
    """Sign and keep the roster record of a new member, or of one that comes back."""
    trust = Voice(keys.membership).trust_version(store.register)
    record = RosterRecord(
        identity_public=identity_public,
        trust_version=trust,
        version=VERSION_FIRST,
        site=site,
        roles=roles,
        name=name,
    )
    known = store.register.member(record.node_id)
    if known is not None and known.status == REVOKED:
        raise Refused(f"node {record.node_id} is revoked for good; it needs a new identity")
    same = known is not None and known.status == MEMBER
    if known is not None and same and (known.site, known.roles) == (site, roles):
        return
    _keep(keys.membership, store, record, known)


@dataclass(frozen=True, slots=True)
class Voice:
    """A key that speaks about members: of the organisation, or of one site."""

    signer: Signer
    site: str = ""

    def trust_version(self, register: Register) -> int:
        """Return the version that this key signs under; Refused when it is not named."""
        trust = register.trust
        if trust is None or not self._is_named(trust):
            whose = f"site {self.site}'s key" if self.site else "hub's membership key"
            raise Refused(f"the trust document does not name this {whose}")
        return trust.version

    def _is_named(self, trust: TrustDocument) -> bool:
        named = trust.site_keys.get(self.site, ()) if self.site else trust.membership
        return self.signer.public in named


def speak_for_self(voice: Voice, store: RegisterStore, node_id: str) -> bool:
    """Sign a hub's own record anew when the key that signed it is void; return whether it was.

    It stands by a list until then, and who joins has no lists: it would not know the hub.
    """
    register = store.register
    trust, known, signer = register.trust, register.member(node_id), register.signer_of(node_id)
    if trust is None or known is None or known.status != MEMBER or signer not in trust.void:
        return False
    if voice.signer.public not in trust.membership:
        return False
    record = RosterRecord(
        identity_public=known.identity_public,
        trust_version=trust.version,
        version=VERSION_FIRST,
        site=known.site,
        roles=known.roles,
        capabilities=known.capabilities,
        name=known.name,
    )
    _keep(voice.signer, store, record, known)
    return True


def set_status(
    voice: Voice,
    store: RegisterStore,
    node_id: str,
    status: Status,
    heads: Mapping[str, tuple[int, int, bytes]] | None = None,
) -> None:
    """Suspend, resume, dismiss or revoke a member.

    ``heads`` are the last accepted heads of its sets (scope -> epoch, seq, root) when it ends.
    """
    register = store.register
    known = register.member(node_id)
    if known is None:
        raise Refused(f"node {node_id} is not in the register")
    if known.status == status:
        return
    if known.status == REVOKED:
        raise Refused(f"node {node_id} is revoked for good; it needs a new identity")
    record = _as_known(voice, register, known, status)
    _keep(voice.signer, store, replace(record, heads=dict(heads or {})), known)


def set_capability(
    voice: Voice, store: RegisterStore, node_id: str, capability: str, *, given: bool
) -> None:
    """Give a member a capability, or take it away."""
    known = store.register.member(node_id)
    if known is None or known.status not in (MEMBER, SUSPENDED):
        raise Refused(f"node {node_id} is no member")
    status: Status = MEMBER if known.status == MEMBER else SUSPENDED
    record = _as_known(voice, store.register, known, status)  # refuses who may not
    if (capability in known.capabilities) == given:
        return
    caps = known.capabilities | {capability} if given else known.capabilities - {capability}
    _keep(voice.signer, store, replace(record, capabilities=caps), known)


def _as_known(voice: Voice, register: Register, known: Member, status: Status) -> RosterRecord:
    """Return the record of a member as it stands but for the status, for this key to sign."""
    trust_version = voice.trust_version(register)
    if voice.site:
        _check_site(register, known, voice.site, status)
    return RosterRecord(
        identity_public=known.identity_public,
        trust_version=trust_version,
        version=VERSION_FIRST,
        site=known.site,
        roles=known.roles,
        status=status,
        capabilities=known.capabilities,
        name=known.name,
    )


def _check_site(register: Register, known: Member, site: str, status: Status) -> None:
    """Refuse what a site's key may not say, before a record is made that nobody believes."""
    if known.site != site or ROLE_HUB in known.roles:
        raise Refused(f"node {known.node_id} is none of site {site}; ask a hub")
    if status != REVOKED and register.admitted_by(known.node_id) != site:
        raise Refused(
            f"node {known.node_id} was admitted by a hub, and only a hub can change it;"
            " this site can revoke it"
        )


def _keep(
    signer: Signer, store: RegisterStore, record: RosterRecord, known: Member | None
) -> None:
    if known is not None and known.trust_version == record.trust_version:
        version = known.version + 1
    else:
        version = VERSION_FIRST
    root_fp = store.register.root_fp
    signed = make_roster_record(signer, root_fp, replace(record, version=version))
    store.merge(signed)
