"""The comparison of ``scripts/bench/dhcp`` finds what differs, and its packets are sound."""

import random

from dhcp_site import RELAYS, Compared, _judge, any_packet

from node.proto.dhcp import decode

A, B, C = nodes = [("127.0.0.1", port) for port in (1, 2, 3)]


def test_every_byte_that_differs_and_every_silence_is_counted():
    found = Compared()
    said = {
        **{(1, node): b"same" for node in nodes},
        (2, A): b"same", (2, B): b"sXmY", (2, C): b"same!",
        (3, A): b"same", (3, C): b"same",
    }  # fmt: skip
    _judge(found, dict.fromkeys((1, 2, 3, 4), b""), said, nodes)
    assert found == Compared(packets=0, answered=2, differing_bytes=3, partly=1)


def test_packets_are_whole_and_of_many_kinds():
    rng = random.Random(1)
    packets = [decode(any_packet(rng, xid, 100, RELAYS[0])) for xid in range(500)]
    assert None not in packets
    kinds = {p.message_type for p in packets if p}
    assert kinds == {1, 3, 8}
    assert len({p.architectures for p in packets if p}) == 7
