"""TFTP: the RFCs' cases, captured requests, a lossy link by seed, garbage."""

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto import tftp
from node.proto.dhcp_boot import ARCHITECTURES
from node.proto.tftp import (
    Aborted,
    Blocks,
    Caps,
    Effect,
    Finished,
    ReadRequest,
    Refusal,
    Send,
    parse_request,
)
from tests.support.pcap import datagrams


class ReadTransfer(tftp.ReadTransfer):
    """A transfer with its content, whose blocks come out as datagrams."""

    def __init__(
        self, content: bytes, options: dict[str, str], caps: Caps | None = None
    ) -> None:
        super().__init__(len(content), options, caps)
        self.content = content

    def sent(self, effects: list[Effect]) -> list[Effect]:
        """Return effects with each block as the packet that a shell makes of it."""
        found: list[Effect] = []
        for effect in effects:
            if not isinstance(effect, Blocks):
                found.append(effect)
                continue
            for block in range(effect.first, effect.first + effect.count):
                at = (block - 1) * self.block_bytes
                body = self.content[at : at + self.block_bytes]
                found.append(Send(tftp.data_header(block) + body))
        return found

    def start(self, now: float) -> list[Effect]:
        return self.sent(super().start(now))

    def on_datagram(self, data: bytes, now: float) -> list[Effect]:
        return self.sent(super().on_datagram(data, now))

    def on_timer(self, now: float) -> list[Effect]:
        return self.sent(super().on_timer(now))


def rrq(*words: str, opcode: int = 1) -> bytes:
    return bytes((0, opcode)) + b"".join(word.encode() + b"\0" for word in words)


def ack(block: int) -> bytes:
    return bytes((0, tftp.ACK)) + (block & 0xFFFF).to_bytes(2, "big")


def datagram(effects: list[Effect]) -> bytes:
    (effect,) = effects
    assert isinstance(effect, Send)
    return effect.data


def test_the_captured_requests_of_ovmf_are_read() -> None:
    found = [
        parse_request(d.data)
        for d in datagrams("uefi-norom-virtio-net-pci.pcap")
        if d.target_port == 69
    ]
    first, second = found
    asked = {"tsize": "0", "blksize": "1468", "windowsize": "4"}
    assert first == ReadRequest("snponly.efi", asked)
    assert isinstance(second, ReadRequest)
    assert second.options["blksize"] == "1468"
    assert "windowsize" in second.options


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (rrq("a", "octet"), ReadRequest("a", {})),
        (rrq("a", "OCTET", "BlkSize", "1024"), ReadRequest("a", {"blksize": "1024"})),
        (rrq("a", "octet", "blksize", "8", "blksize", "9"), ReadRequest("a", {"blksize": "8"})),
        (rrq("a", "octet", "lonely"), ReadRequest("a", {})),
    ],
)
def test_requests_are_read(data: bytes, expected: ReadRequest) -> None:
    assert parse_request(data) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (rrq("a", "netascii"), tftp.ILLEGAL),
        (rrq("a", "mail"), tftp.ILLEGAL),
        (rrq("a", "octet", opcode=2), tftp.ACCESS_VIOLATION),
        (b"\0\1\xff\0octet\0", tftp.NOT_FOUND),
    ],
)
def test_what_is_not_served_is_refused(data: bytes, code: int) -> None:
    refusal = parse_request(data)
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert refusal.datagram()[:4] == bytes((0, 5, 0, code))
    assert refusal.datagram().endswith(b"\0")


@pytest.mark.parametrize(
    "data", [b"", b"\0\1", b"\0\1a\0octet", b"\0\3ab\0", b"\1\1a\0octet\0"]
)
def test_what_is_no_request_gets_no_answer(data: bytes) -> None:
    assert parse_request(data) is None
    assert parse_request(rrq("a" * 2000, "octet")) is None


