"""A hub's role keys, and how the root comes to name them: the next trust document.

A hub that joined makes its own keys (membership, orders of its region, assets) and says their
public halves in a record signed by its identity; whoever holds the root key makes the document
of the next version out of the present one. It knows no disk and no register. Rules: the record
is bound to the organisation and to the identity, so whoever types a hub's node id need trust
nobody between; a new document says all that the old one said but what was asked to change;
naming twice and voiding what is not named are refused with one sentence.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.ids import SITE_PATTERN, node_id, root_fingerprint
from mesh.proto.sign import KEY_BYTES, Signer, open_record, sign_record
from mesh.proto.trust import (
    KEYS_PER_ROLE_MAX,
    REGIONS_MAX,
    OrderKeys,
    Retired,
    TrustDocument,
    make_trust_document,
)

HUB_KEYS: Final = "hub-keys"
EPOCH_FIRST: Final = 1


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """The public halves of one hub's keys."""

    hub_id: str
    region: str
    membership: bytes
    orders: bytes
    assets: bytes

    def named_in(self, trust: TrustDocument | None) -> bool:
        """Tell whether a trust document names all of them in their roles."""
        if trust is None:
            return False
        region = trust.orders.get(self.region)
        return (
            self.membership in trust.membership
            and self.assets in trust.assets
            and region is not None
            and self.orders in region.keys
        )

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every key."""
        return self.membership, self.orders, self.assets


def make_role_keys_record(identity: Signer, root_fp: bytes, keys: RoleKeys) -> bytes:
    """Return a hub's signed record of its role keys."""
    assert keys.hub_id == node_id(identity.public)
    body = {
        "kind": HUB_KEYS,
        "region": keys.region,
        "membership": keys.membership,
        "orders": keys.orders,
        "assets": keys.assets,
    }
    return sign_record(identity, HUB_KEYS, 1, root_fp, body)


def open_role_keys_record(data: bytes, root_fp: bytes) -> RoleKeys:
    """Return whose keys these are; raise CodecError when the signature does not hold."""
    body, signer, _ = open_record(data, HUB_KEYS, 1, root_fp)
    region = fields.text(body, "region", chars_max=31)
    if not SITE_PATTERN.match(region):
        raise CodecError("a record of role keys names an impossible region")
    return RoleKeys(
        hub_id=node_id(signer),
        region=region,
        membership=fields.raw(body, "membership", KEY_BYTES),
        orders=fields.raw(body, "orders", KEY_BYTES),
        assets=fields.raw(body, "assets", KEY_BYTES),
    )


def with_keys(trust: TrustDocument, keys: RoleKeys) -> TrustDocument:
    """Return the next document, which names a hub's keys too; raises Refused."""
    if keys.named_in(trust):
        raise Refused(
            f"the keys of hub {keys.hub_id} are named already; there is nothing to do"
        )
    if keys.membership in trust.void:
        raise Refused(
            "the membership key of this hub is void; let it join anew, in a new folder"
        )
    region = trust.orders.get(keys.region, OrderKeys(EPOCH_FIRST, ()))
    orders = {
        **trust.orders,
        keys.region: OrderKeys(region.epoch, _with(region.keys, keys.orders)),
    }
    if len(orders) > REGIONS_MAX:
        raise Refused(f"there are {REGIONS_MAX} regions already; give the hub one of them")
    made = replace(
        trust,
        version=trust.version + 1,
        membership=_with(trust.membership, keys.membership),
        assets=_with(trust.assets, keys.assets),
        orders=orders,
    )
    named = (made.membership, made.assets, orders[keys.region].keys)
    if any(len(role) > KEYS_PER_ROLE_MAX for role in named):
        raise Refused(
            f"a role has at most {KEYS_PER_ROLE_MAX} keys; void those of a hub that is gone"
        )
    return made


def without_keys(trust: TrustDocument, gone: Iterable[bytes]) -> TrustDocument:
    """Return the next document, which names these keys in no role; raises Refused.

    A role must keep a key: an organisation without a membership key admits and ends nobody.
    The members that such a key has admitted stay: it is retired (leaked ones: ``void.py``).
    """
    wanted = frozenset(gone)
    orders = {
        region: OrderKeys(role.epoch, _without(role.keys, wanted))
        for region, role in trust.orders.items()
    }
    made = replace(
        trust,
        version=trust.version + 1,
        membership=_without(trust.membership, wanted),
        assets=_without(trust.assets, wanted),
        orders={region: role for region, role in orders.items() if role.keys},
        retired={
            **trust.retired,
            **{k: Retired("", trust.version) for k in trust.membership if k in wanted},
        },
    )
    left = (made.membership, made.assets, made.orders)
    if left == (trust.membership, trust.assets, trust.orders):
        raise Refused(
            "the trust document names no such key; rackmesh hub list shows what it does"
        )
    if not made.membership or not made.assets or not made.orders:
        raise Refused(
            "these are the last keys of a role: name another hub's first"
            " (rackmesh hub root admit)"
        )
    return made


def sign_document(root: Signer, trust: TrustDocument) -> bytes:
    """Return the signed form of a document of this root; raises Refused for another's."""
    if root.public != trust.root_public:
        raise Refused(
            f"this is the root key of organisation {root_fingerprint(root.public).hex()[:8]};"
            f" the hub belongs to {root_fingerprint(trust.root_public).hex()[:8]}"
        )
    return make_trust_document(
        root,
        version=trust.version,
        membership=trust.membership,
        assets=trust.assets,
        orders=trust.orders,
        approvers=trust.approvers,
        site_keys=trust.site_keys,
        retired=trust.retired,
        void=trust.void,
    )


def _with(keys: tuple[bytes, ...], key: bytes) -> tuple[bytes, ...]:
    return keys if key in keys else (*keys, key)


def _without(keys: tuple[bytes, ...], gone: frozenset[bytes]) -> tuple[bytes, ...]:
    return tuple(key for key in keys if key not in gone)
