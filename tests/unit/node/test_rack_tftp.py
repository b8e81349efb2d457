"""The TFTP client of simulated servers: RFC cases, a lossy link, and garbage."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.rack_tftp import TRIES_MAX, Failed, Finished, Send, TftpRead

SERVER, PEER, STRANGER = ("127.0.0.1", 69), ("127.0.0.1", 50000), ("127.0.0.9", 50000)


def data(block: int, content: bytes) -> bytes:
    return b"\0\3" + block.to_bytes(2, "big") + content


def ack(block: int) -> Send:
    return Send(b"\0\4" + block.to_bytes(2, "big"), PEER)


def test_the_request_asks_for_block_and_total_size() -> None:
    request = TftpRead(SERVER, "undionly.kpxe").start(0)
    assert request == [Send(b"\0\1undionly.kpxe\0octet\0blksize\x001432\0tsize\x000\0", SERVER)]


def test_options_are_acknowledged_and_blocks_follow() -> None:
    read = TftpRead(SERVER, "f", 512)
    read.start(0)
    assert read.on_datagram(b"\0\6BLKSIZE\x00256\0tsize\x00300\0", PEER, 1) == [ack(0)]
    assert read.on_datagram(data(1, b"a" * 256), PEER, 2) == [ack(1)]
    last = read.on_datagram(data(2, b"b" * 44), PEER, 3)
    assert last == [ack(2), Finished(b"a" * 256 + b"b" * 44)]
    assert read.deadline is None


def test_a_server_without_options_sends_512_bytes_at_once() -> None:
    read = TftpRead(SERVER, "f")
    read.start(0)
    assert read.on_datagram(data(1, b"x" * 512), PEER, 1) == [ack(1)]
    assert read.on_datagram(data(2, b""), PEER, 1)[-1] == Finished(b"x" * 512)


def test_strangers_and_duplicates_are_dropped() -> None:
    read = TftpRead(SERVER, "f")
    read.start(0)
    read.on_datagram(data(1, b"x" * 512), PEER, 1)
    assert read.on_datagram(data(1, b"x" * 512), PEER, 1) == []
    assert read.on_datagram(data(2, b"evil"), STRANGER, 1) == []
    assert read.on_datagram(data(2, b"evil"), ("127.0.0.1", 50001), 1) == []
    assert read.dropped == 3


def test_a_silent_server_is_asked_again_and_then_given_up() -> None:
    read = TftpRead(SERVER, "f")
    effects = read.start(0)
    sent, now = 1, 0.0
    while not isinstance(effects[0], Failed):
        assert read.deadline is not None
        now = read.deadline
        effects = read.on_timer(now)
        sent += isinstance(effects[0], Send)
    assert sent == TRIES_MAX


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"\0\5\0\1file not found\0", "error 1: file not found"),
        (b"\0\6blksize\x009999\0", "block size"),
        (b"\0\6blksize\0-1\0", "block size"),
        (b"\0\6tsize\x0099999999999\0", "larger"),
    ],
)
def test_what_the_server_may_not_do_ends_the_transfer(packet: bytes, words: str) -> None:
    read = TftpRead(SERVER, "f")
    read.start(0)
    (failed,) = read.on_datagram(packet, PEER, 1)
    assert isinstance(failed, Failed)
    assert words in failed.reason


def test_a_transfer_over_a_lossy_link_is_whole_seed_7() -> None:
    rng = random.Random(7)
    content = rng.randbytes(40_000)
    read = TftpRead(SERVER, "f", 1432)
    queue = read.start(0.0)
    now, result = 0.0, None
    for _ in range(10_000):
        if result is not None:
            break
        answers: list[bytes] = []
        for effect in queue:
            if isinstance(effect, Finished | Failed):
                result = effect
            elif rng.random() > 0.2:
                answers.append(_serve(effect.datagram, content))
        queue = []
        for packet in answers:
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                queue += read.on_datagram(packet, PEER, now)
        if not queue and read.deadline is not None:
            now = read.deadline
            queue = read.on_timer(now)
    assert result == Finished(content)


def _serve(request: bytes, content: bytes) -> bytes:
    if request[1] == 1:
        return b"\0\6blksize\x001432\0tsize\0" + str(len(content)).encode() + b"\0"
    block = int.from_bytes(request[2:4], "big")
    return data(block + 1, content[block * 1432 : block * 1432 + 1432])


@given(st.lists(st.binary(max_size=600), max_size=20))
def test_garbage_never_raises(packets: list[bytes]) -> None:
    read = TftpRead(SERVER, "f")
    read.start(0)
    for packet in packets:
        read.on_datagram(packet, PEER, 1)
        read.on_datagram(b"\0\6" + packet, PEER, 1)
    read.on_timer(99)
