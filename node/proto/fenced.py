"""Can what a job's runner had begun still reach a device? A pure look at rows.

Rule: what is not known to be harmless may be under way.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from node.proto.plan import Step

NO_DEVICE: Final = frozenset({
    "record", "inspect", "fetch", "agent", "ramdisk", "phone-in", "net-boot", "seal-login",
    "switch-login",
})  # fmt: skip
"""Verbs of steps that send nothing to a device; all others do."""
BEGIN_KNOWN_NODES_MAX: Final = 3


def fenced(
    job: Mapping[str, Any], server: Mapping[str, Any], plan: Iterable[Step], nodes: int
) -> bool:
    """Say whether nothing that its runner had begun can reach a device any more.

    True for a device that a new runner can shut the old one out of, and for a job of which no
    order to a device was begun: a begin is told to another node before the device is asked.
    In a site of more than three (``nodes``) that one need not be in the majority that grants.
    """
    bmc = server.get("bmc") or job["params"].get("bmc")
    url = bmc.get("url") if isinstance(bmc, Mapping) else None
    if url is None or url in (job.get("fence"), server.get("fence")):
        return True
    if nodes > BEGIN_KNOWN_NODES_MAX:
        return False
    begun = {e["id"] for e in job["steps"] if e.get("attempts") or e["state"] != "waiting"}
    return not any(step.id in begun and step.do not in NO_DEVICE for step in plan)
