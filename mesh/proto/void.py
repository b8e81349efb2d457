"""How keys of the trust document end: retired with honour, or void with a list of what stands.

The lists are records of their own (KEPT), signed by the root and named by their hashes in the
document; a register believes the document only once it has all of them, so that nobody is
without members in between. It knows no disk. Rule: a key that leaked is voided whole; what it
signed and is not in the lists never counts again, whatever trust version it claims.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.sign import Signer, digest_of, open_record, sign_record
from mesh.proto.trust import (
    HASH_BYTES,
    KEYS_PER_ROLE_MAX,
    VOID_LISTS_MAX,
    Retired,
    TrustDocument,
    Void,
)

KEPT: Final = "kept"
LIST_DIGESTS_MAX: Final = 3_000
"""Record digests in one list: 48,000 bytes."""


def open_kept_record(data: bytes, root_fp: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return (hash of the list, the digests in it)."""
    body, _, raw_body = open_record(data, KEPT, 1, root_fp)
    joined = fields.raw(body, "digests")
    if len(joined) % HASH_BYTES or len(joined) > LIST_DIGESTS_MAX * HASH_BYTES:
        raise CodecError("a list of digests of impossible length")
    digests = (joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES))
    return digest_of(raw_body), frozenset(digests)


def make_kept_records(root: Signer, root_fp: bytes, digests: Iterable[bytes]) -> list[bytes]:
    """Return the signed lists of the digests that stay valid of one key."""
    ordered = sorted(digests)
    parts = [
        ordered[at : at + LIST_DIGESTS_MAX] for at in range(0, len(ordered), LIST_DIGESTS_MAX)
    ]
    if len(parts) > VOID_LISTS_MAX:
        raise Refused(f"more than {VOID_LISTS_MAX * LIST_DIGESTS_MAX} records to keep")
    bodies = [{"kind": KEPT, "digests": b"".join(part)} for part in parts]
    return [sign_record(root, KEPT, 1, root_fp, body) for body in bodies]


def with_void(
    trust: TrustDocument, key: bytes, site: str, kept: Sequence[bytes], root_fp: bytes
) -> TrustDocument:
    """Return the next document, which voids a key but for the records in these lists.

    ``site``: "" for a membership key, else the site whose key it was. Raises Refused when the
    organisation would be left without a membership key.
    """
    hashes = tuple(open_kept_record(record, root_fp)[0] for record in kept)
    made = _without(trust, key)
    return replace(made, void={**made.void, key: Void(site, hashes)})


def with_retired(trust: TrustDocument, keys: Iterable[bytes]) -> TrustDocument:
    """Return the next document, in which these keys sign no more and their records stand."""
    made = trust
    for key in keys:
        sites = [site for site, named in trust.site_keys.items() if key in named]
        if key in trust.membership or sites:
            site = "" if key in trust.membership else sites[0]
            made = _without(made, key)
            made = replace(made, retired={**made.retired, key: Retired(site, trust.version)})
    return replace(made, version=trust.version + 1)


def with_site_key(trust: TrustDocument, site: str, key: bytes) -> TrustDocument:
    """Return the next document, in which a key speaks for one site; raises Refused."""
    elsewhere = any(key in keys for other, keys in trust.site_keys.items() if other != site)
    was = trust.retired.get(key)
    if elsewhere or key in trust.void or key in trust.membership or (was and was.site != site):
        raise Refused("this key is void, or has another place in the trust document")
    if key in trust.site_keys.get(site, ()):
        raise Refused(f"this key speaks for site {site} already; there is nothing to do")
    if len(trust.site_keys.get(site, ())) >= KEYS_PER_ROLE_MAX:
        raise Refused(f"a site has at most {KEYS_PER_ROLE_MAX} keys; take one back first")
    keys = (*trust.site_keys.get(site, ()), key)
    retired = {one: how for one, how in trust.retired.items() if one != key}
    named = {**trust.site_keys, site: keys}
    return replace(trust, version=trust.version + 1, site_keys=named, retired=retired)


def _without(trust: TrustDocument, key: bytes) -> TrustDocument:
    membership = tuple(one for one in trust.membership if one != key)
    if not membership:
        raise Refused("this is the last membership key: name another one first")
    site_keys = {
        site: left
        for site, keys in trust.site_keys.items()
        if (left := tuple(one for one in keys if one != key))
    }
    retired = {one: how for one, how in trust.retired.items() if one != key}
    return replace(
        trust,
        version=trust.version + 1,
        membership=membership,
        site_keys=site_keys,
        retired=retired,
    )
