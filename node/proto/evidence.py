"""Does the evidence of an agent's command prove what the job claims?

It knows the evidence's fields and what the order asked for. Rule: a command without full proof
has failed, loudly, whatever the agent calls it.
"""

from collections.abc import Mapping
from typing import Any


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
        case "first_boot":
            if evidence.get("cidata") not in ("partition", "raw"):
                return f"{name} does not say where the first-boot data went"
        case _:
            pass
    return None
