"""Links over a third member: two that cannot dial each other, and what a relay refuses."""

from contextlib import suppress

import pytest
import trio

from mesh.errors import Unreachable
from mesh.link import puncher
from mesh.link.peers import LinkLimits
from mesh.link.relay import PREFIX
from mesh.proto.relay import CAPABILITY, announce
from tests.io.test_links_tcp import RPC, double
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until
from tests.support.trust import Org


@pytest.fixture(autouse=True)
def no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave relayed links as they are."""
    monkeypatch.setattr(puncher, "FIRST_S", 3600.0)


def three(**more: object) -> tuple[Place, Place, Place]:
    """Two nodes that know nobody's address, and a hub."""
    org = Org()
    org.admit("a")
    org.admit("b")
    org.admit_hub("hub")
    return Place(org, "a", **more), Place(org, "b", rpc=RPC, **more), Place(org, "hub")


async def to_hub(hub: Place, *nodes: Place) -> None:
    """Let nodes dial the hub, as a node behind a NAT can."""
    for node in nodes:
        node.knows(hub)
        await until(node.peers, lambda node=node: hub.id in node.peers.connected())
        await until(hub.peers, lambda node=node: node.id in hub.peers.connected())


async def test_two_that_cannot_dial_each_other_have_a_link_through_the_hub():
    a, b, hub = three()
    async with running(a, b, hub):
        await to_hub(hub, a, b)
        answer = await a.peers.rpc(b.id, "echo", bytes(300_000), WAIT_S)
        assert answer == {"from": a.id, "body": bytes(300_000)}
        assert a.peers.connected()[b.id].path == f"{PREFIX}{hub.id}"
        assert b.peers.connected()[a.id].path == f"{PREFIX}{hub.id}"
        counters = hub.peers.statistics().counters
        assert counters["relays_opened"] == 1
        assert counters["relayed_bytes"] > 600_000
        assert hub.peers.connected().keys() == {a.id, b.id}


async def test_a_node_relays_as_long_as_it_is_let():
    org = Org()
    for label in ("a", "b"):
        org.admit(label)
    org.admit("far", "shop")
    a, b, far = Place(org, "a"), Place(org, "b", rpc=RPC), Place(org, "far")
    async with running(a, b, far):
        await to_hub(far, a, b)
        with pytest.raises(Unreachable):
            await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        for place in (a, b, far):
            let = org.roster(far.identity, "shop", version=2, capabilities=(CAPABILITY,))
            place.roster.merge(let)
        assert (await a.peers.rpc(b.id, "echo", 1, WAIT_S))["body"] == 1
        assert a.peers.connected()[b.id].path == f"{PREFIX}{far.id}"
        assert far.peers.statistics().counters["relays_opened"] == 1


async def test_the_link_comes_back_after_the_relays_restart():
    a, b, hub = three()
    async with running(a, b) as nursery:
        with trio.CancelScope() as life:
            async with trio.open_nursery() as first:
                await first.start(hub.peers.run)
                await to_hub(hub, a, b)
                await a.peers.rpc(b.id, "echo", 1, WAIT_S)
                port = hub.peers.port
                life.cancel()
        for one, other in ((a, b), (b, a)):
            await until(
                one.peers, lambda o=one, other=other: other.id not in o.peers.connected()
            )
        again = three()[2]
        again.peers._listen = ("127.0.0.1", port)
        await nursery.start(again.peers.run)
        await to_hub(again, a, b)
        assert (await a.peers.rpc(b.id, "echo", 2, WAIT_S))["body"] == 2


async def test_a_direct_link_replaces_the_relayed_one_and_not_the_other_way_round():
    a, b, hub = three()
    async with running(a, b, hub):
        await to_hub(hub, a, b)
        await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        b.addresses[a.id] = [("127.0.0.1", a.peers.port)]
        await b.peers._dialler.open(a.id, "main", relayed=False)
        for one, other in ((a, b), (b, a)):
            await until(
                one.peers,
                lambda one=one, other=other: (
                    other.id in (now := one.peers.connected()) and now[other.id].path == "tcp"
                ),
            )
        (way, *_) = a.peers.relay.ways(b.id, bulk=False)
        session = await a.peers._dialler._dial(b.id, way)
        link = await a.peers.start_link(session, "main")
        assert link.closed
        assert a.peers.connected()[b.id].path == "tcp"


async def test_bulk_goes_over_a_relay_only_where_relay_and_acceptor_allow_it():
    a, b, hub = three(streams={"double": double})
    async with running(a, b, hub):
        await to_hub(hub, a, b)
        with pytest.raises(Unreachable, match="carries no bulk links"):
            async with a.peers.bulk(b.id):
                pass
        hub.peers.relay._core._bulk = True
        with pytest.raises(Unreachable, match="no bulk links over a relay"):
            async with a.peers.bulk(b.id):
                pass
        a.peers._limits = LinkLimits(relay_bulk=True)
        before = b.peers.statistics().counters.get("bulk_refused", 0)
        with suppress(Unreachable):  # it may hear before or after its own HELLO is answered
            async with a.peers.bulk(b.id) as link:
                await link.wait_closed()
        assert b.peers.statistics().counters["bulk_refused"] == before + 1
        b.peers._limits = LinkLimits(relay_bulk=True)
        async with a.peers.bulk(b.id) as link:
            async with link.stream("double", None) as stream:
                await stream.send(b"1")
                assert await stream.receive() == b"11"


async def test_refusals_are_sentences_and_a_mere_node_is_no_relay():
    a, b, hub = three()
    async with running(a, b, hub):
        await to_hub(hub, a)
        with pytest.raises(Unreachable, match="has no link of its own with this relay"):
            await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        a.knows(b)
        await until(a.peers, lambda: b.id in a.peers.connected())
        async with a.peers.stream(b.id, "relay", announce(hub.id)) as stream:
            with pytest.raises(Exception, match="is no relay"):
                await stream.receive()
        async with a.peers.stream(b.id, "relay", {"to": hub.id, "bulk": False}) as stream:
            with pytest.raises(Exception, match="this node is no relay"):
                await stream.receive()
        async with a.peers.stream(b.id, "relay", ["nonsense"]) as stream:
            with pytest.raises(Exception, match="for nobody"):
                await stream.receive()


async def test_a_relayed_link_ends_when_an_end_is_suspended():
    a, b, hub = three()
    async with running(a, b, hub):
        await to_hub(hub, a, b)
        await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        org = Org()
        hub.roster.merge(org.roster(b.identity, status="suspended", version=2))
        await until(a.peers, lambda: b.id not in a.peers.connected())
        await eventually(lambda: not hub.peers.relay._core._splices)
