"""The site secret: one for all nodes of a site, however they start, part and end."""

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.site_secret import (
    EPOCH_STEP_MAX,
    Make,
    Seal,
    SecretRow,
    Settled,
    Wait,
    candidates,
    plan,
    plausible,
    read_row,
    row_body,
    row_key,
)
from mesh.proto.tables import SITE_SECRET, site_scope
from mesh.proto.trust import REVOKED
from mesh.register_store import RegisterStore
from mesh.site_secret import PATIENCE_S, SiteSecrets
from tests.support.rows import RowStore, World
from tests.support.trust import Org, identity

A, B, C = "a" * 32, "b" * 32, "c" * 32


def row(author, recipient, epoch=1, origin=None, kem_epoch=1) -> SecretRow:
    return SecretRow(author, recipient, epoch, origin or author, kem_epoch, b"x")


def steps(me, members, rows, revoked=(), held=None, patient=True):
    kem_epochs = dict.fromkeys(members, 1)
    return plan(me, kem_epochs, rows, revoked, held=held, patient=patient)


def test_the_first_node_makes_a_secret():
    assert steps(A, [A], []) == Make(1)


def test_a_newcomer_waits_and_after_its_patience_makes_the_next_epoch():
    rows = [row(A, A), row(A, B)]
    assert steps(C, [A, B, C], rows) == Wait()
    assert steps(C, [A, B, C], rows, patient=False) == Make(2)


def test_a_node_whose_peers_are_all_gone_does_not_wait():
    assert steps(C, [C], [row(A, A)]) == Make(2)


def test_holders_seal_to_whoever_has_no_fitting_row():
    rows = [row(A, A), row(A, B)]
    assert steps(B, [A, B, C], rows, held=(1, A)) == Seal((C,))
    assert steps(B, [A, B], rows, held=(1, A)) == Settled()
    renewed = plan(B, {A: 1, B: 2}, rows, (), held=(1, A), patient=True)
    assert renewed == Seal((B,))


def test_of_two_first_secrets_the_lower_origin_holds():
    rows = [row(A, A), row(A, B), row(B, A), row(B, B)]
    assert [found.origin for found in candidates(B, rows, ())] == [A, B]
    assert steps(B, [A, B], rows, held=(1, A)) == Settled()
    assert steps(C, [A, B, C], [*rows, row(B, C)], held=(1, B)) == Wait()


def test_a_revoked_nodes_epochs_are_refused_and_the_next_is_made():
    rows = [row(A, A), row(A, B), row(A, C)]
    assert candidates(A, rows, {C}) == []
    assert steps(A, [A, B], rows, {C}, held=None) == Make(2)
    assert steps(A, [A], rows, {C}, held=None) == Make(2)


def test_an_epoch_that_jumps_too_far_is_dropped():
    good, wild = row(A, A, epoch=3), row(B, A, epoch=EPOCH_STEP_MAX + 9)
    assert plausible([wild, good]) == [good]


@given(st.text(max_size=40), st.dictionaries(
    st.sampled_from(["epoch", "origin", "kem_epoch", "sealed"]),
    st.none() | st.integers() | st.text(max_size=40) | st.binary(max_size=9),
))  # fmt: skip
def test_garbage_rows_are_dropped(key, body):
    assert read_row(A, key, body) is None or body["epoch"] > 0


def test_a_row_reads_back_as_it_was_written():
    made = row(A, B, epoch=7)
    assert read_row(A, row_key(B, 7), row_body(made)) == made
    assert read_row(A, row_key(B, 8), row_body(made)) is None


# -- the shell, several nodes on one world -------------------------------------------------


