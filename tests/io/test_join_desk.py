"""Joining for real on loopback: TLS, WebSocket, Noise XX, the desk and a newcomer."""

from pathlib import Path

import pytest
import trio

from mesh.errors import Refused
from mesh.identity import Identity, load_or_make_identity
from mesh.link.join import JoinService
from mesh.link.ws import join_over_websocket
from mesh.proto.join import JoinClient, JoinResult
from mesh.proto.token import parse_token
from mesh.register_store import RegisterStore
from tests.support.link_mesh import WAIT_S, HubDoor, Place
from tests.support.office import HUB, Office
from tests.support.trust import Org


async def open_office(nursery: trio.Nursery, folder: Path) -> Office:
    folder.mkdir()
    door = HubDoor(folder)
    await nursery.start(door.run)
    office = Office(folder, url=door.url)
    door.peers = Place(Org(), "hub", listen=False).peers  # nobody dials it here
    door.join = JoinService(office.desk, lambda: HUB.kem_private)
    return office


async def join(text: str, who: Identity, url: str | None = None) -> JoinResult:
    token = parse_token(text)
    client = JoinClient(token, who, who.key_record, "edge")
    with trio.fail_after(WAIT_S):
        return await join_over_websocket(url or token.urls[0], client, who.kem_private)


async def test_a_new_node_joins_and_its_register_stands_on_disk(tmp_path: Path):
    async with trio.open_nursery() as nursery:
        office = await open_office(nursery, tmp_path / "hub")
        text, _ = await office.desk.create_token("lab", ["node", "site-operator"])
        who = load_or_make_identity(tmp_path / "node")
        result = await join(text, who)
        store = RegisterStore.open(tmp_path / "node" / "register", result.root_fp)
        store.merge_all(result.records)
        assert store.register.may_author(who.node_id, "site:lab")
        assert store.register.digest() == office.register.register.digest()
        assert (await join(text, who)).records == result.records
        thief = load_or_make_identity(tmp_path / "thief")
        with pytest.raises(Refused, match="used by another node"):
            await join(text, thief)
        (visit,) = office.desk.visits.values()
        assert visit.refused is not None
        assert "used by another node" in visit.refused
        assert visit.at_ms == office.clock.now_ms()
        nursery.cancel_scope.cancel()


async def test_a_token_of_one_organisation_is_worth_nothing_at_another(tmp_path: Path):
    async with trio.open_nursery() as nursery:
        ours = await open_office(nursery, tmp_path / "ours")
        other = await open_office(nursery, tmp_path / "other")
        text, _ = await ours.desk.create_token("lab")
        elsewhere, _ = await other.desk.create_token("lab")
        who = load_or_make_identity(tmp_path / "node")
        with pytest.raises(Refused, match="another organisation"):
            await join(text, who, url=parse_token(elsewhere).urls[0])
        assert other.desk.counters == {}
        nursery.cancel_scope.cancel()
