"""A remembered answer is byte for byte the one that is worked out."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from node.proto.dhcp import Packet, decode, encode
from node.proto.dhcp_responder import PACKET_BYTES_MAX, REPLIES_MAX, Responder, with_xid
from node.proto.lease import answer
from tests.support.boot_site import A, packet, request, snapshot
from tests.unit.node.test_lease import BINDINGS, SERVERS, any_packet

SITE = snapshot(servers=SERVERS, bindings=BINDINGS)


def answered(responder: Responder, data: bytes) -> None:
    client = decode(data)
    assert client is not None
    responder.find(SITE, data)
    responder.keep(SITE, data, "10.77.0.250", client, answer(SITE, client))


@settings(max_examples=400)
@given(any_packet, st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 255))
def test_the_same_packet_again_gets_the_bytes_that_would_be_worked_out(
    client: Packet, xid: int, secs: int, hops: int
) -> None:
    responder = Responder()
    answered(responder, encode(client))
    again = replace(client, xid=xid, secs=secs, hops=hops)
    known = responder.find(SITE, encode(again))
    fresh = answer(SITE, again)
    if known is None:
        assert (
            fresh.reply is None
            or fresh.claim is not None
            or len(encode(again)) > PACKET_BYTES_MAX
            or client.op != 1
        )
        return
    assert known.answer.reply is not None
    assert fresh.reply is not None
    assert with_xid(known.answer.reply.data, encode(again)) == fresh.reply.data
    assert (known.to, known.answer.reply.port) == (str(fresh.reply.address), fresh.reply.port)
    assert (known.answer.kind, known.answer.seen) == (fresh.kind, fresh.seen)


def test_another_packet_or_snapshot_is_worked_out_anew() -> None:
    responder, data = Responder(), encode(packet(giaddr="10.77.0.250"))
    answered(responder, data)
    assert responder.find(SITE, data) is not None
    other = encode(packet(giaddr="10.77.0.250", flags=0x8000))
    assert responder.find(SITE, other) is None
    assert responder.find(snapshot(), data) is None
    assert responder.find(SITE, data) is None, "the old snapshot's answers are gone"


def test_a_binding_that_must_be_durable_is_never_repeated_from_memory() -> None:
    responder = Responder()
    stranger = packet(mac="52:54:00:99:00:01")
    address = str(SITE.address_of("52:54:00:99:00:01", SITE.subnets[0]))
    asks = request(address, A, mac="52:54:00:99:00:01")
    assert answer(SITE, asks).claim is not None
    for client in (stranger, asks):
        answered(responder, encode(client))
    assert responder.find(SITE, encode(stranger)) is not None
    assert responder.find(SITE, encode(asks)) is None


def test_answers_to_a_flood_fill_no_table() -> None:
    responder = Responder()
    client = packet(giaddr="10.77.0.250")
    result = answer(SITE, client)
    for number in range(2 * REPLIES_MAX + 5):
        data = encode(replace(client, giaddr=client.giaddr)) + number.to_bytes(4, "big")
        responder.find(SITE, data)
        responder.keep(SITE, data, "10.77.0.250", client, result)
    assert len(responder._known) == 5
    long = encode(client) + bytes(PACKET_BYTES_MAX)
    responder.keep(SITE, long, "10.77.0.250", client, result)
    assert len(responder._known) == 5
