"""Links over real TCP on loopback: two members, their calls, streams, services and failures."""

import pytest
import trio

from mesh.errors import Refused, RemoteError, RemoteRefused, Unreachable
from mesh.identity import Identity, make_identity
from mesh.link.flow import MessageStream, StreamBroken
from mesh.link.link import Link
from mesh.proto import record
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until
from tests.support.trust import Org, seed


def org_of(*labels: str) -> Org:
    org = Org()
    for label in labels:
        org.admit(label)
    return org


async def echo(peer: str, body: object) -> object:
    return {"from": peer, "body": body}


async def refuse(_peer: str, _body: object) -> object:
    raise Refused("not while the moon is full")


async def sleep(_peer: str, _body: object) -> object:
    await trio.sleep_forever()


async def broken(_peer: str, body: object) -> object:
    raise KeyError(body)


RPC = {"echo": echo, "refuse": refuse, "sleep": sleep, "broken": broken}


async def double(_peer: str, _body: object, stream: MessageStream) -> None:
    async for data in stream:
        await stream.send(data + data)


async def test_two_members_connect_and_call_each_other():
    org = org_of("a", "b")
    a, b = Place(org, "a", rpc=RPC), Place(org, "b", rpc=RPC)
    async with running(a, b):
        a.knows(b)
        answer = await a.peers.rpc(b.id, "echo", [1, b"x", None], WAIT_S)
        assert answer == {"from": a.id, "body": [1, b"x", None]}
        await until(b.peers, lambda: a.id in b.peers.connected())
        answer = await b.peers.rpc(a.id, "echo", "back", WAIT_S)
        assert answer == {"from": b.id, "body": "back"}
        info = a.peers.connected()[b.id]
        assert (info.kind, info.path, info.dialled) == ("main", "tcp", True)


async def test_a_refused_a_failed_and_an_unknown_call_carry_a_sentence():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", rpc=RPC)
    async with running(a, b):
        a.knows(b)
        with pytest.raises(RemoteRefused, match="not while the moon is full"):
            await a.peers.rpc(b.id, "refuse", None, WAIT_S)
        with pytest.raises(RemoteRefused, match="broken failed there"):
            await a.peers.rpc(b.id, "broken", None, WAIT_S)
        with pytest.raises(RemoteRefused, match="no method 'nothing'"):
            await a.peers.rpc(b.id, "nothing", None, WAIT_S)
        with pytest.raises(Unreachable, match="did not answer"):
            await a.peers.rpc(b.id, "sleep", None, 0.05)
        assert await a.peers.rpc(b.id, "echo", 1, WAIT_S)


async def test_a_node_without_an_address_or_a_listener_is_unreachable():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    async with running(a):
        with pytest.raises(Unreachable, match="no address"):
            await a.peers.rpc(b.id, "echo", None, 2)
        a.addresses[b.id] = [("127.0.0.1", 1)]
        with pytest.raises(Unreachable, match="no TCP connection"):
            await a.peers.rpc(b.id, "echo", None, 2)


async def test_a_megabyte_goes_through_a_call_and_a_stream():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", rpc=RPC, streams={"double": double})
    data = bytes(range(256)) * 4096
    async with running(a, b):
        a.knows(b)
        answer = await a.peers.rpc(b.id, "echo", data, WAIT_S)
        assert answer["body"] == data
        async with a.peers.stream(b.id, "double", None) as stream:
            await stream.send(b"ab")
            assert await stream.receive() == b"abab"
            stream.send_eof()
            with pytest.raises(trio.EndOfChannel):
                await stream.receive()


async def test_keys_change_under_way_and_nobody_notices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "REKEY_RECORDS", 4)
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", rpc=RPC)
    async with running(a, b):
        a.knows(b)
        for number in range(40):
            answer = await a.peers.rpc(b.id, "echo", bytes(number * 5000), WAIT_S)
            assert answer["body"] == bytes(number * 5000)
        link = a.peers.live(b.id)
        assert link is not None
        assert min(link.session.sealer.steps, link.session.opener.steps) > 10


