"""State carried by hand: two members that never meet agree, and scopes and limits hold."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh.courier import Courier
from mesh.errors import CodecError, Refused
from mesh.host.clock import FixedClock
from mesh.member_desk import last_heads
from mesh.proto.codec import pack
from mesh.proto.courier import (
    file_end,
    file_head,
    file_piece,
    open_piece,
    read_pieces,
)
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.sync_wire import Deltas, Records, RootAsk, body_of
from mesh.proto.tables import HUBS, INVENTORY, SERVER, site_scope
from mesh.proto.trust import REVOKED, make_roster_record, open_roster_record
from mesh.register_store import RegisterStore
from mesh.store import MeshStore
from tests.support.trust import Org, identity

LAB = site_scope("lab")


class Place:
    """A member with a store and a register of its own, and no link."""

    def __init__(self, folder: Path, org: Org, label: str) -> None:
        self.who = identity(label)
        self.store = MeshStore.open(
            folder / label / "state.db",
            author=self.who.node_id,
            sign_head=lambda body: self.who.sign(HEAD_KIND, HEAD_N, org.root_fp, body),
            clock=FixedClock(),
        )
        self.register = RegisterStore.open(folder / label / "register", org.root_fp)
        self.register.merge_all(org.register.records())
        self.courier = Courier(self.store, self.register)

    async def put(self, key: str, size: int = 10, *, scope: str = LAB, table: str = SERVER):
        body = {"x": bytes(size)}
        await self.store.write(lambda tx: tx.put(scope, table, key, body))

    def rows(self, scope: str = LAB, table: str = SERVER) -> dict[str, object]:
        return {row.key: row.body for row in self.store.rows(scope, table)}

    async def export(self, site: str | None = None) -> list[bytes]:
        pieces: list[bytes] = []
        place: str | None = None
        while True:
            given = await self.courier.give(site, place)
            pieces.append(given.piece)
            place = given.next
            if place is None:
                return pieces

    async def take(self, pieces: list[bytes]) -> dict[str, int]:
        refused: dict[str, int] = {}
        for piece in pieces:
            refused |= (await self.courier.take(piece)).refused
        return refused


def organisation() -> Org:
    org = Org()
    org.admit_hub("h")
    for label in ("a", "b"):
        org.admit(label)
    org.admit("far", site="shop")
    return org


async def started(nursery: trio.Nursery, *places: Place) -> None:
    for place in places:
        await nursery.start(place.store.run)


async def test_two_nodes_that_never_meet_agree_by_file_both_ways(tmp_path):
    org = organisation()
    a, b = (Place(tmp_path, org, label) for label in ("a", "b"))
    with a.store, b.store:
        async with trio.open_nursery() as nursery:
            await started(nursery, a, b)
            for number in range(12):  # several pieces: a set that is cut, and more sets
                await a.put(f"a{number}", 50_000)
            await b.put("b1")
            assert await b.take(await a.export()) == {}
            assert await a.take(await b.export()) == {}
            assert a.rows() == b.rows()
            assert len(a.rows()) == 13
            heads = {set_id: signed.body for set_id, signed in a.store.heads.items()}
            assert heads == {set_id: s.body for set_id, s in b.store.heads.items()}
            again = [await a.courier.take(piece) for piece in await b.export()]
            assert sum(taken.sets for taken in again) == 0
            nursery.cancel_scope.cancel()


async def test_a_revocation_is_carried_by_file_and_ends_what_the_node_writes_later(tmp_path):
    org = organisation()
    a, b, h = (Place(tmp_path, org, label) for label in ("a", "b", "h"))
    with a.store, b.store, h.store:
        async with trio.open_nursery() as nursery:
            await started(nursery, a, b, h)
            await a.put("before")
            await h.take(await a.export())
            heads = last_heads(h.store.heads, a.who.node_id)
            record = org.roster(a.who, status=REVOKED, version=2)
            roster, _ = open_roster_record(record, org.root_fp)
            ended = make_roster_record(
                org.membership, org.root_fp, replace(roster, heads=heads)
            )
            h.register.merge(ended)
            await a.put("after")
            stolen = await a.export()
            assert await b.take(await h.export()) == {}
            assert not b.register.register.active(a.who.node_id)
            assert set(b.rows()) == {"before"}
            refused = await b.take(stolen)
            assert refused == {"scope": 1}
            assert set(b.rows()) == {"before"}
            nursery.cancel_scope.cancel()


async def test_scopes_hold_at_export_and_at_import(tmp_path):
    org = organisation()
    a, far, h = (Place(tmp_path, org, label) for label in ("a", "far", "h"))
    with a.store, far.store, h.store:
        async with trio.open_nursery() as nursery:
            await started(nursery, a, far, h)
            await a.put("s1")
            await far.put("s2", scope=site_scope("shop"))
            await h.put("secret", scope=HUBS, table="token")
            for place in (a, far):
                assert await h.take(await place.export()) == {}
            whole = await h.export()
            for piece in whole:
                message = open_piece(piece)
                if isinstance(message, Deltas):
                    assert HUBS not in {part.id.scope for part in message.parts}
            assert await a.take(whole) == {"scope": 1}  # what the other site says is not for it
            assert a.rows(site_scope("shop")) == {}
            lab = await h.export("lab")
            assert await far.take(lab) == {"scope": 1}
            assert await a.take(lab) == {}
            with pytest.raises(Refused, match="nothing of a site 'nowhere'"):
                await h.courier.give("nowhere", None)
            nursery.cancel_scope.cancel()


async def test_a_forged_row_is_refused_like_from_a_peer(tmp_path):
    org = organisation()
    a, b = (Place(tmp_path, org, label) for label in ("a", "b"))
    with a.store, b.store:
        async with trio.open_nursery() as nursery:
            await started(nursery, a, b)
            await a.put("s1", 400)
            for piece in await a.export():
                forged = bytearray(piece)
                forged[-200] ^= 1  # inside a row's body
                if isinstance(open_piece(piece), Records):
                    continue
                taken = await b.courier.take(bytes(forged))
                assert sum(taken.refused.values()) == 1
            assert b.rows() == {}
            nursery.cancel_scope.cancel()


async def test_a_place_that_is_none_is_refused_and_a_set_that_is_gone_is_passed_over(tmp_path):
    org = organisation()
    a = Place(tmp_path, org, "a")
    with a.store:
        async with trio.open_nursery() as nursery:
            await started(nursery, a)
            await a.put("s1", table=INVENTORY)
            for wrong in ("x", "s", "szz", "s" + pack([1, 2]).hex(), "r-", "s" * 5000):
                with pytest.raises(Refused, match="no place in a state"):
                    await a.courier.give(None, wrong)
            gone = "s" + pack(["zz", "zz", 1, 1]).hex()
            given = await a.courier.give(None, gone)
            assert (given.next, open_piece(given.piece)) == (None, Deltas(0, ()))
            early = "s" + pack(["", "", 1, 1]).hex()
            parts = open_piece((await a.courier.give(None, early)).piece)
            assert isinstance(parts, Deltas)
            assert len(parts.parts) == 1
            nursery.cancel_scope.cancel()


async def test_garbage_is_refused_with_a_sentence(tmp_path):
    org = organisation()
    a = Place(tmp_path, org, "a")
    with a.store:
        for wrong in (b"", b"\xc1", pack({"t": "delta"}), pack(body_of(RootAsk(1)))):
            with pytest.raises(Refused, match="no piece of a state"):
                await a.courier.take(wrong)


ROOT = bytes(range(20))


def file_of(*pieces: bytes) -> bytes:
    body = b"".join(file_piece(piece) for piece in pieces)
    return file_head(ROOT) + body + file_end(len(pieces))


def read(data: bytes) -> list[bytes]:
    return list(read_pieces(io.BytesIO(data).read, ROOT))


def test_a_file_is_read_as_it_was_written():
    assert read(file_of()) == []
    assert read(file_of(b"one", b"two")) == [b"one", b"two"]


def test_a_file_cut_at_any_place_or_with_a_piece_less_is_told_apart():
    whole = file_of(b"one", b"two")
    for end in range(len(whole)):
        with pytest.raises(CodecError):
            read(whole[:end])
    short = file_head(ROOT) + file_piece(b"one") + file_end(2)
    with pytest.raises(CodecError, match="pieces are missing"):
        read(short)
    with pytest.raises(CodecError, match="organisation"):
        list(read_pieces(io.BytesIO(whole).read, bytes(20)))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_a_damaged_file_never_raises_anything_else(data: bytes, at: int):
    whole = file_of(b"one", b"two")
    for wrong in (data, file_head(ROOT) + data, whole[:at] + data + whole[at:]):
        try:
            found = read(wrong)
        except CodecError:
            continue
        assert found in ([], [b"one", b"two"])
