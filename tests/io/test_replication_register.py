"""Replication with the real register and real identities."""

import trio
import trio.testing

from mesh.host.clock import FixedClock
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.tables import SERVER
from mesh.register_store import RegisterStore
from mesh.store import MeshStore
from mesh.sync import Replication
from tests.support.members import link_pair
from tests.support.trust import Org, identity

SITE = "site:lab"


def member(folder, org, label):
    who = identity(label)
    store = MeshStore.open(
        folder / label / "state.db",
        author=who.node_id,
        sign_head=lambda body: who.sign(HEAD_KIND, HEAD_N, org.root_fp, body),
        clock=FixedClock(),
    )
    register = RegisterStore.open(folder / label / "register", org.root_fp)
    for record in org.register.records():
        register.merge(record)
    return who, store, register, Replication(store, register, jitter=lambda: 0.5)


async def test_rows_cross_between_admitted_members_and_a_newcomer_is_learned_on_the_link(
    tmp_path,
):
    org = Org()
    org.admit("a")
    org.admit_hub("h")
    who_a, store_a, register_a, replication_a = member(tmp_path, org, "a")
    org.admit("b")  # after a made its register: h and b know b, a does not
    who_h, store_h, register_h, replication_h = member(tmp_path, org, "h")
    who_b, store_b, _, replication_b = member(tmp_path, org, "b")
    with store_a, store_b, store_h:
        async with trio.open_nursery() as nursery:
            for store in (store_a, store_b, store_h):
                await nursery.start(store.run)
            await store_b.write(lambda tx: tx.put(SITE, SERVER, "s", {"by": "b"}))
            pairs = (
                ((replication_a, who_a), (replication_h, who_h)),
                ((replication_b, who_b), (replication_h, who_h)),
            )
            for (left, who_left), (right, who_right) in pairs:
                here, there = link_pair(who_left.node_id, who_right.node_id)
                for side, link in ((left, here), (right, there)):
                    nursery.start_soon(side.service, link)
                    nursery.start_soon(side.receipt_service, link)
            with trio.fail_after(10):
                version = 0
                while store_a.get(SITE, SERVER, "s") is None:
                    version = await store_a.wait_past(version)
            assert register_a.register.active(who_b.node_id)
            row = store_a.get(SITE, SERVER, "s")
            assert row is not None
            assert (row.author, row.body) == (who_b.node_id, {"by": "b"})
            assert register_a.register.digest() == register_h.register.digest()
            nursery.cancel_scope.cancel()


async def test_a_link_for_renewal_carries_the_register_and_no_row(tmp_path):
    org = Org()
    org.admit("a")
    who_a, store_a, register_a, replication_a = member(tmp_path, org, "a")
    org.admit("b")
    who_b, store_b, register_b, replication_b = member(tmp_path, org, "b")
    who_b.renew(0, 1_800_000_000_000)
    with store_a, store_b:
        async with trio.open_nursery() as nursery:
            for store in (store_a, store_b):
                await nursery.start(store.run)
            await store_b.write(lambda tx: tx.put(SITE, SERVER, "s", {"by": "b"}))
            register_a.merge(org.roster(who_b))
            here, there = link_pair(who_a.node_id, who_b.node_id)
            nursery.start_soon(replication_a.renewal, here)
            nursery.start_soon(replication_b.service, there)  # it does not know of it
            register_b.merge(who_b.key_record)
            with trio.fail_after(10):
                version = 0
                while (found := register_a.register.member(who_b.node_id)).kem_epoch != 2:
                    version = await register_a.wait_past(version)
            assert found.kem_public == who_b.kem_public
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert store_a.get(SITE, SERVER, "s") is None
            assert replication_a.met_peers == set()
            nursery.cancel_scope.cancel()
