"""Capabilities of a disk and a policy become a plan, or a refusal in one sentence.

It knows what a disk says of itself (the ``erase`` field of an inventory, from
``node/ramdisk/drive.py``) and nothing of how a method is carried out. Rules: a method that does
not reach the level runs only when the policy names it as the fallback; a frozen disk asks for
one power cycle before it counts as refused; what a disk says is input and may be anything.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.proto.cleanup import ATA, CLEAR, OVERWRITE, CleanupPolicy, level_of, reaches

SEED_CONTEXT: Final = b"rackmesh/erase-seed/1\0"


@dataclass(frozen=True, slots=True)
class ErasePlan:
    """Methods to try in this order, each good enough; the first that is carried out counts."""

    methods: tuple[str, ...]
    fallback: bool
    """True: they are below the level, and the policy named them for that."""
    rotational: bool = False
    old_agent: bool = False
    """True: the ramdisk says nothing of erasing; it can overwrite and read back all of it."""


@dataclass(frozen=True, slots=True)
class Held:
    """The disk cannot be erased as the policy says; the server stays held."""

    reason: str
    power_cycle: bool = False
    """True: switching the machine off and on may help (a frozen disk)."""


def plan_disk(disk: Mapping[str, Any], policy: CleanupPolicy) -> ErasePlan | Held:
    """Return how a disk is erased, or why it is not.

    ``disk`` is its entry in the inventory that the bound machine named.
    """
    name, told = disk_name(disk), disk.get("erase")
    rotational = disk.get("rotational") is True
    if not isinstance(told, Mapping):
        return _old_agent(name, policy)
    able = _able(told)
    locked, frozen = told.get("locked") is True, told.get("frozen") is True
    if locked:
        return Held(f"{name} is locked by an ATA password; unlock it, then retry the release")
    usable = [m for m in policy.methods if m in able and not (frozen and m in ATA)]
    good = tuple(m for m in usable if _good(m, policy, rotational))
    if good:
        return ErasePlan(good, False, rotational)
    waits = [m for m in policy.methods if m in able & ATA and _good(m, policy, rotational)]
    if frozen and waits:
        return Held(f"{name} is frozen by the firmware, so {waits[0]} is refused", True)
    lower = tuple(m for m in policy.fallback if m in able and not (frozen and m in ATA))
    if lower:
        return ErasePlan(lower, True, rotational)
    can = ", ".join(sorted(able)) or "nothing"
    return Held(
        f"{name} cannot be erased to the level {policy.level}: it can do {can},"
        " and the policy names no fallback that it can do"
    )


def after_power_cycle(disk: Mapping[str, Any], policy: CleanupPolicy) -> ErasePlan | Held:
    """Return the plan for a disk that is still frozen after the one power cycle."""
    first = plan_disk(disk, policy)
    told = disk.get("erase")
    if not isinstance(first, Held) or not first.power_cycle or not isinstance(told, Mapping):
        return first
    able = _able(told) - ATA
    lower = tuple(m for m in policy.fallback if m in able)
    if lower:
        return ErasePlan(lower, True, disk.get("rotational") is True)
    return Held(f"{first.reason}, also after a power cycle; no fallback is named")


def disk_name(disk: Mapping[str, Any]) -> str:
    """Return how a disk is called in sentences."""
    name, serial = str(disk.get("name") or "disk"), disk.get("serial")
    return f"{name} ({serial})" if isinstance(serial, str) and serial else name


def erase_seed(job: str, command: str) -> str:
    """Return the seed of an erase, 64 hex digits: anybody can compute it from the record."""
    data = SEED_CONTEXT + job.encode() + b"\0" + command.encode()
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _able(told: Mapping[str, Any]) -> set[str]:
    listed = told.get("methods")
    names = listed if isinstance(listed, list) else []
    return {name for name in names if isinstance(name, str)}


def _good(method: str, policy: CleanupPolicy, rotational: bool) -> bool:
    return reaches(level_of(method, rotational=rotational), policy.level)


def _old_agent(name: str, policy: CleanupPolicy) -> ErasePlan | Held:
    if OVERWRITE in policy.methods and reaches(CLEAR, policy.level):
        return ErasePlan((OVERWRITE,), False, old_agent=True)
    if OVERWRITE in policy.fallback:
        return ErasePlan((OVERWRITE,), True, old_agent=True)
    return Held(
        f"{name} cannot be erased to the level {policy.level}: the ramdisk does not say what"
        " the disk can do"
    )
