"""A node's own keys: made once, kept on disk, never sent anywhere.

It knows no organisation: the same identity may ask to join any. Rules: both private keys stand
in one file (0600, in a 0700 folder), made atomically and fsynced before anyone sees the node
id; a file that is there but cannot be read whole is never overwritten, since a new identity in
its place would be another node.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mesh.errors import Refused
from mesh.keyfile import KeyFileDamaged, parse_lines, read_private, render_lines, write_new
from mesh.proto.ids import node_id
from mesh.proto.sign import SEED_BYTES, KeySigner
from mesh.proto.trust import make_key_record

IDENTITY_FILE: Final = "identity.key"
FILE_KIND: Final = "rackmesh-identity 1"


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who this node is. ``repr`` shows the node id and nothing else."""

    node_id: str
    public: bytes
    kem_private: bytes
    kem_public: bytes
    kem_epoch: int
    key_record: bytes
    signer: KeySigner

    def sign(self, kind: str, n: int, root_fp: bytes, body: bytes) -> bytes:
        """Return the identity's Ed25519 signature over the domain-separated message."""
        return self.signer.sign(kind, n, root_fp, body)

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


def make_identity(seed: bytes, kem_private: bytes, kem_epoch: int = 1) -> Identity:
    """Build an identity from its private halves (32 bytes each)."""
    signer = KeySigner(seed)
    kem_public = (
        X25519PrivateKey.from_private_bytes(kem_private).public_key().public_bytes_raw()
    )
    return Identity(
        node_id=node_id(signer.public),
        public=signer.public,
        kem_private=kem_private,
        kem_public=kem_public,
        kem_epoch=kem_epoch,
        key_record=make_key_record(signer, kem_public, kem_epoch),
        signer=signer,
    )


def load_or_make_identity(
    folder: Path, entropy: Callable[[int], bytes] = os.urandom
) -> Identity:
    """Return the identity kept in a folder; the first call makes it.

    Raises Refused with one sentence when the file is damaged or open to other users.
    """
    path = folder / IDENTITY_FILE
    data = read_private(path)
    if data is None:
        seed, kem_private = entropy(SEED_BYTES), entropy(32)
        lines = {"identity": seed.hex(), "kem-epoch": "1", "kem": kem_private.hex()}
        if write_new(path, render_lines(FILE_KIND, lines)):
            return make_identity(seed, kem_private)
        data = read_private(path)  # another process was faster: its identity holds
    try:
        lines = parse_lines(FILE_KIND, data or b"")
        return make_identity(
            bytes.fromhex(lines["identity"]),
            bytes.fromhex(lines["kem"]),
            int(lines["kem-epoch"]),
        )
    except (KeyFileDamaged, KeyError, ValueError, AssertionError) as exc:
        raise Refused(
            f"the key file {path} is damaged; restore it from a backup, or move it away to"
            " start as a new node that joins with a new token"
        ) from exc
