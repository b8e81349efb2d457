"""The pure parts behind the pages of servers, jobs and assets."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub.proto.asset_matrix import Traffic, matrix
from hub.proto.gantt import BAR_LEAST, TICKS_MAX, WIDTH, gantt
from hub.proto.server_facts import facts
from hub.proto.stepper import STAGES, stages
from mesh.rest import views
from node.proto.lifecycle import STATES

NOW = 1_000_000


def job(kind: str, state: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": more.pop("id", "j"), "kind": kind, "state": state, "steps": [], "created_ms": 1,
        "started_ms": None, "ended_ms": None, **more,
    }  # fmt: skip


def step(name: str, state: str = "done", began: Any = None, ended: Any = None, **evidence: Any):
    return {
        "name": name, "state": state, "started_ms": began, "ended_ms": ended,
        "evidence": evidence,
    }  # fmt: skip


def standing(state: str, **more: Any) -> list[str]:
    return [s.standing for s in stages({"state": state, "cleaned": True, **more}, [])]


def test_every_state_of_the_machine_stands_in_exactly_one_stage() -> None:
    for state in STATES:
        found = standing(state)
        at = [s for s in found if s in ("now", "failed")]
        assert at == ["failed" if state.endswith(" failed") else "now"], state
        assert len(found) == len(STAGES)
        number = found.index(at[0])
        assert set(found[:number]) <= {"done"}
        assert set(found[number + 1 :]) <= {"ahead"}


def test_a_state_of_a_later_build_is_in_no_stage() -> None:
    assert standing("rescue") == ["ahead"] * 6


def test_stages_have_the_times_of_the_newest_jobs() -> None:
    jobs = [
        job("server.deploy", created_ms=50, started_ms=60, ended_ms=70, id="new"),
        job("server.deploy", "failed", created_ms=20, started_ms=30, ended_ms=40, id="old"),
        job("server.accept", created_ms=5, ended_ms=9),
    ]
    server = {"state": "active", "cleaned": False, "image": "debian", "changed_ms": 71}
    found = {stage.name: stage for stage in stages(server, jobs)}
    assert [found[name].since_ms for name in ("accepted", "available", "deploying")] == [
        5,
        9,
        60,
    ]
    assert (found["active"].since_ms, found["active"].note) == (70, "debian")
    assert found["discovered"].since_ms is None
    assert found["available"].note == "never cleaned"
    assert found["releasing"].since_ms is None


def test_a_server_whose_jobs_were_swept_has_the_time_of_its_row() -> None:
    found = {s.name: s for s in stages({"state": "active", "changed_ms": 7}, [])}
    assert found["active"].since_ms == 7
    assert found["deploying"].since_ms is None


def test_bars_stand_where_their_steps_were() -> None:
    found = gantt(
        [
            step("fetch", began=0, ended=50_000),
            step("write", "running", began=50_000),
            step("phone-in", "waiting"),
        ],
        now_ms=100_000,
    )
    fetch, write, phone = found.bars
    assert (fetch.start, fetch.width, fetch.took_ms) == (0, 500, 50_000)
    assert (write.start, write.width, write.took_ms) == (500, 500, 50_000)
    assert (phone.start, phone.took_ms) == (None, None)
    assert [(tick.at, tick.after_s) for tick in found.ticks] == [
        (0, 0), (200, 20), (400, 40), (600, 60), (800, 80), (1000, 100),
    ]  # fmt: skip


def test_a_job_that_has_not_begun_has_no_bars() -> None:
    found = gantt([step("fetch", "waiting")], NOW)
    assert (found.span_ms, found.ticks, found.bars[0].start) == (0, [], None)


times = st.one_of(st.none(), st.integers(-(10**12), 10**15), st.booleans(), st.text())


@given(st.lists(st.tuples(times, times, st.sampled_from(["running", "done", "x"]))), times)
def test_bars_stay_inside_whatever_clocks_say(rows: list[Any], now: Any) -> None:
    found = gantt(
        [step("s", state, began, ended) for began, ended, state in rows],
        now if isinstance(now, int) else NOW,
    )
    assert len(found.ticks) <= TICKS_MAX + 1
    for bar in found.bars:
        if bar.start is not None:
            assert 0 <= bar.start <= WIDTH - BAR_LEAST
            assert BAR_LEAST <= bar.width <= WIDTH - bar.start
            assert bar.took_ms is not None and bar.took_ms >= 0
    assert all(0 <= tick.at <= WIDTH for tick in found.ticks)


def residency(site: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "site": site, "wanted": True, "state": state, "have": 0, "of": 0, "origin_bytes": 0,
        "peer_bytes": 0, "near_bytes": 0, "error": None, "updated_ms": 1, **more,
    }  # fmt: skip


def test_the_matrix_has_a_cell_for_every_asset_at_every_site() -> None:
    assets = [
        {
            "name": "debian",
            "sites": [
                residency("ams", "fetching", have=43, of=100),
                residency("fra", "verified", have=100, of=100),
                residency("lab", "corrupt"),
            ],
        },
        {"name": "rescue", "sites": [residency("fra", "wanted")]},
    ]
    found = matrix(assets, ["fra", "ams", "par"])
    assert found.sites == ["ams", "fra", "lab", "par"]
    assert [c.words for c in found.lines[0].cells] == [
        "fetching 43 %", "held", "corrupt", "absent",
    ]  # fmt: skip
    assert [c.words for c in found.lines[1].cells] == ["absent", "wanted", "absent", "absent"]
    assert (found.lines[0].held, found.lines[1].held) == (1, 0)


def test_only_bytes_of_the_own_site_count_as_uplink_saved() -> None:
    assets = [
        {
            "name": "a",
            "sites": [
                residency("fra", "verified", origin_bytes=100, peer_bytes=100, near_bytes=100),
                residency("ams", "verified", peer_bytes=200, near_bytes=100),
            ],
        },
        {"name": "b", "sites": [residency("fra", "verified", origin_bytes=50)]},
    ]
    found = matrix(assets, [])
    assert found.lines[0].traffic == Traffic(origin=100, far=100, near=200)
    assert found.by_site["fra"] == Traffic(origin=150, far=0, near=100)
    assert found.by_site["ams"] == Traffic(origin=0, far=100, near=100)
    assert found.traffic == Traffic(origin=150, far=100, near=200)
    assert found.traffic.saved_percent == 44
    assert Traffic().saved_percent is None


def test_facts_are_what_finished_steps_saw_last() -> None:
    deploy = job(
        "server.deploy",
        id="d",
        steps=[
            step("power on", ended=10, power="on", was="off"),
            step("boot from disk", ended=20, boot="disk"),
            step("phone-in", ended=30),
            step("power off", "failed", ended=40, power="off"),
        ],
    )
    found = facts(
        [job("server.power", id="p", steps=[step("power", ended=50, power="off")]), deploy]
    )
    assert found.power is not None and found.phone_in is not None and found.boot is not None
    assert (found.power.words, found.power.at_ms, found.power.job) == ("off", 50, "p")
    assert (found.boot.words, found.phone_in.at_ms) == ("booted from its disk", 30)


def test_what_no_step_saw_is_unknown() -> None:
    found = facts([job("server.accept", steps=[step("inspect", ended=5)])])
    assert (found.power, found.boot, found.phone_in) == (None, None, None)


def test_a_job_shows_what_was_ordered_but_never_user_data() -> None:
    params = {"image": "debian", "ssh_keys": ["ssh-ed25519 A"], "user_data": "password: x"}
    shown = views.job(
        {"id": "j", "params": params, "steps": [{"name": "fetch", "attempts": 2}]}
    )
    assert shown["params"] == {
        "image": "debian", "ssh_keys": ["ssh-ed25519 A"], "user_data_chars": 11,
    }  # fmt: skip
    assert shown["steps"][0]["attempts"] == 2
    assert views.job({"id": "j", "params": "garbage"})["params"] == {}
