"""What a site wants of the erase of a disk: methods in order, the level, the fallback, samples.

It knows no disk; what a disk can do is matched with a policy by ``node/proto/erase_policy.py``.
Rules: a level is a promise, so a method below it runs only when the policy names it as the
fallback; levels are those of NIST SP 800-88r1 appendix A, and where IEEE 2883-2022 rates a
method lower (NVMe Format), the lower one counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields

SANITIZE_CRYPTO: Final = "nvme-sanitize-crypto"
SANITIZE_BLOCK: Final = "nvme-sanitize-block"
FORMAT_CRYPTO: Final = "nvme-format-crypto"
FORMAT_USER: Final = "nvme-format-user-data"
ATA_ENHANCED: Final = "ata-enhanced"
ATA_NORMAL: Final = "ata-normal"
WRITE_ZEROES: Final = "write-zeroes"
OVERWRITE: Final = "overwrite"
METHODS: Final = (
    SANITIZE_CRYPTO, SANITIZE_BLOCK, FORMAT_CRYPTO, FORMAT_USER, ATA_ENHANCED, ATA_NORMAL,
    WRITE_ZEROES, OVERWRITE,
)  # fmt: skip
"""All methods, in the order of the default policy."""
ZEROING: Final = frozenset({WRITE_ZEROES, OVERWRITE})
"""Methods after which the whole disk must read as zeros."""
ATA: Final = frozenset({ATA_ENHANCED, ATA_NORMAL})
UNPROVEN: Final = frozenset({
    SANITIZE_CRYPTO, SANITIZE_BLOCK, FORMAT_CRYPTO, ATA_ENHANCED, ATA_NORMAL,
})  # fmt: skip
"""Methods whose success no emulator shows: the record says *not proven on hardware*."""

CLEAR: Final = "clear"
PURGE: Final = "purge"
LEVELS: Final = (CLEAR, PURGE)
"""From the lower to the higher."""
SAMPLES_LEAST: Final = 16
SAMPLES_MOST: Final = 4096
SAMPLES_DEFAULT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupPolicy:
    """How disks are erased when a server is released."""

    level: str = CLEAR
    """``clear`` or ``purge``: what must be reached."""
    methods: tuple[str, ...] = METHODS
    """What may be used, best first."""
    fallback: tuple[str, ...] = ()
    """What may run though it is below the level, best first; empty: the server is held."""
    samples: int = SAMPLES_DEFAULT
    """Places read after the erase; half of them were marked before."""

    def dump(self) -> dict[str, Any]:
        """Return the policy as rows and the API have it."""
        return {
            "level": self.level,
            "methods": list(self.methods),
            "fallback": list(self.fallback),
            "samples": self.samples,
        }


DEFAULT: Final = CleanupPolicy()


def level_of(method: str, *, rotational: bool) -> str:
    """Return the level that a method reaches on a disk."""
    assert method in METHODS
    if method in (SANITIZE_CRYPTO, SANITIZE_BLOCK):
        return PURGE
    return PURGE if method == ATA_ENHANCED and rotational else CLEAR


def reaches(level: str, wanted: str) -> bool:
    """Tell whether a level is at least the one that is wanted."""
    return LEVELS.index(level) >= LEVELS.index(wanted)


def read_policy(body: Mapping[str, Any]) -> CleanupPolicy:
    """Return a policy from a row or a request; raises CodecError with what would be right."""
    level = fields.text(body, "level", default=CLEAR)
    if level not in LEVELS:
        raise CodecError(f"field level is {level[:40]!r}; it is {' or '.join(LEVELS)}")
    methods = _methods(body, "methods", METHODS)
    if not methods:
        raise CodecError("field methods is empty; name at least one")
    return CleanupPolicy(
        level=level,
        methods=methods,
        fallback=_methods(body, "fallback", ()),
        samples=fields.integer(
            body, "samples", least=SAMPLES_LEAST, most=SAMPLES_MOST, default=SAMPLES_DEFAULT
        ),
    )


def _methods(body: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    found = fields.texts(body, key, count_max=16, chars_max=64, default=default)
    wrong = next((name for name in found if name not in METHODS), None)
    if wrong is not None:
        raise CodecError(f"field {key} names {wrong!r}; known: {', '.join(METHODS)}")
    if len(set(found)) != len(found):
        raise CodecError(f"field {key} names a method twice")
    return found
