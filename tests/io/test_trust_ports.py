"""The fake store of the trust tests and the real one keep the same contract."""

import pytest
import trio

from mesh.host.clock import FixedClock
from mesh.join_desk import JoinDesk
from mesh.ports import StorePort
from mesh.proto.tables import HUBS, SITE_SECRET, TOKEN, site_scope
from mesh.register_store import RegisterStore
from mesh.secrets import read_secret, set_secret
from mesh.site_secret import SiteSecrets
from mesh.store import MeshStore
from tests.support.office import HUB, Office
from tests.support.rows import RowStore, World
from tests.support.trust import Org, identity

WHO = identity("n1")


def real(path, who=WHO) -> MeshStore:
    return MeshStore.open(
        path / "state.db",
        author=who.node_id,
        sign_head=lambda body: who.sign("head", 1, bytes(20), body),
        clock=FixedClock(),
    )


def port(store: MeshStore) -> StorePort:
    return store  # mypy: the real store is what the trust services ask for


@pytest.fixture(params=["memory", "real"])
async def store(request, tmp_path):
    if request.param == "memory":
        yield RowStore(World(), WHO.node_id)
        return
    with real(tmp_path) as opened:
        async with trio.open_nursery() as nursery:
            await nursery.start(opened.run)
            yield opened
            nursery.cancel_scope.cancel()


async def test_a_write_is_seen_when_it_returns_and_moves_the_version(store):
    before = store.version
    assert await store.write(lambda tx: tx.put(HUBS, TOKEN, "t", {"a": 1}) or 7) == 7
    assert store.get(HUBS, TOKEN, "t").body == {"a": 1}
    assert [row.key for row in store.rows(HUBS, TOKEN)] == ["t"]
    assert await store.wait_past(before) > before


async def test_an_exception_takes_the_write_back(store):
    def broken(tx):
        tx.put(HUBS, TOKEN, "t", {"a": 1})
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(broken)
    assert store.get(HUBS, TOKEN, "t") is None


async def test_a_deleted_row_is_hidden_and_a_write_reads_its_own_rows(store):
    def both(tx):
        tx.put(HUBS, TOKEN, "t", {"a": 1})
        return tx.get(HUBS, TOKEN, "t").body

    assert await store.write(both) == {"a": 1}
    await store.write(lambda tx: tx.delete(HUBS, TOKEN, "t"))
    assert store.get(HUBS, TOKEN, "t") is None
    assert store.rows(HUBS, TOKEN) == []


async def test_rows_of_a_per_author_table_name_their_author(store):
    scope = site_scope("lab")
    await store.write(lambda tx: tx.put(scope, SITE_SECRET, "k/1", {"epoch": 1}))
    assert [(row.author, row.key) for row in store.authored(scope, SITE_SECRET)] == [
        (WHO.node_id, "k/1")
    ]


async def test_the_trust_services_work_on_the_real_store(tmp_path):
    org = Org()
    org.admit("n1")
    register = RegisterStore.open(tmp_path / "register", org.root_fp)
    register.merge_all(org.register.records())
    with trio.fail_after(20), real(tmp_path) as opened:
        async with trio.open_nursery() as nursery:
            await nursery.start(opened.run)
            secrets = SiteSecrets(port(opened), register, WHO)
            await secrets.ensure()
            epoch, secret = secrets.current()
            assert (epoch, len(secret)) == (1, 32)
            again = SiteSecrets(opened, register, WHO)
            assert again.current() == (epoch, secret)
            await opened.write(
                lambda tx: set_secret(tx, org.register, "bmc", "bmc", b"pw", site="lab")
            )
            assert read_secret(opened, org.register, WHO, "bmc") == b"pw"
            nursery.cancel_scope.cancel()


async def test_a_node_joins_a_desk_on_the_real_store(tmp_path):
    with trio.fail_after(20), real(tmp_path, HUB) as opened:
        async with trio.open_nursery() as nursery:
            await nursery.start(opened.run)
            office = Office(tmp_path, opened)
            assert isinstance(office.desk, JoinDesk)
            text, _ = await office.desk.create_token("lab")
            result = await office.join(text)
            assert result.site == "lab"
            assert office.desk.tokens()[0]["used_by"] == WHO.node_id
            nursery.cancel_scope.cancel()
