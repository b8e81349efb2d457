"""The destructive budget: the limit holds, however the site falls apart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.proto.budget import HOUR_MS, Allowed, BudgetEntry, OverBudget, decide

NOW_MS = 10 * HOUR_MS


def entries(*authors: str, at_ms: int = NOW_MS) -> list[BudgetEntry]:
    return [BudgetEntry(author, f"o{i}-{at_ms}", at_ms) for i, author in enumerate(authors)]


def ask(begun, nodes="abc", reachable=None, limit=5, limits=None, order="new"):
    return decide(
        order,
        begun,
        now_ms=NOW_MS,
        limits_per_hour=limits or dict.fromkeys(nodes, limit),
        reachable=list(nodes if reachable is None else reachable),
    )


def test_a_whole_site_uses_its_whole_budget():
    assert ask([]) == Allowed(4)
    assert ask(entries(*"aabc")) == Allowed(0)
    refused = ask(entries(*"aabcc"))
    assert isinstance(refused, OverBudget)
    assert refused.detail == "the site begins at most 5 destructive works an hour, 5 have begun"
    assert refused.retry_ms == HOUR_MS


def test_what_was_begun_an_hour_ago_counts_no_more():
    assert ask(entries(*"aabcc", at_ms=NOW_MS - HOUR_MS)) == Allowed(4)
    assert isinstance(ask(entries(*"aabcc", at_ms=NOW_MS - HOUR_MS + 1)), OverBudget)


def test_a_row_from_a_clock_that_runs_ahead_counts():
    assert isinstance(ask(entries(*"aabcc", at_ms=NOW_MS + HOUR_MS)), OverBudget)


def test_the_lowest_limit_counts_and_zero_means_never():
    assert ask([], limits={"a": 100, "b": 2}, nodes="ab") == Allowed(1)
    assert isinstance(ask([], limits={"a": 100, "b": 0}, nodes="ab"), OverBudget)
    assert isinstance(ask([], nodes=""), OverBudget)


def test_a_lone_node_uses_only_its_share():
    assert ask([], reachable="a") == Allowed(0)
    refused = ask(entries("a"), reachable="a")
    assert isinstance(refused, OverBudget)
    assert "2 of its 3 nodes cannot be asked" in refused.detail
    assert ask([], nodes="a") == Allowed(4)


def test_beginning_the_same_order_again_is_free():
    begun = entries(*"aabcc")
    assert ask(begun, order=begun[0].order) == Allowed(0)


@settings(max_examples=300)
@given(
    st.integers(1, 8),
    st.integers(0, 12),
    st.lists(st.integers(0, 7), max_size=12),
    st.data(),
)
def test_groups_that_do_not_see_each_other_stay_inside_the_limit_together(
    count, limit, before, data
):
    """The groups part after some common history; then each begins all that it may."""
    nodes = [f"n{i}" for i in range(count)]
    common = [
        BudgetEntry(nodes[who % count], f"c{i}", NOW_MS) for i, who in enumerate(before[:limit])
    ]
    side = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    total = len(common)
    for group in set(side):
        members = [node for node, where in zip(nodes, side, strict=True) if where == group]
        known = list(common)
        while isinstance(
            ask(known, nodes, members, limit, order=f"{group}{len(known)}"), Allowed
        ):
            known.append(BudgetEntry(members[0], f"{group}{len(known)}", NOW_MS))
            assert len(known) <= limit
        total += len(known) - len(common)
    assert total <= limit


@settings(max_examples=400)
@given(st.integers(1, 6), st.integers(0, 10), st.data())
def test_partitions_that_change_again_and_again_stay_inside_the_limit_of_each_hour(
    count, limit, data
):
    """Whoever sees each other has each other's rows; who parts begins what he may alone."""
    nodes = [f"n{i}" for i in range(count)]
    limits = dict.fromkeys(nodes, limit)
    known: dict[str, set[BudgetEntry]] = {node: set() for node in nodes}
    begun: list[BudgetEntry] = []
    now_ms = NOW_MS
    sides = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    for turn, (side, later_ms) in enumerate(
        data.draw(st.lists(st.tuples(sides, st.integers(0, HOUR_MS)), max_size=8))
    ):
        now_ms += later_ms
        for who in data.draw(st.lists(st.integers(0, count - 1), max_size=8)):
            group = {n for n, at in zip(nodes, side, strict=True) if at == side[who]}
            rows = set().union(*(known[node] for node in group))
            order = f"o{turn}-{len(begun)}"
            verdict = decide(
                order, rows, now_ms=now_ms, limits_per_hour=limits, reachable=group
            )
            if isinstance(verdict, Allowed):
                entry = BudgetEntry(nodes[who], order, now_ms)
                begun.append(entry)
                rows |= {entry}
            for node in group:
                known[node] |= rows
        last_hour = [entry for entry in begun if entry.at_ms > now_ms - HOUR_MS]
        assert len(last_hour) <= limit, (side, last_hour)
