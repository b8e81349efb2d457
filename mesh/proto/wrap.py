"""The root key under a passphrase: argon2id makes a key, AES-256-GCM wraps 32 bytes with it.

It knows no file. Rules: the parameters stand beside the ciphertext and are covered by it;
bounds on them keep a forged file from eating the machine's memory; a wrong passphrase and a
damaged file look the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from mesh.errors import CodecError

SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
MEMORY_KIB_MAX: Final = 1 << 20
PASSES_MAX: Final = 16
LANES: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapCost:
    """What one guess of the passphrase costs; 0.3 s on one core of the smallest machine."""

    memory_kib: int = 64 << 10
    passes: int = 2


def wrap_seed(
    seed: bytes, passphrase: str, entropy: Callable[[int], bytes], cost: WrapCost
) -> dict[str, str]:
    """Return the lines of a key file that hold a 32-byte seed under a passphrase."""
    assert len(seed) == 32
    lines = {
        "memory-kib": str(cost.memory_kib),
        "passes": str(cost.passes),
        "salt": entropy(SALT_BYTES).hex(),
        "nonce": entropy(NONCE_BYTES).hex(),
    }
    sealed = AESGCM(derive_key(lines, passphrase)).encrypt(
        bytes.fromhex(lines["nonce"]), seed, _covered(lines)
    )
    return {**lines, "sealed": sealed.hex()}


def unwrap_seed(lines: Mapping[str, str], passphrase: str) -> bytes:
    """Return the seed; raise CodecError for a wrong passphrase or damaged lines."""
    try:
        key = derive_key(lines, passphrase)
        nonce, sealed = bytes.fromhex(lines["nonce"]), bytes.fromhex(lines["sealed"])
        return AESGCM(key).decrypt(nonce, sealed, _covered(lines))
    except (InvalidTag, KeyError, ValueError) as exc:
        raise CodecError("wrong passphrase, or the file is damaged") from exc


def derive_key(lines: Mapping[str, str], passphrase: str) -> bytes:
    """Return the 32-byte key of a passphrase; ``lines`` hold memory-kib, passes and salt.

    Raises KeyError or ValueError for lines that cannot be meant. Takes a third of a second.
    """
    memory_kib, passes = int(lines["memory-kib"]), int(lines["passes"])
    if not (8 <= memory_kib <= MEMORY_KIB_MAX and 1 <= passes <= PASSES_MAX):
        raise ValueError("impossible cost")
    kdf = Argon2id(
        salt=bytes.fromhex(lines["salt"]),
        length=32,
        iterations=passes,
        lanes=LANES,
        memory_cost=memory_kib,
    )
    return kdf.derive(passphrase.encode())


def _covered(lines: Mapping[str, str]) -> bytes:
    text = " ".join(lines[name] for name in ("memory-kib", "passes", "salt", "nonce"))
    return f"rackmesh/root-wrap/1\0{text}".encode()
