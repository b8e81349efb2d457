"""Peers that lie, stutter, replay or stop reading: the link goes, nothing else does."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from mesh.identity import make_identity
from mesh.link import link as link_module
from mesh.link import peers as peers_module
from mesh.link import session as session_module
from mesh.link.carrier import CarrierLost
from mesh.link.link import Link
from mesh.link.session import Session, dial_session
from mesh.link.tcp import TcpCarrier, dial_tcp
from mesh.proto.frames import Call, Service, encode, make_hello
from mesh.proto.noise import Handshake
from mesh.proto.record import DATA, IK, XX, handshake_record
from tests.support.link_mesh import WAIT_S, Place, eventually, running, until
from tests.support.trust import Org, identity, seed

HELLO = encode(make_hello("main", "evil", b"evil"))


async def echo(_peer: str, body: object) -> object:
    return body


def counter(place: Place, name: str) -> int:
    return place.peers.statistics().counters.get(name, 0)


@asynccontextmanager
async def victim(
    **services: Callable[[Link], Awaitable[None]],
) -> AsyncIterator[tuple[Org, Place]]:
    """A member ``b`` under attack; afterwards a well-behaved member must still be served."""
    org = Org()
    for label in ("a", "b", "c"):
        org.admit(label)
    b, c = Place(org, "b", rpc={"echo": echo}, services=services), Place(org, "c")
    async with running(b, c):
        yield org, b
        c.knows(b)
        assert await c.peers.rpc(b.id, "echo", "still here", WAIT_S) == "still here"


async def connect(b: Place) -> TcpCarrier:
    return await dial_tcp("127.0.0.1", b.peers.port)


async def member(org: Org, b: Place) -> Session:
    """A session of the real member ``a``, in the hands of whoever has its key."""
    return await dial_session(await connect(b), identity("a"), org.register, b.id)


async def say(session: Session, *messages: bytes) -> None:
    """Send as far as the victim lets us."""
    for message in messages:
        try:
            await session.carrier.send(session.sealer.seal(message, 0.0))
        except CarrierLost:
            return


async def is_dropped(carrier: TcpCarrier) -> None:
    """Read until the victim has closed the connection."""
    with trio.fail_after(WAIT_S):
        while not await is_lost(carrier):
            pass
    await carrier.aclose()


async def is_lost(carrier: TcpCarrier) -> bool:
    try:
        await carrier.receive()
    except CarrierLost:
        return True
    return False


def first_message(org: Org, b: Place, prologue: bytes = b"rackmesh/1") -> bytes:
    who = identity("a")
    known = org.register.member(b.id)
    assert known is not None
    noise = Handshake(
        "IK",
        initiator=True,
        static_private=who.kem_private,
        ephemeral_private=os.urandom(32),
        remote_static=known.kem_public,
        prologue=prologue,
    )
    return noise.write(who.key_record)


async def test_first_bytes_that_are_no_handshake_are_dropped():
    async with victim() as (org, b):
        good = first_message(org, b)
        flipped = bytearray(good)
        flipped[40] ^= 1
        wrongs = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x00" * 100,
            handshake_record(XX, good),
            handshake_record(IK, b""),
            handshake_record(IK, good[:-1]),
            handshake_record(IK, bytes(flipped)),
            handshake_record(IK, bytes(65_535)),
            handshake_record(IK, first_message(org, b, b"rackmesh/2")),
            bytes([DATA]) + handshake_record(IK, good)[1:],
        ]
        for wrong in wrongs:
            carrier = await connect(b)
            await carrier.send([wrong, handshake_record(XX, b"no XX either")])
            await is_dropped(carrier)
        assert counter(b, "handshakes_refused") == len(wrongs)


async def test_a_connection_that_says_nothing_is_dropped_in_time(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(session_module.within, "__defaults__", (0.1,))
    async with victim() as (_, b):
        silent, half = await connect(b), await connect(b)
        await half.send([b"\x01\x00"])
        await is_dropped(silent)
        await is_dropped(half)


async def test_more_half_open_connections_than_allowed_are_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(peers_module, "HANDSHAKES_MAX", 2)
    async with victim() as (_, b):
        waiting = [await connect(b) for _ in range(2)]
        await eventually(lambda: b.peers._pending == 2)
        await is_dropped(await connect(b))
        assert counter(b, "handshakes_over_limit") == 1
        for carrier in waiting:
            await carrier.aclose()
        await eventually(lambda: not b.peers._pending)


async def test_someone_elses_key_record_does_not_help():
    async with victim() as (org, b):
        stolen = identity("c")
        known = org.register.member(b.id)
        assert known is not None
        noise = Handshake(
            "IK",
            initiator=True,
            static_private=identity("mallory").kem_private,
            ephemeral_private=os.urandom(32),
            remote_static=known.kem_public,
        )
        carrier = await connect(b)
        await carrier.send([handshake_record(IK, noise.write(stolen.key_record))])
        await is_dropped(carrier)
        assert counter(b, "handshakes_refused") == 1


async def test_a_key_that_its_owner_has_replaced_opens_no_door():
    async with victim() as (org, b):
        old = identity("a")
        new = make_identity(seed("a/id"), seed("a/newer"), kem_epoch=2)
        session = await dial_session(await connect(b), new, org.register, b.id)
        await say(session, HELLO)
        await until(b.peers, lambda: session_peer(b) is not None)
        await session.carrier.aclose()
        known = b.roster.register.member(old.node_id)
        assert known is not None
        assert known.kem_public == new.kem_public
        carrier = await connect(b)
        await carrier.send([handshake_record(IK, first_message(org, b))])
        await is_dropped(carrier)
        assert counter(b, "handshakes_refused") == 1


async def test_members_whose_keys_are_both_new_to_the_other_meet_by_xx():
    org = Org()
    for label in ("a", "b"):
        org.admit(label)
    new_a, new_b = (
        make_identity(seed(f"{label}/id"), seed(f"{label}/newer"), 2) for label in ("a", "b")
    )
    a, b = Place(org, "a", who=new_a), Place(org, "b", who=new_b, rpc={"echo": echo})
    async with running(a, b):
        a.knows(b)
        assert await a.peers.rpc(b.id, "echo", "hello", WAIT_S) == "hello"
        for place, other in ((a, b), (b, a)):
            known = place.roster.register.member(other.id)
            assert known is not None
            assert known.kem_public == other.identity.kem_public


async def test_a_restored_member_learns_that_it_has_replaced_its_key():
    async with victim() as (org, b):
        newer = make_identity(seed("a/id"), seed("a/newer"), kem_epoch=2)
        b.roster.merge(newer.key_record)
        restored = Place(org, "a")
        async with running(restored):
            restored.knows(b)
            known = restored.roster.register.member
            await eventually(lambda: known(restored.id).kem_epoch == 2)  # type: ignore[union-attr]
            assert b.peers.connected() == {}


async def test_a_replayed_first_message_gets_no_link():
    async with victim() as (org, b):
        message = handshake_record(IK, first_message(org, b))
        for _ in range(2):
            carrier = await connect(b)
            await carrier.send([message])
            assert (await carrier.receive())[0] == IK
            await carrier.send([bytes([DATA, 0, 16]) + bytes(16)])
            await is_dropped(carrier)
        assert b.peers.connected() == {}
        assert counter(b, "lost_RecordError") == 2


@pytest.mark.parametrize("how", ["replay", "flip", "truncate", "unknown", "oversized"])
async def test_a_wrong_record_ends_the_link_and_is_counted(how: str):
    async with victim() as (org, b):
        session = await member(org, b)
        await say(session, HELLO)
        await until(b.peers, lambda: session_peer(b) is not None)
        [sealed] = session.sealer.seal(encode(Call(1, "echo", 1000, None)), 0.0)
        record = bytearray(sealed)
        if how == "replay":
            await session.carrier.send([record, record])
        elif how == "flip":
            record[-1] ^= 1
            await session.carrier.send([record])
        elif how == "truncate":
            await session.carrier.send([record[:-1], record])
        elif how == "unknown":
            await session.carrier.send([b"\xee\x00\x01x"])
        else:
            await session.carrier.send([b"\x03\xff\xff" + bytes(65_535)])
        assert isinstance(session.carrier, TcpCarrier)
        await is_dropped(session.carrier)
        await until(b.peers, lambda: session_peer(b) is None)
        assert counter(b, "lost_RecordError") == 1


def session_peer(b: Place) -> object:
    return b.peers.connected().get(identity("a").node_id)


async def test_a_member_that_skips_hello_or_talks_nonsense_is_dropped():
    async with victim() as (org, b):
        for messages in ([b"\xc1"], [encode(Service("sync", 1))], [HELLO] + [b"\x90"] * 100):
            session = await member(org, b)
            await say(session, *messages)
            assert isinstance(session.carrier, TcpCarrier)
            await is_dropped(session.carrier)


async def test_a_peer_that_stops_reading_blocks_nobody_and_loses_its_link(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(link_module, "STALL_S", 0.3)
    sent: dict[str, int] = {}

    async def push(link: Link) -> None:
        while True:
            await link.send("broadcast", bytes(100_000))
            sent[link.peer] = sent.get(link.peer, 0) + 1

    async with victim(broadcast=push) as (org, b):
        session = await member(org, b)
        await say(session, HELLO)
        await until(b.peers, lambda: session_peer(b) is not None)
        org.admit("d")
        for record in org.register.records():
            b.roster.merge(record)
        d = Place(org, "d")
        async with running(d):
            d.knows(b)
            assert await d.peers.rpc(b.id, "echo", "meanwhile", WAIT_S) == "meanwhile"
            assert session_peer(b) is not None
            await until(b.peers, lambda: session_peer(b) is None)
        assert sent[identity("a").node_id] <= 50  # what waited was bounded by the credit
        await session.carrier.aclose()


async def test_a_peer_that_floods_calls_is_refused_and_others_are_served():
    gate = trio.Event()

    async with victim() as (org, b):
        b.peers._rpc = {"echo": echo, "wait": lambda _peer, _body: gate.wait()}
        session = await member(org, b)
        await say(session, HELLO)
        await say(session, *(encode(Call(n, "wait", 60_000, None)) for n in range(1, 200)))
        refusals = 0
        with trio.fail_after(WAIT_S):
            while refusals < 199 - 64:
                kind, body = await session.carrier.receive()
                refusals += b"too many calls" in bytes(session.opener.open(kind, body) or b"")
        await session.carrier.aclose()


async def test_everything_ends_at_once_when_cancelled():
    org = Org()
    for label in ("a", "b"):
        org.admit(label)
    gate = trio.Event()

    async def stuck(_peer: str, _body: object) -> object:
        await gate.wait()
        return None

    a, b = Place(org, "a"), Place(org, "b", rpc={"stuck": stuck})
    start = trio.current_time()
    async with running(a, b) as nursery:
        a.knows(b)
        async with a.peers.bulk(b.id) as link:
            for _ in range(10):
                nursery.start_soon(swallow, a, b)
                nursery.start_soon(swallow_link, link)
            await until(b.peers, lambda: a.id in b.peers.connected())
            nursery.cancel_scope.cancel()
    assert trio.current_time() - start < 5
    assert a.peers.connected() == b.peers.connected() == {}


async def swallow(a: Place, b: Place) -> None:
    await a.peers.rpc(b.id, "stuck", None, 60)


async def swallow_link(link: Link) -> None:
    await link.rpc("stuck", None, 60)
