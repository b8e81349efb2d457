"""Does the evidence of an agent's command prove what the job claims?

It knows the evidence's fields and what the order asked for. Rule: a command without full proof
has failed, loudly, whatever the agent calls it.
"""

from collections.abc import Mapping
from typing import Any, Final

from mesh.proto.cleanup import ZEROING

BLOCK_BYTES: Final = 4096
SECTORS: Final = 8
"""Sectors in a block that is looked at."""


def missing_proof(
    do: str, name: str, evidence: Mapping[str, Any], size: int | None, sha256: str | None
) -> str | None:
    """Say what an agent's evidence does not prove, in one sentence; None: it does.

    ``name`` is the server's, ``size`` and ``sha256`` are of the asset that was to be written.
    """
    match do:
        case "write_image":
            if evidence.get("bytes") != size:
                return f"{name} wrote {evidence.get('bytes')} bytes of an image of {size} bytes"
            if evidence.get("sha256") != sha256:
                return (
                    f"the disk of {name} reads back as sha256 {evidence.get('sha256')},"
                    f" but the image has {sha256}"
                )
        case "wipe":
            size_seen, verified = evidence.get("bytes"), evidence.get("verified_bytes")
            if not isinstance(size_seen, int) or size_seen <= 0 or verified != size_seen:
                return f"{name} read back {verified} of {size_seen} wiped bytes"
            nonzero = evidence.get("nonzero")
            if nonzero != 0 or isinstance(nonzero, bool):
                return f"{name} still has {nonzero} bytes that are not zero after the wipe"
        case "erase":
            return f"{name}: the erase was not checked against its order"
        case "first_boot":
            if evidence.get("cidata") not in ("partition", "raw"):
                return f"{name} does not say where the first-boot data went"
        case _:
            pass
    return None


def missing_erase(
    name: str, asked: Mapping[str, Any], evidence: Mapping[str, Any]
) -> str | None:
    """Say what the evidence of an erase does not prove, in one sentence; None: it does.

    ``asked`` are the command's arguments: serial, bytes, methods, samples, seed.
    """
    disk = f"the disk {asked.get('serial') or 'without serial'} of {name}"
    size, method = asked["bytes"], evidence.get("method")
    if (evidence.get("serial"), evidence.get("bytes")) != (asked["serial"], size):
        return (
            f"{disk} was to be erased, but the evidence is of {evidence.get('serial')} with"
            f" {evidence.get('bytes')} bytes"
        )
    if method not in asked["methods"]:
        return f"{disk} was erased by {method}, which was not ordered"
    if evidence.get("seed") != asked["seed"]:
        return f"the evidence of {disk} is of another order: its seed differs"
    looked = max(1, min(int(asked["samples"]), size // BLOCK_BYTES))
    samples, markers = _count(evidence, "samples"), _count(evidence, "markers")
    if samples < looked or 2 * markers < looked:
        return f"only {samples} places of {disk} were looked at, {markers} of them marked"
    if _count(evidence, "telling") < SECTORS * markers:
        return f"the markers on {disk} were not all seen before the erase"
    if evidence.get("kept") != 0 or isinstance(evidence.get("kept"), bool):
        return f"{disk} still holds {evidence.get('kept')} sectors of what it held"
    if method in ZEROING and evidence.get("verified_bytes") != size:
        return f"{evidence.get('verified_bytes')} of {size} bytes of {disk} were read back"
    if method in ZEROING and evidence.get("pattern") != "zeros":
        return f"{disk} does not read as zeros after {method}"
    return None


def _count(evidence: Mapping[str, Any], key: str) -> int:
    value = evidence.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