def test_a_plain_transfer_sends_blocks_of_512_and_ends_with_a_short_one() -> None:
    content = bytes(1000)
    transfer = ReadTransfer(content, {})
    first = datagram(transfer.start(0.0))
    assert first == b"\0\3\0\1" + content[:512]
    second = datagram(transfer.on_datagram(ack(1), 0.1))
    assert second == b"\0\3\0\2" + content[512:]
    assert transfer.on_datagram(ack(2), 0.2) == [Finished(1000)]
    assert transfer.deadline is None
    assert transfer.on_datagram(ack(2), 0.3) == []


@pytest.mark.parametrize("size", [0, 512, 1024])
def test_a_file_of_whole_blocks_ends_with_an_empty_one(size: int) -> None:
    transfer = ReadTransfer(bytes(size), {})
    last = datagram(transfer.start(0.0))
    for block in range(1, size // 512 + 1):
        last = datagram(transfer.on_datagram(ack(block), 0.0))
    assert last[4:] == b""
    assert transfer.on_datagram(ack(size // 512 + 1), 0.0) == [Finished(size)]


def test_only_what_was_asked_for_is_granted() -> None:
    asked = {"tsize": "0", "blksize": "1432", "windowsize": "4", "multicast": ""}
    transfer = ReadTransfer(bytes(5000), asked)
    oack = b"\0\6tsize\x005000\0blksize\x001432\0windowsize\x004\0"
    assert datagram(transfer.start(0.0)) == oack
    first = transfer.on_datagram(ack(0), 0.0)[0]
    assert first == Send(b"\0\3\0\1" + bytes(1432))
    assert transfer.granted == (("tsize", "5000"), ("blksize", "1432"), ("windowsize", "4"))


@pytest.mark.parametrize(
    ("options", "granted"),
    [
        ({"blksize": "65464"}, (("blksize", "1468"),)),
        ({"blksize": "8"}, (("blksize", "8"),)),
        ({"blksize": "7"}, ()),
        ({"blksize": "-1"}, ()),
        ({"blksize": "\u0661"}, ()),
        ({"timeout": "3"}, (("timeout", "3"),)),
        ({"timeout": "0"}, ()),
        ({"timeout": "256"}, ()),
        ({"tsize": "x"}, ()),
        ({"windowsize": "16"}, (("windowsize", "16"),)),
        ({"windowsize": "1000"}, (("windowsize", "64"),)),
        ({"windowsize": "0"}, ()),
        ({"windowsize": "65536"}, ()),
    ],
)
def test_options_are_granted_within_their_bounds(
    options: dict[str, str], granted: tuple[tuple[str, str], ...]
) -> None:
    transfer = ReadTransfer(bytes(10), options)
    assert transfer.granted == granted
    assert datagram(transfer.start(0.0))[1] == (tftp.OACK if granted else tftp.DATA)


def test_ovmf_leaving_after_the_oack_is_no_failure() -> None:
    transfer = ReadTransfer(bytes(10), {"tsize": "0"})
    transfer.start(0.0)
    (effect,) = transfer.on_datagram(tftp.error(8, "User aborted the transfer"), 0.1)
    assert isinstance(effect, Aborted)
    assert not effect.failure


def test_an_error_in_the_middle_is_a_failure() -> None:
    transfer = ReadTransfer(bytes(2000), {})
    transfer.start(0.0)
    (effect,) = transfer.on_datagram(tftp.error(3, "disk full\nforged"), 0.1)
    assert effect == Aborted("client error 3 disk full\nforged", failure=True)


def test_a_repeated_acknowledgement_sends_nothing_again() -> None:
    transfer = ReadTransfer(bytes(5000), {})
    transfer.start(0.0)
    transfer.on_datagram(ack(1), 0.1)
    assert transfer.on_datagram(ack(1), 0.2) == []
    assert transfer.on_datagram(ack(0), 0.2) == []
    assert transfer.on_datagram(ack(3), 0.2) == []


def test_silence_sends_again_and_then_gives_up() -> None:
    transfer = ReadTransfer(bytes(10), {})
    first = datagram(transfer.start(0.0))
    assert transfer.on_timer(0.5) == []
    times: list[float] = []
    while transfer.deadline is not None:
        now = transfer.deadline
        effects = transfer.on_timer(now)
        if effects != [Aborted("the client went silent", failure=True)]:
            assert datagram(effects) == first
            times.append(now)
    assert times[:4] == [1.0, 3.0, 7.0, 11.0]
    assert now == tftp.SILENCE_S_MAX


def test_the_time_to_send_again_follows_the_round_trip() -> None:
    transfer = ReadTransfer(bytes(100_000), {})
    transfer.start(0.0)
    now = 0.0
    for block in range(1, 60):
        now += 0.3
        transfer.on_datagram(ack(block), now)
    assert transfer.deadline == pytest.approx(now + 0.6, abs=0.05)
    slow = ReadTransfer(bytes(10), {"timeout": "1"})
    slow.start(0.0)
    for _ in range(4):  # never less often than the client wants
        before = slow.deadline
        assert before is not None
        slow.on_timer(before)
        assert slow.deadline == before + 1.0


def blocks_of(effects: list[Effect]) -> list[int]:
    found = [effect.data for effect in effects if isinstance(effect, Send)]
    return [int.from_bytes(data[2:4], "big") for data in found if data[1] == tftp.DATA]


def windowed(window: int, blocks: int) -> ReadTransfer:
    """Return a transfer whose first window is under way."""
    transfer = ReadTransfer(bytes(512 * blocks - 1), {"windowsize": str(window)})
    transfer.start(0.0)
    assert blocks_of(transfer.on_datagram(ack(0), 0.1)) == list(range(1, window + 1))
    return transfer


def test_a_window_is_sent_at_once_and_the_next_after_its_last_block() -> None:
    transfer = windowed(4, 10)
    assert blocks_of(transfer.on_datagram(ack(4), 0.2)) == [5, 6, 7, 8]
    assert blocks_of(transfer.on_datagram(ack(8), 0.3)) == [9, 10]
    assert transfer.on_datagram(ack(10), 0.4) == [Finished(5119)]
    assert transfer.retransmitted == 0


def test_a_gap_begins_the_window_anew_behind_what_the_client_has() -> None:
    transfer = windowed(4, 20)
    assert blocks_of(transfer.on_datagram(ack(2), 0.2)) == [3, 4, 5, 6]
    assert transfer.retransmitted == 2
    assert blocks_of(transfer.on_datagram(ack(6), 0.3)) == [7, 8, 9, 10]
    assert blocks_of(transfer.on_datagram(ack(6), 0.4)) == [7, 8, 9, 10], "its first was lost"


def test_a_client_that_tells_one_gap_many_times_gets_one_window() -> None:
    transfer = windowed(8, 100)
    sent = [blocks_of(transfer.on_datagram(ack(2), 0.15)) for _ in range(5)]
    assert sent == [list(range(3, 11)), [], [], [], []]
    assert blocks_of(transfer.on_datagram(ack(5), 0.15)) == list(range(6, 14)), "another gap"


def test_silence_asks_with_the_last_block_of_the_window() -> None:
    transfer = windowed(8, 100)
    assert transfer.deadline is not None
    assert blocks_of(transfer.on_timer(transfer.deadline)) == [8]
    assert blocks_of(transfer.on_datagram(ack(5), 9.0)) == list(range(6, 14)), "that it lacks"


def test_option_roms_get_shorter_bursts_than_other_firmware() -> None:
    assert tftp.caps_of("bios-x64").window < tftp.caps_of("uefi-x64").window
    assert set(tftp.CAPS_BY_ARCH) <= set(ARCHITECTURES.values())


def test_a_kind_of_client_gets_no_more_than_it_can_take() -> None:
    caps = Caps(block_bytes=1024, window=4)
    transfer = ReadTransfer(bytes(99), {"blksize": "1468", "windowsize": "64"}, caps)
    assert transfer.granted == (("blksize", "1024"), ("windowsize", "4"))


def test_block_numbers_go_on_at_zero() -> None:
    content = bytes(8 * 65_540)
    transfer = ReadTransfer(content, {"blksize": "8"})
    transfer.start(0.0)
    for block in range(65_541):
        effects = transfer.on_datagram(ack(block), 0.0)
        if block in {65_534, 65_535}:
            assert datagram(effects)[2:4] == ((block + 1) & 0xFFFF).to_bytes(2, "big")
    assert transfer.on_datagram(ack(65_541), 0.0) == [Finished(len(content))]


@dataclass
class Client:
    """A reading client that acknowledges what it has and repeats itself after silence."""

    block_bytes: int
    got: bytearray = field(default_factory=bytearray)
    expected: int = 1
    done: bool = False
    window: int = 1
    got_in_window: int = 0

    def on_datagram(self, data: bytes) -> bytes | None:
        if data[1] == tftp.OACK:
            return ack(0) if self.expected == 1 else None
        number = int.from_bytes(data[2:4], "big")
        if number == self.expected & 0xFFFF and not self.done:
            self.got += data[4:]
            self.done = len(data) - 4 < self.block_bytes
            self.expected += 1
            self.got_in_window += 1
            if self.got_in_window < self.window and not self.done:
                return None
        self.got_in_window = 0  # RFC 7440 section 4: full, at its end, or not in order
        return ack(self.expected - 1)


@pytest.mark.parametrize("window", [1, 3, 16])
@pytest.mark.parametrize("seed", range(20))
def test_a_lossy_link_with_seed_delivers_the_file(seed: int, window: int) -> None:
    rng = random.Random(seed)
    content = rng.randbytes(rng.randrange(0, 60_000))
    asked = {"blksize": "1024", "tsize": "0", "windowsize": str(window)}
    transfer = ReadTransfer(content, asked)
    client = Client(1024, window=window)
    queue: list[tuple[float, int, bool, bytes]] = []
    serial = 0
    outcome: Effect | None = None

    def put(now: float, to_client: bool, data: bytes) -> None:
        nonlocal serial
        for _ in range(rng.choices([0, 1, 2], [0.15, 0.8, 0.05])[0]):
            serial += 1
            heapq.heappush(queue, (now + rng.uniform(0.001, 0.2), serial, to_client, data))

    def carry_out(effects: list[Effect], now: float) -> None:
        nonlocal outcome
        for effect in effects:
            if isinstance(effect, Send):
                put(now, True, effect.data)
            else:
                outcome = effect

    now = 0.0
    carry_out(transfer.start(now), now)
    for _ in range(20_000):
        if outcome is not None:
            break
        if queue and (transfer.deadline is None or queue[0][0] <= transfer.deadline):
            now, _, to_client, data = heapq.heappop(queue)
            if to_client:
                reply = client.on_datagram(data)
                if reply is not None:
                    put(now, False, reply)
            else:
                carry_out(transfer.on_datagram(data, now), now)
        else:
            assert transfer.deadline is not None
            now = max(now, transfer.deadline)
            carry_out(transfer.on_timer(now), now)
    assert client.done
    assert bytes(client.got) == content
    assert outcome is not None


@given(st.binary(max_size=200))
def test_garbage_never_raises(data: bytes) -> None:
    parse_request(data)
    transfer = ReadTransfer(b"x" * 3000, {"blksize": "512"})
    transfer.start(0.0)
    transfer.on_datagram(data, 0.0)


@given(st.lists(st.tuples(st.sampled_from([3, 4, 5, 6]), st.integers(0, 9)), max_size=40))
def test_any_order_of_packets_never_raises(events: list[tuple[int, int]]) -> None:
    transfer = ReadTransfer(b"x" * 3000, {"tsize": "0", "windowsize": "3"})
    transfer.start(0.0)
    for index, (opcode, number) in enumerate(events):
        transfer.on_datagram(bytes((0, opcode, 0, number)), float(index))
        transfer.on_timer(float(index))


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=5))
def test_any_options_never_raise(options: dict[str, str]) -> None:
    ReadTransfer(b"x", {**options, "blksize": next(iter(options.values()), "")}).start(0.0)
