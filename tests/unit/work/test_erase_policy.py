"""Capabilities and a policy become a plan or a refusal; evidence is held against its order."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto import cleanup
from mesh.proto.cleanup import CleanupPolicy, read_policy
from node.proto import lifecycle as lc
from node.proto.erase_policy import (
    ErasePlan,
    Held,
    after_power_cycle,
    erase_seed,
    plan_disk,
)
from node.proto.evidence import missing_erase
from node.proto.plan import plan
from node.ramdisk import hardware
from node.work.agent_work import AgentWork

NVME = [m for m in cleanup.METHODS if not m.startswith("ata")]
ATA = ["ata-enhanced", "ata-normal", "overwrite"]
PURGE = CleanupPolicy(level="purge")


def disk(methods: list[str], **more: Any) -> dict[str, Any]:
    told = {"methods": methods, "frozen": False, "locked": False}
    told |= {k: more.pop(k) for k in ("frozen", "locked") if k in more}
    return {"name": "sda", "serial": "D1", "bytes": 1 << 20, "erase": told, **more}


def test_the_ramdisk_knows_the_methods_of_the_policy() -> None:
    own = {getattr(hardware, n) for n in dir(hardware) if n.isupper()}
    assert own == set(cleanup.METHODS)


def test_methods_run_in_the_order_of_the_policy() -> None:
    assert plan_disk(disk(NVME), CleanupPolicy()) == ErasePlan(tuple(NVME), False)
    own = CleanupPolicy(methods=("overwrite", "write-zeroes"))
    assert plan_disk(disk(NVME), own) == ErasePlan(("overwrite", "write-zeroes"), False)


def test_purge_is_never_quietly_a_clear() -> None:
    first = plan_disk(disk(NVME), PURGE)
    assert first == ErasePlan(("nvme-sanitize-crypto", "nvme-sanitize-block"), False)
    held = plan_disk(disk(["write-zeroes", "overwrite"]), PURGE)
    assert held == Held(
        "sda (D1) cannot be erased to the level purge: it can do overwrite, write-zeroes, and"
        " the policy names no fallback that it can do"
    )
    named = CleanupPolicy(level="purge", fallback=("overwrite",))
    assert plan_disk(disk(["write-zeroes", "overwrite"]), named) == ErasePlan(
        ("overwrite",), True
    )


def test_enhanced_erase_purges_a_platter_and_clears_a_flash() -> None:
    assert plan_disk(disk(ATA, rotational=True), PURGE) == ErasePlan(
        ("ata-enhanced",), False, True
    )
    assert isinstance(plan_disk(disk(ATA, rotational=False), PURGE), Held)


def test_a_frozen_disk_asks_for_one_power_cycle_and_then_says_so() -> None:
    frozen = disk(ATA, rotational=True, frozen=True)
    assert plan_disk(frozen, PURGE) == Held(
        "sda (D1) is frozen by the firmware, so ata-enhanced is refused", True
    )
    assert after_power_cycle(frozen, PURGE) == Held(
        "sda (D1) is frozen by the firmware, so ata-enhanced is refused, also after a power"
        " cycle; no fallback is named"
    )
    named = CleanupPolicy(level="purge", fallback=("ata-normal", "overwrite"))
    assert after_power_cycle(frozen, named) == ErasePlan(("overwrite",), True, True)
    assert plan_disk(frozen, CleanupPolicy()) == ErasePlan(("overwrite",), False, True)


def test_a_locked_disk_is_held() -> None:
    held = plan_disk(disk(ATA, locked=True), CleanupPolicy())
    assert isinstance(held, Held)
    assert "is locked by an ATA password" in held.reason


def test_a_ramdisk_that_names_no_methods_can_overwrite() -> None:
    old = {"name": "vda", "serial": "D1"}
    assert plan_disk(old, CleanupPolicy()) == ErasePlan(("overwrite",), False, old_agent=True)
    assert isinstance(plan_disk(old, PURGE), Held)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )
)
def test_garbage_never_raises(told: Any) -> None:
    for policy in (CleanupPolicy(), PURGE):
        plan_disk({"erase": {"methods": told, "frozen": told, "locked": told}}, policy)
        after_power_cycle({"erase": told, "serial": told, "name": told}, policy)
    with suppress(CodecError):
        read_policy({"methods": told, "level": told, "fallback": told, "samples": told})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"level": "destroy"}, "clear or purge"),
        ({"methods": []}, "name at least one"),
        ({"methods": ["shred"]}, "names 'shred'; known: nvme-sanitize-crypto"),
        ({"fallback": ["overwrite", "overwrite"]}, "twice"),
        ({"samples": 3}, "from 16 to 4096"),
    ],
)
def test_a_wrong_policy_is_told_what_would_be_right(body: dict[str, Any], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        read_policy(body)
    assert read_policy(PURGE.dump()) == PURGE


JOB = {"id": "J", "server_name": "srv1", "attempt": 1, "params": {}, "steps": []}
WIPE = next(s for s in plan(lc.RELEASE, {"server": "s"}, "srv1", True) if s.id == "wipe")


def work(*disks: dict[str, Any], policy: CleanupPolicy, **job: Any) -> AgentWork:
    return AgentWork(WIPE, {**JOB, **job}, {}, {"disks": list(disks)}, 1, policy)


def test_one_disk_that_cannot_keeps_all_from_being_touched() -> None:
    held = work(disk(NVME), disk(["overwrite"], serial="D2"), policy=PURGE)
    assert str(held.refusal).startswith("srv1: sda (D2) cannot be erased to the level purge")
    good = work(disk(NVME), policy=PURGE)
    assert (good.refusal, good.frozen) == (None, None)
    assert good.command.do == "erase"
    assert good.command.args == {
        "disk": {"serial": "D1"}, "serial": "D1", "bytes": 1 << 20, "samples": 256,
        "methods": ["nvme-sanitize-crypto", "nvme-sanitize-block"],
        "seed": erase_seed("J", "wipe.1.1.0"),
    }  # fmt: skip


def test_after_the_power_cycle_a_frozen_disk_is_no_longer_waited_for() -> None:
    frozen = disk(ATA, rotational=True, frozen=True)
    assert work(frozen, policy=PURGE).frozen is not None
    again = work(frozen, policy=PURGE, unfreeze_ms=1)
    assert again.frozen is None
    assert "also after a power cycle" in str(again.refusal)


ASKED = {
    "serial": "D1", "bytes": 1 << 20, "methods": ["overwrite", "nvme-format-crypto"],
    "samples": 16, "seed": "ab" * 32,
}  # fmt: skip
SEEN = {
    "serial": "D1", "bytes": 1 << 20, "method": "overwrite", "samples": 16, "markers": 9,
    "telling": 72, "kept": 0, "seed": "ab" * 32, "verified_bytes": 1 << 20, "pattern": "zeros",
}  # fmt: skip


def test_evidence_must_be_of_this_disk_this_order_and_whole() -> None:
    assert missing_erase("srv1", ASKED, SEEN) is None
    crypto = {**SEEN, "method": "nvme-format-crypto", "pattern": "other", "verified_bytes": 0}
    assert missing_erase("srv1", ASKED, crypto) is None
    for wrong in (
        {"serial": "D2"}, {"bytes": 5}, {"method": "ata-normal"}, {"seed": "00" * 32},
        {"samples": 15}, {"samples": True}, {"markers": 7}, {"telling": 71}, {"kept": 1},
        {"kept": False}, {"kept": None}, {"verified_bytes": 1}, {"pattern": "other"},
    ):  # fmt: skip
        assert missing_erase("srv1", ASKED, {**SEEN, **wrong}) is not None, wrong
    assert missing_erase("srv1", ASKED, {}) is not None
