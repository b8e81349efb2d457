from mesh.proto.references import PERIOD_MS, PERIOD_MS_MIN, period_of
from mesh.proto.rendezvous import ranked
from node.proto.revalidation import (
    AHEAD_MS_MAX,
    RETRY_MS_MIN,
    SAME_MAX,
    Check,
    Watched,
    due,
    watched,
    why_not_switched,
)

NODES = ["n1", "n2", "n3"]
NOW_MS = 10 * PERIOD_MS
OWNER, HEIR, LAST = ranked(NODES, "debian")
WATCHED = {"debian": Watched()}


def asks(node: str, *checks: Check, alive: list[str] = NODES) -> bool:
    return due(node, alive, WATCHED, {"debian": checks}, NOW_MS) == ["debian"]


def test_exactly_one_node_of_the_site_asks() -> None:
    assert [node for node in NODES if asks(node)] == [OWNER]


def test_the_heir_asks_when_the_owner_is_away_but_not_again_in_the_period() -> None:
    assert asks(HEIR, alive=[HEIR, LAST])
    assert not asks(HEIR, Check(NOW_MS - PERIOD_MS + 1), alive=[HEIR, LAST])


def test_the_latest_check_of_anybody_counts() -> None:
    old, new = Check(NOW_MS - 3 * PERIOD_MS), Check(NOW_MS - 1000)
    assert not asks(OWNER, old, new)
    assert asks(OWNER, old)
    assert asks(OWNER, Check(NOW_MS - PERIOD_MS))


def test_a_failed_check_is_made_again_sooner_but_not_at_once() -> None:
    assert not asks(OWNER, Check(NOW_MS - PERIOD_MS // 8 + 1, failed=True))
    assert asks(OWNER, Check(NOW_MS - PERIOD_MS // 8, failed=True))


def test_a_check_from_the_future_holds_nothing_up() -> None:
    assert asks(OWNER, Check(NOW_MS + AHEAD_MS_MAX + 1))
    assert not asks(OWNER, Check(NOW_MS + AHEAD_MS_MAX))


def test_never_means_never_and_too_short_a_period_is_the_least_one() -> None:
    assert due("n1", ["n1"], {"a": Watched(None)}, {}, NOW_MS) == []
    short = {"a": Watched(period_of({"revalidate_ms": 1}))}
    for age_ms, expected in ((PERIOD_MS_MIN - 1, []), (PERIOD_MS_MIN, ["a"])):
        assert due("n1", ["n1"], short, {"a": [Check(NOW_MS - age_ms)]}, NOW_MS) == expected
    failed = [Check(NOW_MS - RETRY_MS_MIN + 1, failed=True)]
    assert due("n1", ["n1"], short, {"a": failed}, NOW_MS) == []


def test_rows_say_what_is_watched_and_odd_ones_the_usual_period() -> None:
    for odd in (None, True, -1, "1h", 1.5, []):
        assert period_of({"revalidate_ms": odd}) == PERIOD_MS
    assert period_of({"revalidate_ms": 0}) is None
    rows = {
        "a": {"url": "http://o/a", "want": ["lab"], "sha256": "ab" * 32},
        "uploaded": {"url": None, "want": ["lab"]},
        "elsewhere": {"url": "http://o/b", "want": ["fra"]},
        "whole": {"url": "http://o/c", "want": ["lab"], "kind": "live"},
    }
    assert watched(rows, "lab", {}) == {"a": Watched(PERIOD_MS, "ab" * 32, "http://o/a")}


def test_an_origin_that_is_read_for_nothing_is_asked_ever_more_seldom() -> None:
    rows = {"a": {"url": "http://o/a", "want": ["lab"]}}
    periods = [watched(rows, "lab", {"a": same})["a"].period_ms for same in (0, 1, 2, 1 << 60)]
    assert periods == [PERIOD_MS, 2 * PERIOD_MS, 4 * PERIOD_MS, PERIOD_MS << SAME_MAX]


def test_a_site_may_ask_more_often_than_the_reference_says_but_not_for_never() -> None:
    rows = {"a": {"url": "u", "want": ["lab"]},
            "b": {"url": "u", "want": ["lab"], "revalidate_ms": 0}}  # fmt: skip
    found = watched(rows, "lab", {}, 5000)
    assert (found["a"].period_ms, found["b"].period_ms) == (5000, None)


def test_a_declared_hash_is_a_sentence_and_never_a_switch() -> None:
    assert why_not_switched("debian", Watched()) is None
    sentence = why_not_switched("debian", Watched(sha256="ab" * 32))
    assert sentence is not None and "debian stays as it is" in sentence
