"""Reading content again and letting it go, over a shelf that counts."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from mesh.rest.problems import RequestProblem
from mesh.rest.shelf_alike import PIECE_CHUNKS, ShelfAlike

ONE, TWO = "b3:" + "1" * 64, "b3:" + "2" * 64


class Shelf:
    """Two assets, the second of which may go and the third cannot (a transfer has it)."""

    def __init__(self, chunks: int) -> None:
        self.chunks = chunks
        self.asked: list[tuple[str, int, int]] = []
        self.dropped: list[str] = []

    async def verify(self, asset: str, first: int, count: int) -> tuple[int, int, int]:
        await trio.lowlevel.checkpoint()
        self.asked.append((asset, first, count))
        return 3, 1, self.chunks

    def evictable(self) -> list[str]:
        return [TWO, "b3:" + "3" * 64]

    def size_of(self, asset: str) -> int:
        return 7 if asset == TWO else 0

    def drop(self, asset: str) -> int:
        self.dropped.append(asset)
        return self.size_of(asset)


def handlers(monkeypatch: pytest.MonkeyPatch, shelf: Shelf) -> dict[str, Any]:
    found = [{"name": "one", "asset": ONE}, {"name": "two", "asset": TWO},
             {"name": "too", "asset": TWO}, {"name": "new", "asset": None}]  # fmt: skip
    monkeypatch.setattr("mesh.rest.asset_view.assets", lambda *_rows: found)
    store = SimpleNamespace(rows=lambda *_at: [], authored=lambda *_at: [])
    return ShelfAlike(shelf, store, SimpleNamespace(members=list)).handlers()


def call(name: str = "", first: int = 0, dry_run: bool = False) -> Any:
    return SimpleNamespace(
        parts={"name": name}, query=SimpleNamespace(first=first),
        body=SimpleNamespace(dry_run=dry_run),
    )  # fmt: skip


async def test_a_call_reads_a_piece_and_says_where_to_go_on(monkeypatch):
    shelf = Shelf(PIECE_CHUNKS + 1)
    verify = handlers(monkeypatch, shelf)["verifyAsset"]
    first = await verify(call("one"))
    assert (first["checked"], first["damaged"], first["next"]) == (3, 1, PIECE_CHUNKS)
    assert (await verify(call("one", PIECE_CHUNKS)))["next"] is None
    assert shelf.asked == [(ONE, 0, PIECE_CHUNKS), (ONE, PIECE_CHUNKS, PIECE_CHUNKS)]


@pytest.mark.parametrize(("name", "code"), [("other", "not-found"), ("new", "conflict")])
async def test_what_has_no_content_is_not_read(monkeypatch, name, code):
    with pytest.raises(RequestProblem) as caught:
        await handlers(monkeypatch, Shelf(1))["verifyAsset"](call(name))
    assert caught.value.code == code


async def test_only_what_may_go_goes_and_a_dry_run_lets_it_stay(monkeypatch):
    shelf = Shelf(1)
    collect = handlers(monkeypatch, shelf)["collectAssets"]
    dry = await collect(call(dry_run=True))
    assert (dry["bytes"], dry["assets"][0]["names"], shelf.dropped) == (7, ["two", "too"], [])
    went = await collect(call())
    assert went == {**dry, "dry_run": False}
    assert TWO in shelf.dropped