class Site:
    """Nodes of one site that share rows and a register."""

    def __init__(self, path, labels) -> None:
        self.org, self.world = Org(), World()
        self.register = RegisterStore.open(path / "register", self.org.root_fp)
        self.register.merge(self.org.trust)
        self.nodes: dict[str, SiteSecrets] = {}
        for label in labels:
            self.join(label)

    def join(self, label) -> SiteSecrets:
        who = identity(label)
        self.register.merge(self.org.roster(who))
        self.register.merge(who.key_record)
        entropy = (bytes([number]) * 32 for number in itertools.count(ord(label[-1])))
        store = RowStore(self.world, who.node_id)
        self.nodes[label] = SiteSecrets(store, self.register, who, lambda _size: next(entropy))
        return self.nodes[label]

    async def settle(self, *labels) -> None:
        for _ in range(6):
            for label in labels or self.nodes:
                await self.nodes[label].ensure()

    def known(self) -> list:
        return [node.current() for node in self.nodes.values()]


async def test_all_nodes_come_to_know_one_secret(tmp_path):
    site = Site(tmp_path, ["n1", "n2", "n3"])
    await site.settle()
    (epoch, secret), *others = site.known()
    assert others == [(epoch, secret)] * 2
    late = site.join("n4")
    assert late.current() is None
    await site.settle()
    assert late.current() == (epoch, secret)


async def test_two_nodes_that_started_apart_agree_when_they_meet(tmp_path):
    site = Site(tmp_path, ["n1", "n2"])
    site.world.apart = {identity("n1").node_id, identity("n2").node_id}
    await site.settle()
    first, second = site.known()
    assert first != second
    site.world.apart = set()
    await site.settle()
    lower = min(["n1", "n2"], key=lambda label: identity(label).node_id)
    expected = first if lower == "n1" else second
    assert site.known() == [expected, expected]


async def test_revoking_a_node_makes_a_new_epoch_that_it_cannot_read(tmp_path):
    site = Site(tmp_path, ["n1", "n2", "n3"])
    await site.settle()
    old_epoch, old_secret = site.known()[0]
    lost = identity("n3")
    site.register.merge(site.org.roster(lost, status=REVOKED, version=2))
    await site.settle("n1", "n2")
    epoch, secret = site.nodes["n1"].current()
    assert epoch > old_epoch
    assert secret != old_secret
    assert site.nodes["n2"].current() == (epoch, secret)
    assert site.nodes["n1"].secret(old_epoch) is None
    recipients = {
        row.key
        for row in site.world.rows.values()
        if row.table == SITE_SECRET and row.body["epoch"] == epoch
    }
    assert row_key(lost.node_id, epoch) not in recipients


async def test_a_secret_never_stands_in_a_row_as_it_is(tmp_path):
    site = Site(tmp_path, ["n1", "n2"])
    await site.settle()
    _, secret = site.known()[0]
    assert not any(secret in repr(row).encode() for row in site.world.rows.values())
    assert all(secret not in row.body.get("sealed", b"") for row in site.world.rows.values())


async def test_a_row_that_does_not_open_is_as_good_as_none(tmp_path, autojump_clock):
    site = Site(tmp_path, ["n1"])
    await site.settle()
    epoch, _ = site.known()[0]
    node = site.join("n2")
    liar = identity("n1").node_id
    junk = row(liar, identity("n2").node_id, epoch)
    scope = site_scope("lab")
    await site.world.stores[0].write(
        lambda tx: tx.put(scope, SITE_SECRET, row_key(junk.recipient, epoch), row_body(junk))
    )
    assert isinstance(await node.ensure(), Wait)
    await trio.sleep(PATIENCE_S + 1)
    assert await node.ensure() == Make(epoch + 1)
    await site.settle()
    assert site.known()[0] == site.known()[1]


async def test_the_service_follows_register_and_store(tmp_path, autojump_clock):
    site = Site(tmp_path, ["n1"])
    async with trio.open_nursery() as nursery:
        await nursery.start(site.nodes["n1"].run)
        assert site.known()[0][0] == 1
        late = site.join("n2")
        await nursery.start(late.run)
        with trio.fail_after(60):
            while late.current() is None:
                await trio.sleep(1)
        assert late.current() == site.known()[0]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("order", list(itertools.permutations(["n1", "n2", "n3"])))
async def test_every_order_of_starting_ends_in_one_secret(tmp_path, order):
    site = Site(tmp_path, order)
    site.world.apart = {identity(order[0]).node_id}
    await site.settle()
    site.world.apart = set()
    await site.settle()
    assert len(set(site.known())) == 1
