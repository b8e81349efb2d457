"""A node's own keys: the identity, made once, and the X25519 key, replaced from time to time.

It knows no organisation: the same identity may ask to join any. Rules: all private keys stand
in one file (0600, in a 0700 folder), made atomically and fsynced before anyone sees the node
id; a new X25519 key is in the file before it is used; a replaced one stays, to open what was
sealed to it, until ``forget`` says that nothing is; a file that is there but cannot be read
whole is never overwritten, since a new identity in its place would be another node.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mesh.errors import Refused
from mesh.host.files import write_file
from mesh.keyfile import KeyFileDamaged, parse_lines, read_private, render_lines, write_new
from mesh.proto.ids import node_id
from mesh.proto.sign import SEED_BYTES, KeySigner
from mesh.proto.steady_time import WRITTEN_MS
from mesh.proto.trust import make_key_record

IDENTITY_FILE: Final = "identity.key"
FILE_KIND: Final = "rackmesh-identity 1"
OLD_PREFIX: Final = "kem-old-"
OLD_KEYS_MAX: Final = 64
"""Replaced keys that are kept; the oldest go first."""


@dataclass(frozen=True, slots=True, repr=False)
class KemKey:
    """An X25519 key of ours."""

    private: bytes
    epoch: int
    made_ms: int  # 0: not known
    public: bytes = field(init=False)

    def __post_init__(self) -> None:
        private = X25519PrivateKey.from_private_bytes(self.private)
        object.__setattr__(self, "public", private.public_key().public_bytes_raw())


class Identity:
    """Who this node is. ``repr`` shows the node id and nothing else."""

    def __init__(
        self,
        seed: bytes,
        kem: KemKey,
        old: Mapping[int, KemKey] | None = None,
        path: Path | None = None,
    ) -> None:
        """``path``: the file that the keys stand in, if any."""
        self.signer = KeySigner(seed)
        self.public = self.signer.public
        self.node_id = node_id(self.public)
        self._seed = seed
        self._kem = kem
        self._old = dict(old or {})
        self._path = path
        self.key_record = self._record(kem)

    @property
    def kem_private(self) -> bytes:
        """The X25519 key of today: the static key of handshakes."""
        return self._kem.private

    @property
    def kem_public(self) -> bytes:
        """Its public half."""
        return self._kem.public

    @property
    def kem_epoch(self) -> int:
        """Its number; a later key has a higher one."""
        return self._kem.epoch

    @property
    def kem_made_ms(self) -> int:
        """When it was made, 0 when that is not known."""
        return self._kem.made_ms

    def sealed_to(self, epoch: int) -> bytes | None:
        """Return the private key of an epoch, None when it is not (or no longer) here."""
        if epoch == self._kem.epoch:
            return self._kem.private
        old = self._old.get(epoch)
        return old.private if old else None

    def replaced(self) -> dict[int, int]:
        """Return the epochs of replaced keys that are still here, and when each was made."""
        return {epoch: key.made_ms for epoch, key in self._old.items()}

    def renew(
        self, above: int, now_ms: int, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        """Make a new X25519 key with an epoch above a number; raises OSError, and nothing has
        changed then."""
        epoch = max(above, self._kem.epoch) + 1
        made = KemKey(entropy(32), epoch, now_ms if now_ms >= WRITTEN_MS else 0)
        old = {**self._old, self._kem.epoch: self._kem}
        while len(old) > OLD_KEYS_MAX:
            del old[min(old)]
        self._keep(made, old)

    def forget(self, epochs: Collection[int]) -> None:
        """Delete replaced keys; raises OSError, and nothing has changed then."""
        left = {epoch: key for epoch, key in self._old.items() if epoch not in epochs}
        if left != self._old:
            self._keep(self._kem, left)

    def sign(self, kind: str, n: int, root_fp: bytes, body: bytes) -> bytes:
        """Return the identity's Ed25519 signature over the domain-separated message."""
        return self.signer.sign(kind, n, root_fp, body)

    def _keep(self, kem: KemKey, old: dict[int, KemKey]) -> None:
        if self._path is not None:
            write_file(self._path, _render(self._seed, kem, old))
        self.key_record = self._record(kem)
        self._kem, self._old = kem, old

    def _record(self, kem: KemKey) -> bytes:
        return make_key_record(self.signer, kem.public, kem.epoch, kem.made_ms)

    def __repr__(self) -> str:
        return f"Identity({self.node_id})"


def make_identity(
    seed: bytes, kem_private: bytes, kem_epoch: int = 1, made_ms: int = 0
) -> Identity:
    """Build an identity from its private halves (32 bytes each)."""
    return Identity(seed, KemKey(kem_private, kem_epoch, made_ms))


def load_or_make_identity(
    folder: Path, entropy: Callable[[int], bytes] = os.urandom, now_ms: int = 0
) -> Identity:
    """Return the identity kept in a folder; the first call makes it, at ``now_ms``.

    Raises Refused with one sentence when the file is damaged or open to other users.
    """
    path = folder / IDENTITY_FILE
    data = read_private(path)
    if data is None:
        made_ms = now_ms if now_ms >= WRITTEN_MS else 0  # a dead clock says nothing
        seed, kem = entropy(SEED_BYTES), KemKey(entropy(32), 1, made_ms)
        if write_new(path, _render(seed, kem, {})):
            return Identity(seed, kem, path=path)
        data = read_private(path)  # another process was faster: its identity holds
    try:
        lines = parse_lines(FILE_KIND, data or b"")
        kem = _read_kem(lines["kem"], int(lines["kem-epoch"]), lines.get("kem-made", "0"))
        old = {
            int(name.removeprefix(OLD_PREFIX)): value.split(" ")
            for name, value in lines.items()
            if name.startswith(OLD_PREFIX)
        }
        kept = {epoch: _read_kem(key, epoch, made) for epoch, (key, made) in old.items()}
        return Identity(bytes.fromhex(lines["identity"]), kem, kept, path)
    except (KeyFileDamaged, KeyError, ValueError, AssertionError) as exc:
        raise Refused(
            f"the key file {path} is damaged; restore it from a backup, or move it away to"
            " start as a new node that joins with a new token"
        ) from exc


def _read_kem(private: str, epoch: int, made_ms: str) -> KemKey:
    return KemKey(bytes.fromhex(private), epoch, int(made_ms))


def _render(seed: bytes, kem: KemKey, old: Mapping[int, KemKey]) -> bytes:
    lines = {
        "identity": seed.hex(),
        "kem-epoch": str(kem.epoch),
        "kem": kem.private.hex(),
        "kem-made": str(kem.made_ms),
    }
    for epoch, key in sorted(old.items()):
        lines[f"{OLD_PREFIX}{epoch}"] = f"{key.private.hex()} {key.made_ms}"
    return render_lines(FILE_KIND, lines)