async def test_a_stream_waits_for_its_reader_and_does_not_block_calls():
    org = org_of("a", "b")
    go = trio.Event()
    got = 0

    async def slow(_peer: str, _body: object, stream: MessageStream) -> None:
        nonlocal got
        await go.wait()
        async for data in stream:
            got += len(data)

    a, b = Place(org, "a"), Place(org, "b", rpc=RPC, streams={"slow": slow})
    sent = 0

    async def push() -> None:
        nonlocal sent
        async with a.peers.stream(b.id, "slow", None) as stream:
            for _ in range(64):
                await stream.send(bytes(60_000))
                sent += 60_000
            stream.send_eof()
            with pytest.raises((trio.EndOfChannel, StreamBroken)):
                await stream.receive()

    async with running(a, b):
        a.knows(b)
        await a.peers.rpc(b.id, "echo", 1, WAIT_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            with trio.fail_after(WAIT_S):
                while sent < 1_000_000:
                    await a.peers.rpc(b.id, "echo", 1, WAIT_S)
            for _ in range(20):
                assert (await a.peers.rpc(b.id, "echo", 2, WAIT_S))["body"] == 2
            assert sent <= (1 << 20) + 60_000  # the window, and no more
            go.set()
        assert got == sent == 64 * 60_000


async def test_an_unknown_or_failing_stream_is_broken_off_with_a_sentence():
    async def failing(_peer: str, _body: object, stream: MessageStream) -> None:
        raise ValueError("boom")

    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", streams={"failing": failing})
    async with running(a, b):
        a.knows(b)
        for name, match in (("none", "no stream 'none'"), ("failing", "failing failed there")):
            async with a.peers.stream(b.id, name, None) as stream:
                with pytest.raises(StreamBroken, match=match):
                    await stream.receive()


async def test_services_get_the_link_and_their_frames_and_end_with_it():
    org = org_of("a", "b")
    seen: list[tuple[str, str, object]] = []
    ended: list[str] = []
    both = trio.Event()

    async def sync(link: Link) -> None:
        await link.send("sync", {"hello": link.peer})
        async for body in link.receive("sync"):
            seen.append((link.peer, link.kind, body))
            await link.send("receipt", 1)

    async def receipt(link: Link) -> None:
        try:
            assert await link.receive("receipt").receive() == 1
            ended.append(link.peer)
            if len(ended) == 2:
                both.set()
        except trio.EndOfChannel:
            pass

    services = {"sync": sync, "receipt": receipt}
    a, b = Place(org, "a", services=services), Place(org, "b", services=services)
    async with running(a, b):
        a.knows(b)
        await until(a.peers, lambda: b.id in a.peers.connected())
        with trio.fail_after(WAIT_S):
            await both.wait()
    assert sorted(seen) == sorted(
        [(a.id, "main", {"hello": b.id}), (b.id, "main", {"hello": a.id})]
    )


async def test_a_bulk_link_stands_beside_the_main_link():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", rpc=RPC, streams={"double": double})
    async with running(a, b):
        a.knows(b)
        await until(a.peers, lambda: b.id in a.peers.connected())
        async with a.peers.bulk(b.id) as link:
            assert link.kind == "bulk"
            answer = await link.rpc("echo", bytes(1 << 20), WAIT_S)
            assert len(answer["body"]) == 1 << 20
            async with link.stream("double", None) as stream:
                await stream.send(b"1")
                assert await stream.receive() == b"11"
            assert b.peers.statistics().bulk_links == 1
            assert a.peers.statistics().links == 1
        await link.wait_closed()
        assert b.id in a.peers.connected()


async def test_crossing_dials_leave_one_link_the_lower_ids():
    org = org_of("a", "b")
    a, b = Place(org, "a", rpc=RPC), Place(org, "b", rpc=RPC)
    async with running(a, b):
        a.knows(b)
        b.knows(a)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.peers.rpc, b.id, "echo", 1, WAIT_S)
            nursery.start_soon(b.peers.rpc, a.id, "echo", 2, WAIT_S)
        lower, higher = sorted((a, b), key=lambda place: place.id)
        for place, other, dialled in ((lower, higher, True), (higher, lower, False)):
            await until(
                place.peers,
                lambda place=place, other=other, dialled=dialled: (
                    (info := place.peers.connected().get(other.id)) is not None
                    and info.dialled == dialled
                ),
            )


