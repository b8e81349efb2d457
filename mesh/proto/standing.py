"""Which roster records stand under a trust document, and which of several about one node holds.

Pure questions over records whose signatures hold; the register (``register.py``) keeps them.
Rule: no order of arrival. A membership key that the document names speaks for everybody; of one
that it has retired the records of its time stand; of a key that it voids only those whose
digests it lists; a site key speaks for its own site alone, and never for a hub.
``revoked`` beats everything, then a
membership key beats a site key, then (trust version, version), then the lower hash.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.proto.trust import REVOKED, ROLE_HUB, RosterRecord, TrustDocument

BY_MEMBERSHIP: Final = ""
"""Slot of the record that a membership key signed; those of site keys have the site's name."""
SITES_MAX: Final = 4
"""Sites whose keys may claim one identity at once; the first by name are kept."""


@dataclass(frozen=True, slots=True)
class Stands:
    """The record counts, in this slot."""

    slot: str


@dataclass(frozen=True, slots=True)
class Early:
    """The record may count under a later trust document; ``reason`` is a constant phrase."""

    reason: str


def standing(
    trust: TrustDocument | None,
    kept: Mapping[bytes, Collection[bytes]],
    signer: bytes,
    roster: RosterRecord,
    digest: bytes,
) -> Stands | Early:
    """Say whether a roster record counts; ``kept``: digests that stand of each voided key."""
    if trust is None:
        return Early("no trust document yet")
    if signer in trust.void:
        listed = digest in kept.get(signer, ())
        slot = trust.void[signer].site
        return _stands(slot, roster) if listed else Early("signed by a key that is void")
    if roster.trust_version > trust.version:
        return Early("needs a newer trust document")
    if signer in trust.membership:
        return Stands(BY_MEMBERSHIP)
    if signer in trust.site_keys.get(roster.site, ()):
        return _stands(roster.site, roster)
    retired = trust.retired.get(signer)
    if retired is None:
        return Early("not signed by a membership key")
    if roster.trust_version > retired.until:
        return Early("signed by a retired key after its time")
    return _stands(retired.site, roster)


def _stands(slot: str, roster: RosterRecord) -> Stands | Early:
    """What a site's key may say."""
    if slot != BY_MEMBERSHIP and (roster.site != slot or ROLE_HUB in roster.roles):
        return Early("a site key speaks for nodes of its own site alone")
    return Stands(slot)


def holding(slots: Mapping[str, RosterRecord]) -> str:
    """Return the slot of the record that holds about a node."""
    by_site = sorted(slot for slot in slots if slot != BY_MEMBERSHIP)
    said = slots.get(BY_MEMBERSHIP)
    if said is None:  # of two sites that claim one identity, the first that has not ended it
        alive = [slot for slot in by_site if slots[slot].status != REVOKED]
        return (alive or by_site)[0]
    ended = slots.get(said.site) if said.site and ROLE_HUB not in said.roles else None
    if ended is not None and ended.status == REVOKED and said.status != REVOKED:
        return said.site
    return BY_MEMBERSHIP


def surplus(slots: Collection[str]) -> str | None:
    """Return the slot that is one too many, None when there is none."""
    by_site = sorted(slot for slot in slots if slot != BY_MEMBERSHIP)
    return by_site[-1] if len(by_site) > SITES_MAX else None
