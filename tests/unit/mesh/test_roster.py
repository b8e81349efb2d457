"""Who may write merged tables where: looked up by site, as the scope rules say of each one."""

import pytest

from mesh.proto import tables
from mesh.roster import HUB, RegisterRoster
from tests.support.trust import Org


def test_merged_authors_are_those_of_the_scope_rules():
    org = Org()
    for label in ("h1", "h2"):
        org.admit_hub(label)
    ids = [org.admit(f"n{n}", f"s{n % 3}").node_id for n in range(9)]
    boss = org.admit("boss", "s1", ("site-operator",))
    org.register.merge(org.roster(org.admit("gone", "s1"), "s1", status="revoked", version=2))
    roster = RegisterRoster(org.register, ids[0])
    hubs = {m.node_id for m in org.register.members() if HUB in m.roles}

    def by_rule(scope: str) -> list[str]:
        merged = hubs if scope in (tables.FLEET, tables.HUBS) else set(roster.nodes())
        return sorted(node for node in merged if roster.may_author(node, scope))

    pair = f"pair:{ids[3]}"
    for scope in (
        "fleet",
        "hubs",
        "site:s1",
        "site:s9",
        "site:",
        "site",
        pair,
        "pair:x",
        "x:s1",
    ):
        assert roster.merged_authors(scope) == by_rule(scope), scope
    assert set(roster.merged_authors("site:s1")) == {*hubs, boss.node_id, *ids[1::3]}
    assert set(roster.merged_authors(pair)) == {*hubs, ids[3]}


@pytest.mark.parametrize("scope", ["fleet", "site:s1"])
def test_who_joins_counts_after_a_refresh(scope):
    org = Org()
    me = org.admit("me", "s1").node_id
    roster = RegisterRoster(org.register, me)
    hub = org.admit_hub("hub").node_id
    assert hub not in roster.merged_authors(scope)
    roster.refresh()
    assert hub in roster.merged_authors(scope)