async def test_a_restarted_peer_is_found_again():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b", rpc=RPC)
    async with running(a) as nursery:
        with trio.CancelScope() as life:
            async with trio.open_nursery() as first:
                await first.start(b.peers.run)
                a.knows(b)
                port = b.peers.port
                await until(a.peers, lambda: b.id in a.peers.connected())
                life.cancel()
        await until(a.peers, lambda: b.id not in a.peers.connected())
        again = Place(org, "b", rpc=RPC)
        again.peers._listen = ("127.0.0.1", port)
        await nursery.start(again.peers.run)
        await until(a.peers, lambda: b.id in a.peers.connected())
        assert (await a.peers.rpc(b.id, "echo", 1, WAIT_S))["body"] == 1


async def test_a_member_that_is_suspended_loses_its_links_at_once():
    org = org_of("a", "b")
    a, b = Place(org, "a"), Place(org, "b")
    async with running(a, b):
        a.knows(b)
        await until(a.peers, lambda: b.id in a.peers.connected())
        a.roster.merge(org.roster(b.identity, status="suspended", version=2))
        await until(a.peers, lambda: b.id not in a.peers.connected())
        await until(b.peers, lambda: a.id not in b.peers.connected())
        with pytest.raises(Unreachable):
            await b.peers.rpc(a.id, "echo", None, 1)
        assert a.peers.statistics().counters["inactive_closed"] == 1


async def test_a_stranger_is_not_let_in():
    org = org_of("a")
    other = org_of("a", "b")
    a, b = Place(org, "a"), Place(other, "b")
    async with running(a, b):
        b.knows(a)
        with pytest.raises(Unreachable):
            await b.peers.rpc(a.id, "echo", None, 2)
        assert a.peers.connected() == {}
        assert a.peers.statistics().counters["handshakes_refused"] >= 1


def aged(label: str, days: int) -> Identity:
    """A member whose key was made so many days before the time of ``StepClock``."""
    made_ms = 1_800_000_000_000 - days * 86_400_000
    return make_identity(seed(f"{label}/id"), seed(f"{label}/kem"), made_ms=made_ms)


async def test_a_peer_with_an_expired_key_gets_the_register_and_nothing_else():
    org = Org()
    for label in ("a", "b"):
        org.admit(label)
    served: list[str] = []

    def service(name: str):
        async def run(link: Link) -> None:
            served.append(name)
            await link.wait_closed()

        return run

    a = Place(org, "a", who=aged("a", 57))
    b = Place(
        org, "b", who=aged("b", 55), services={"sync": service("sync")},
        renewal=service("renewal"), rpc={"echo": echo},
    )  # fmt: skip
    async with running(a, b):
        a.knows(b)
        await until(b.peers, lambda: a.id in b.peers.connected())
        await eventually(lambda: served == ["renewal"])
        with pytest.raises(RemoteError):
            await a.peers.rpc(b.id, "echo", "hello", 5.0)
        a.identity.renew(0, 1_800_000_000_000)
        a.peers.renew("a new key")
        await eventually(lambda: served == ["renewal", "sync"])
        assert await a.peers.rpc(b.id, "echo", "hi", 5.0) == {"from": a.id, "body": "hi"}
        known = b.roster.register.member(a.id)
        assert known is not None
        assert (known.kem_epoch, known.kem_public) == (2, a.identity.kem_public)
