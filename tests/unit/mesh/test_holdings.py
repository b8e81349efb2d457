"""Digests of what a member holds: equal when everything is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mesh.holdings import holdings
from mesh.proto.tables import pair_scope
from mesh.register_store import RegisterStore
from tests.support.sides import SCOPE, A, Side


def held_by(side: Side, folder: Path) -> Any:
    store = SimpleNamespace(heads=side.replica.heads)
    return holdings(cast(Any, store), RegisterStore.open(folder / "register", bytes(20)))


def test_equal_rows_have_equal_digests_and_a_change_moves_its_scope_alone(
    tmp_path: Path,
) -> None:
    a, b = Side("a"), Side("b")
    a.put("one", "two")
    b.pull(a, A)
    before = held_by(a, tmp_path)
    assert held_by(b, tmp_path) == before
    assert before["scopes"].keys() == {SCOPE}
    a.put("elsewhere", scope="fleet")
    after = held_by(a, tmp_path)
    assert after["scopes"][SCOPE] == before["scopes"][SCOPE]
    assert after["scopes"].keys() == {SCOPE, "fleet"}
    a.put("two")
    assert held_by(a, tmp_path)["scopes"][SCOPE] != before["scopes"][SCOPE]


def test_what_is_sealed_to_one_node_is_left_out(tmp_path: Path) -> None:
    a = Side("a")
    before = held_by(a, tmp_path)
    a.put("secret", scope=pair_scope("n" * 32))
    assert held_by(a, tmp_path) == before
