"""Caps on jobs: never exceeded, oldest first, nobody kept back by what he does not use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.caps import Caps, Entry, delayed, parse_kinds

KINDS = ("server.deploy", "server.release", "server.power")
CAPS = st.builds(
    Caps,
    site=st.integers(0, 4),
    device=st.integers(0, 2),
    kinds=st.dictionaries(st.sampled_from(KINDS), st.integers(1, 3)),
)


def entry(number: int, kind: str = KINDS[0], device: str | None = None, **more: bool) -> Entry:
    state = {"running": False, "waits": True, **more}
    return Entry(id=f"{number:04}", kind=kind, name=f"srv{number}", device=device, **state)


JOBS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from([None, "bmc1", "bmc2"]), st.integers(0, 2)
    ),
    min_size=1, max_size=14,
)  # fmt: skip


def broken(caps: Caps, running: list[Entry]) -> bool:
    """Whether more run than a cap lets."""
    devices = [r.device for r in running if r.device]
    return (
        (0 < caps.site < len(running))
        or any(0 < caps.device < devices.count(device) for device in devices)
        or any(sum(r.kind == k for r in running) > most for k, most in caps.kinds.items())
    )


@given(caps=CAPS, jobs=JOBS, order=st.randoms(use_true_random=False))
def test_nodes_that_decide_apart_stay_inside_the_caps_and_all_come_to_their_turn(
    caps: Caps, jobs: list[tuple[str, str | None, int]], order: object
) -> None:
    known = [entry(n, kind, device) for n, (kind, device, _) in enumerate(jobs)]
    turns = 0
    while known:
        turns += 1
        assert turns <= len(jobs), "somebody never had his turn"
        # three nodes decide about their own jobs from the same rows, none hears of the others
        begun = [job.id for job in known if job.waits and delayed(job, known, caps) is None]
        assert begun, "nothing runs, and nothing begins"
        assert begun[0] == min(job.id for job in known), "the oldest goes first"
        running = [replace(job, running=True) for job in known if job.id in begun]
        assert not broken(caps, running)
        now = [next((r for r in running if r.id == job.id), job) for job in known]
        for job in now:
            said = None if job.running else delayed(job, now, caps)
            assert job.running or (said and said.startswith("delayed: at most"))
        known = [job for job in now if not job.running]


@given(caps=CAPS, jobs=JOBS)
def test_no_younger_job_of_the_same_kind_and_device_begins_before_an_older_one(
    caps: Caps, jobs: list[tuple[str, str | None, int]]
) -> None:
    known = [entry(n, kind, device, running=at == 2, waits=at > 0)
             for n, (kind, device, at) in enumerate(jobs)]  # fmt: skip
    may = {job.id: delayed(job, known, caps) is None for job in known if job.waits}
    for job in known:
        for older in known:
            same = (older.kind, older.device) == (job.kind, job.device)
            waits = older.waits and not older.running and job.waits and not job.running
            if same and waits and older.id < job.id and may[job.id]:
                assert may[older.id]


def test_a_job_that_a_cap_keeps_back_keeps_no_other_one_back() -> None:
    caps = Caps(site=3, kinds={"server.deploy": 1})
    known = [entry(0, running=True), entry(1), entry(2), entry(3, "server.power")]
    assert delayed(known[1], known, caps) == (
        "delayed: at most 1 of kind server.deploy run in the site: waits for server.deploy of"
        " srv0 to end"
    )
    assert delayed(known[3], known, caps) is None
    gone = entry(1, waits=False)  # held, blocked, or its runner is away
    assert delayed(known[2], [gone], Caps(site=1)) is None


def test_who_is_before_is_named() -> None:
    known = [entry(0, device="bmc1"), entry(1, device="bmc1"), entry(2, device="bmc1")]
    assert delayed(known[2], known, Caps(device=2)) == (
        "delayed: at most 2 at the device bmc1 at a time: waits for server.deploy of srv0,"
        " which was ordered before (and 1 more)"
    )
    assert delayed(known[2], known, Caps()) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server.explode 3", "there is no kind of job 'server.explode'"),
        ("server.deploy", "must be a kind and a number from 1"),
        ("server.deploy 0", "must be a kind and a number from 1"),
        ("server.deploy -1", "must be a kind and a number from 1"),
    ],
)
def test_a_wrong_cap_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_kinds([text], KINDS)


def test_caps_are_read_by_kind_and_each_once() -> None:
    assert parse_kinds(["server.deploy 4", " server.power  2 "], KINDS) == {
        "server.deploy": 4, "server.power": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match="stands twice"):
        parse_kinds(["server.deploy 4", "server.deploy 5"], KINDS)
