"""Throttle, event ring, naming of content, and figures as people read them."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hub import show
from hub.proto.events import RING_EVENTS_MAX, EventRing
from hub.proto.naming import (
    Claim,
    Conflict,
    Past,
    Sign,
    Wanted,
    contradiction,
    decide,
    read_claim,
)
from hub.proto.throttle import NAMES_MAX, Throttle

A, B = "a" * 64, "b" * 64


def test_a_name_gets_its_burst_then_one_try_a_while() -> None:
    throttle = Throttle(3, 10.0)
    assert [throttle.allow("x", 0.0) for _ in range(4)] == [True, True, True, False]
    assert throttle.allow("y", 0.0)
    assert throttle.wait_s("x", 4.0) == 6.0
    assert not throttle.allow("x", 9.9)
    assert throttle.allow("x", 10.0)
    assert not throttle.allow("x", 10.1)
    throttle.forgive("x")
    assert throttle.allow("x", 10.1)


def test_a_flood_of_names_costs_bounded_memory_and_buys_no_tries() -> None:
    throttle = Throttle(1, 10.0)
    assert throttle.allow("guessed at", 0.0)
    for number in range(3 * NAMES_MAX):
        throttle.allow(str(number), 1.0)
    assert len(throttle._buckets) <= NAMES_MAX + 1
    assert not throttle.allow("guessed at", 1.0), "its bucket stands while it is not full"
    assert not throttle.allow("newcomer", 1.0), "who comes now shares what is left"
    assert 0 < throttle.wait_s("newcomer", 1.0) <= 10.0
    assert throttle.allow("newcomer", 20.0), "when the flood is over, full buckets make room"
    assert throttle.allow("guessed at", 20.0)


def test_a_listener_gets_exactly_what_it_missed() -> None:
    ring = EventRing("run1")
    for number in range(5):
        ring.add("server", {"id": str(number)})
    assert ring.resume("run1-3") == 3
    missed = ring.after(3)
    assert missed is not None
    assert [event.number for event in missed] == [4, 5]
    assert ring.after(5) == []


def test_a_listener_from_another_run_or_too_far_behind_reads_all_again() -> None:
    ring = EventRing("run1")
    for number in range(RING_EVENTS_MAX + 5):
        ring.add("job", {"id": str(number)})
    assert ring.resume("run0-3") is None
    assert ring.after(3) is None
    assert ring.after(5) is not None
    assert ring.after(ring.newest + 1) is None


@given(st.text())
def test_garbage_never_raises_as_an_event_id(text: str) -> None:
    assert EventRing("run1").resume(text) is None


def test_events_are_one_line_of_data() -> None:
    ring = EventRing("run1")
    text = ring.text(ring.add("server", {"id": "a\nb"}))
    assert text == b'id: run1-1\nevent: server\ndata: {"id":"a\\nb"}\n\n'


def claim(sha256: str = A, hlc: int = 1, author: str = "n1", site: str | None = "lab") -> Claim:
    return Claim(author, site, hlc, "img", "b3:" + sha256, 10, sha256)


def wanted(sha256: str | None = None, *sites: str) -> dict[str, Wanted]:
    return {"img": Wanted(sha256, frozenset(sites or ("lab",)))}


def test_the_first_claim_becomes_the_name() -> None:
    late, early = claim(B, 2), claim(A, 1)
    assert decide(wanted(), {}, [late, early]) == [Sign(early, False), Conflict(late, A)]


def test_a_declared_hash_decides_whoever_comes_first() -> None:
    wrong, right = claim(B, 1), claim(A, 2)
    assert decide(wanted(A), {}, [wrong, right]) == [Conflict(wrong, A), Sign(right, True)]


def test_what_is_signed_stays_and_a_contradiction_is_told() -> None:
    signed = {"img": ("b3:" + A, A)}
    assert decide(wanted(), signed, [claim(A)]) == []
    assert decide(wanted(), signed, [claim(B)]) == [Conflict(claim(B), A)]
    assert decide(wanted(B), signed, [claim(B)]) == [Conflict(claim(B), A)], "for good"


def test_only_a_wanting_site_says_what_a_reference_is() -> None:
    stranger, hub = claim(B, 1, site="elsewhere"), claim(A, 2, site=None)
    assert decide(wanted(), {}, [stranger]) == []
    assert decide(wanted(B), {}, [stranger]) == [], "whoever claims the declared hash, too"
    assert decide({"img": Wanted(None, frozenset())}, {}, [stranger, claim()]) == []
    assert decide(wanted(), {}, [stranger, hub]) == [Sign(hub, False)]


MOVES = {"img": Wanted(None, frozenset({"lab"}), moves=True)}
SIGNED, PAST = {"img": ("b3:" + A, A)}, {"img": Past(5)}


def replacing(hlc: int = 6, sha256: str = B, what: str = A, **more: Any) -> Claim:
    return replace(claim(sha256, hlc, **more), replaces="b3:" + what)


def test_a_name_moves_by_a_later_claim_that_names_what_it_replaces() -> None:
    assert decide(MOVES, SIGNED, [replacing()], PAST) == [Sign(replacing(), False)]
    for held_back in (
        replacing(5), replacing(what="c" * 64), replacing(sha256=A),
        replacing(site="elsewhere"),
    ):  # fmt: skip
        assert decide(MOVES, SIGNED, [held_back], PAST) == [], "nor is it a conflict"
    for references in (wanted(), wanted(A), {"img": replace(MOVES["img"], sha256=A)}):
        assert decide(references, SIGNED, [replacing()], PAST) == []


def test_a_name_that_moved_is_not_moved_back_by_what_was_claimed_before() -> None:
    moved, past = {"img": ("b3:" + B, B)}, {"img": Past(9, frozenset({"b3:" + A}))}
    back = replacing(8, A, B)
    assert decide(MOVES, moved, [claim(A, 1), replacing(), back], past) == []
    again = replace(back, hlc=10)
    assert decide(MOVES, moved, [replacing(), again], past) == [Sign(again, False)]
    stranger = claim("c" * 64, 10)
    assert decide(MOVES, moved, [stranger], past) == [Conflict(stranger, B)]


def test_two_claims_move_a_name_once() -> None:
    both = [replacing(7, "c" * 64), replacing(6)]
    assert decide(MOVES, SIGNED, both, PAST) == [Sign(replacing(6), False)]


def test_a_claim_for_an_unknown_reference_counts_for_nothing() -> None:
    assert decide({}, {}, [claim()]) == []


def test_a_signed_name_is_declared_again_only_as_it_is() -> None:
    for url, sha256 in (("u", None), ("u", A), ("mirror", A), (None, A)):
        assert contradiction("img", A, "u", url, sha256) is None
    for url, sha256 in (("other", None), ("u", B), ("other", B), (None, None)):
        said = contradiction("img", A, "u", url, sha256)
        assert said == f"img stands for sha256 {A} already; take another name for other content"


@given(
    st.text(),
    st.dictionaries(
        st.sampled_from(["asset", "size", "sha256"]), st.none() | st.text() | st.integers()
    ),
)
def test_garbage_never_raises_as_a_claim(key: str, body: dict[str, Any]) -> None:
    assert read_claim("n1", "lab", 1, key, body) is None


def test_figures_read_as_people_say_them() -> None:
    assert [show.size(n) for n in (None, 0, 999, 1000, 2_147_483_648)] == [
        "unknown", "0 B", "999 B", "1.0 kB", "2.1 GB",
    ]  # fmt: skip
    assert [show.age(0, ms) for ms in (500, 5_000, 70_000, 7_200_000, 90_000_000)] == [
        "now", "5 s ago", "1 min ago", "2 h ago", "1 d ago",
    ]  # fmt: skip
    assert show.age(None, 5) == "never"
    assert show.tone("deploying failed") == "bad"


def test_job_progress_counts_steps_and_the_part_of_the_running_one() -> None:
    step = {"done": None, "total": None, "unit": None}
    steps = [
        {**step, "name": "a", "state": "done"},
        {"name": "b", "state": "running", "done": 50, "total": 100, "unit": "bytes"},
    ]
    progress = show.job_progress({"steps": steps})
    assert (progress["percent"], progress["step"], progress["number"]) == (75, "b", 2)
    assert progress["detail"] == "50 B of 100 B"
    assert show.job_progress({"steps": []})["percent"] == 0
