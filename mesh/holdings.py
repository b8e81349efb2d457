"""What a member holds, as one digest a scope: equal digests are equal rows.

It knows no peer. Rule: a digest covers the head of every set of the scope (author, epoch, seq,
root), and a root covers every row, so nothing that differs is left out. Scopes sealed to one
node are left out, since no two members need hold the same of them.
"""

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

from mesh.proto.flat_digest import known_of, packed
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.tables import pair_scope
from mesh.register_store import RegisterStore
from mesh.rest.types import Holdings

DIGEST_BYTES: Final = 16
PAIR: Final = pair_scope("")


class HeadsHolder(Protocol):
    """The store."""

    @property
    def heads(self) -> Mapping[SetId, SignedHead]:
        """Return the committed heads."""
        ...


def holdings(store: HeadsHolder, register: RegisterStore) -> Holdings:
    """Return the digests of the register and of each scope."""
    scopes = scope_digests(store.heads)
    return Holdings(
        register=register.register.digest().hex(),
        scopes={scope: text for scope, text in scopes.items() if not scope.startswith(PAIR)},
    )


def scope_digests(heads: Mapping[SetId, SignedHead]) -> dict[str, str]:
    """Return the digest (hex) of every scope that is held, sealed ones too."""
    scopes: dict[str, list[bytes]] = {}
    for signed in heads.values():
        known = known_of(signed)
        scopes.setdefault(known.id.scope, []).append(packed(known))
    return {scope: _digest(scopes[scope]) for scope in sorted(scopes)}


def _digest(parts: list[bytes]) -> str:
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in sorted(parts):
        total.update(part)
    return total.hexdigest()
