"""News through gateways only, over real links on loopback, with real stores and registers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mesh.host.clock import FixedClock
from mesh.identity import Identity
from mesh.link.peers import Peers
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.tables import FLEET, NODE
from mesh.register_store import RegisterStore
from mesh.store import MeshStore
from mesh.sync import Replication
from mesh.topology import Topology
from tests.support.link_mesh import StepClock, eventually
from tests.support.trust import MEMBER, Org

WAIT_S = 20.0
NOW_MS = 1_700_000_000_000


class Member:
    """A node of the mesh, without anything that boots machines."""

    def __init__(self, org: Org, who: Identity, site: str, folder: Path, *, old: bool) -> None:
        self.id, self.site = who.node_id, site
        self.addresses: dict[str, list[tuple[str, int]]] = {}
        self.register = RegisterStore.open(folder / "register", org.root_fp)
        self.register.merge_all(org.register.records())
        self.store = MeshStore.open(
            folder / "state.db",
            author=who.node_id,
            sign_head=lambda body: who.sign(HEAD_KIND, HEAD_N, org.root_fp, body),
            clock=FixedClock(NOW_MS),
            hub=False,
        )
        self.topology = Topology(who.node_id, site, self.register)
        self.replication = Replication(
            self.store, self.register, place=None if old else self.topology
        )
        self.peers = Peers(
            who, self.register, listen=("127.0.0.1", 0), hub_link=False,
            services=self.replication.services(), rpc={}, streams={}, clock=StepClock(),
            addresses=lambda: self.addresses, wanted=self.topology.wanted,
        )  # fmt: skip
        self.scope = trio.CancelScope()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.store.run)
                await nursery.start(self.replication.run)
                await nursery.start(self.peers.run)
                await nursery.start(self.topology.run, self.peers)
                task_status.started()

    async def write(self, text: str) -> None:
        await self.store.write(lambda tx: tx.put(FLEET, NODE, self.id, {"name": text}))

    def has(self, author: "Member", text: str) -> bool:
        row = self.store.get(FLEET, NODE, author.id) or self.row_of(author)
        return row is not None and row.body.get("name") == text

    def row_of(self, author: "Member"):
        rows = self.store.authored(FLEET, NODE, author.id)
        return rows[0] if rows else None

    async def until_has(self, author: "Member", text: str) -> None:
        with trio.fail_after(WAIT_S):
            while True:
                version = self.store.version
                if self.has(author, text):
                    return
                await self.store.wait_past(version)


@asynccontextmanager
async def fleet(
    folder: Path, sites: dict[str, int], old: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Org, dict[str, Member]]]:
    """Run members n0, n1, ... of some sites that know each other's addresses."""
    org = Org()
    labels = {f"{site}{n}": site for site, count in sites.items() for n in range(count)}
    people = {label: org.admit(label, site) for label, site in labels.items()}
    members = {
        label: Member(org, people[label], labels[label], folder / label, old=label in old)
        for label in labels
    }
    async with trio.open_nursery() as nursery:
        for member in members.values():
            await nursery.start(member.run)
        for one in members.values():
            for other in members.values():
                if one is not other:
                    one.addresses[other.id] = [("127.0.0.1", other.peers.port)]
            one.peers.look_again()
        yield org, members
        nursery.cancel_scope.cancel()
    for member in members.values():
        member.store.close()


def split(members: dict[str, Member], site: str) -> tuple[list[Member], list[Member]]:
    """Return a site's gateways, first one first, and its other members."""
    mine = {m.id: m for m in members.values() if m.site == site}
    gateways = [mine[node] for node in next(iter(mine.values())).topology.gateways(site)]
    return gateways, [m for m in mine.values() if m not in gateways]


async def linked(one: Member, *others: Member) -> None:
    for other in others:
        if other is not one:
            await eventually(lambda other=other: other.id in one.peers.connected())


async def test_a_write_reaches_the_other_site_through_gateways_only(tmp_path):
    async with fleet(tmp_path, {"left": 3, "right": 3}) as (_, members):
        left, (writer,) = split(members, "left")
        right, (reader,) = split(members, "right")
        await linked(left[0], *left, writer, right[0])
        await linked(right[0], *right, reader, left[0])
        await writer.write("first")
        await reader.until_has(writer, "first")
        for n in range(5):
            await writer.write(f"then {n}")
            await reader.until_has(writer, f"then {n}")
        far = {m.id for m in members.values() if m.site == "right"}
        assert not far & set(writer.peers.connected())
        assert reader.replication.statistics()["news applied"] >= 1
        assert reader.replication.statistics()["news strikes"] == 0


async def test_a_gateway_dies_and_news_still_come(tmp_path):
    async with fleet(tmp_path, {"left": 3, "right": 3}) as (_, members):
        left, (writer,) = split(members, "left")
        right, (reader,) = split(members, "right")
        for one in (writer, *left):
            await linked(one, writer, *left)
        for one in (reader, *right):
            await linked(one, reader, *right)
        await linked(left[1], right[1])
        await writer.write("with all")
        await reader.until_has(writer, "with all")
        left[0].scope.cancel()
        right[0].scope.cancel()
        await writer.write("without the first ones")
        await reader.until_has(writer, "without the first ones")


async def test_a_member_of_an_older_release_is_served_by_announcing(tmp_path):
    async with fleet(tmp_path, {"left": 3}, old=("left0",)) as (_, members):
        old, *others = members.values()
        for one in members.values():
            await linked(one, *members.values())
        await old.write("from the old one")
        for other in others:
            await other.until_has(old, "from the old one")
        await others[0].write("from a new one")
        await old.until_has(others[0], "from a new one")
        await others[1].until_has(others[0], "from a new one")
        assert "broadcast" not in str(old.replication.statistics())


async def test_a_record_of_the_register_is_flooded_at_once(tmp_path):
    async with fleet(tmp_path, {"left": 3, "right": 3}) as (org, members):
        left, (source,) = split(members, "left")
        right, (last,) = split(members, "right")
        await linked(left[0], *left, source, right[0])
        await linked(right[0], *right, last)
        gone = org.admit("gone", "left")
        source.register.merge_all(org.register.records())
        with trio.fail_after(WAIT_S):
            while last.register.register.member(gone.node_id) is None:
                await last.register.wait_past(last.register.version)
        assert last.register.register.member(gone.node_id).status == MEMBER
        assert source.replication.statistics()["news records out"] >= 2


async def test_ages_say_when_digests_were_compared(tmp_path):
    async with fleet(tmp_path, {"left": 2}) as (_, members):
        one, two = members.values()
        await linked(one, two)
        await eventually(lambda: two.id in one.replication.ages())
        assert one.replication.ages() == {two.id: NOW_MS}


async def test_a_link_to_another_site_that_nobody_wants_is_closed_again(tmp_path):
    async with fleet(tmp_path, {"left": 3, "right": 3}) as (_, members):
        left, (one,) = split(members, "left")
        right, (two,) = split(members, "right")
        await linked(left[0], *left, one, right[0])
        await one.peers.connect(two.id)
        await linked(two, one)
        news, back = one.replication.news, two.replication.news
        assert news is not None
        assert back is not None
        await eventually(lambda: news.core.unwanted(two.id) and back.core.unwanted(one.id))
        back.close_surplus()
        news.close_surplus()
        assert two.id in one.peers.connected()
        back.close_surplus()
        news.close_surplus()
        await eventually(lambda: two.id not in one.peers.connected())
        assert right[0].id in left[0].peers.connected()
