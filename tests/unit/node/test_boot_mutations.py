"""100,000 inputs of each boot service that were once good: none raises or makes us do much.

DHCP by ``answer`` at a real snapshot, TFTP requests and acknowledgements, and what the
simulated rack hears; HTTP is in tests/io/test_boot_http_mutations.py. What is done for a packet
is bounded by what came in. RACKMESH_MUTATIONS takes more of them.
"""

import os
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from node.boot.http import QUERY_FIELDS_MAX, split_target
from node.proto import dhcp, tftp
from node.proto import dhcp_options as opt
from node.proto.dhcp import MESSAGE_BYTES_MAX, Packet, decode, encode
from node.proto.dhcp_answer import EVERYONE, Answer
from node.proto.dhcp_limits import DhcpLimits
from node.proto.http_range import requested_bytes, select, unchanged
from node.proto.lease import answer, answer_4011
from node.proto.port_lock import Quarantine
from node.proto.rack_tftp import TftpRead
from node.proto.tftp import Blocks, ReadRequest, ReadTransfer, Refusal, Send, parse_request
from tests.support.boot_corpus import (
    AREA,
    OPTIONS_AT,
    RELAY,
    TFTP_ANSWERS,
    TFTP_REQUESTS,
    bare,
    dhcp_requests,
    full_site,
    rrq,
)
from tests.support.boot_site import packet
from tests.support.mutations import check
from tests.unit.node.test_rack_dhcp import NODE, client
from tests.unit.node.test_rack_dhcp import snapshot as rack_site

MORE = os.environ.get("RACKMESH_MUTATIONS")
"""Of each target, in place of its share of a protocol's 100,000."""
DHCP = int(MORE or 34_000)
TFTP = int(MORE or 50_000)
HTTP = int(MORE or 50_000)
RACK = int(MORE or 12_500)
GAIN_BYTES_MAX = 128 + 64 + 128
"""A DHCP reply is at most so much longer than its packet: 128 for what we say, and what the
packet had in ``sname`` and ``file`` (option 52), which a short reply echoes in its options."""
SITE = full_site()
REQUESTS = dhcp_requests()
HEAD = encode(packet(giaddr=RELAY))[:OPTIONS_AT]


def bounded(data: bytes, result: Answer, client: Packet) -> None:
    """Look at what an answer says, shows to people, and sends."""
    assert sum(map(len, client.options.values())) <= len(data)
    assert len(client.relay_options) <= len(data)
    assert client.relay_port.isascii()
    assert client.relay_port.isprintable()
    assert len(client.relay_port) <= 4 * dhcp.RELAY_ID_BYTES_MAX + 1
    if result.seen is not None:
        assert len(result.seen.arch) <= 32
    if result.reply is None:
        return
    reply = result.reply
    assert len(reply.data) <= max(len(data), dhcp.MESSAGE_BYTES_MIN) + GAIN_BYTES_MAX
    ours = reply.address is EVERYONE or SITE.subnet_of(reply.address) is not None
    assert ours or (client.relayed and reply.address == client.giaddr)
    message = decode(reply.data)
    assert message is not None
    assert (message.xid, message.chaddr) == (client.xid, client.chaddr)
    if client.options.get(opt.RELAY_AGENT) is not None:
        assert message.options[opt.RELAY_AGENT] == client.options[opt.RELAY_AGENT]
    else:
        assert len(reply.data) <= MESSAGE_BYTES_MAX


def dhcp_feed() -> Callable[[bytes], None]:
    """Return what every message goes through, with the tables that it may fill."""
    limits, quarantine, now = DhcpLimits(), Quarantine(), 0.0

    def feed(data: bytes) -> None:
        nonlocal now
        now += 0.01
        client = decode(data)
        if client is None:
            return
        for result in (answer(SITE, client), answer_4011(SITE, client)):
            bounded(data, result, client)
        limits.refuses(client.giaddr.packed, client, now)
        limits.refuses_stranger(client.giaddr.packed, client, now)
        wrong = answer(SITE, client).trespass
        if wrong is not None:
            quarantine.note(SITE, wrong, now)
            said = quarantine.problem(now)
            assert said is not None
            assert said.isprintable()
            assert len(said) < 2000

    return feed


def test_changed_dhcp_messages_are_answered_within_bounds():
    check(REQUESTS, 11, DHCP, dhcp_feed())


def test_changed_options_of_dhcp_messages_are_answered_within_bounds():
    feed = dhcp_feed()
    tails = [data[OPTIONS_AT:] for data in REQUESTS]
    check(tails, 12, DHCP, lambda tail: feed(HEAD + tail))


def test_changed_words_of_relays_are_answered_within_bounds():
    feed = dhcp_feed()
    words = [AREA, AREA * 3, b"\x01\0\x02\0", b"\x13\x00", b"\x05\x04\x0a\x58\0\0\x01\xffx"]

    def relayed(area: bytes) -> None:
        feed(encode(packet(giaddr=RELAY, options={opt.RELAY_AGENT: area})))

    check(words, 13, DHCP, relayed)


fields = st.binary(max_size=40)
codes = st.sampled_from([0, 50, 52, 53, 54, 55, 57, 60, 61, 77, 82, 93, 97, 175, 255])
lengths = st.sampled_from([None, 0, 1, 254, 255])


def written(code: int, value: bytes, length: int | None) -> bytes:
    """Return an option whose length byte may lie."""
    return bytes((code, len(value) if length is None else length)) + value


options = st.lists(st.builds(written, codes, fields, lengths), max_size=12).map(b"".join)


@settings(max_examples=2000, deadline=None)
@given(options, options, options, st.sampled_from([b"", b"\x34\x01\x03", b"\x34\x01\x01"]))
def test_any_options_anywhere_are_answered_within_bounds(area, sname, file, overload):
    dhcp_feed()(bare(b"\x35\x01\x01" + overload + area, sname[:64], file[:128]))


def request_feed(data: bytes) -> None:
    """Read a request, and start what it asks for."""
    request = parse_request(data)
    if isinstance(request, Refusal):
        assert len(request.datagram()) < 64
    if not isinstance(request, ReadRequest):
        return
    assert len(request.options) <= tftp.OPTIONS_MAX
    transfer = ReadTransfer(3000, request.options)
    (first,) = transfer.start(0.0)
    if isinstance(first, Send):  # an OACK has what was asked for, cut to our bounds
        assert len(first.data) <= len(data) + 16
    else:
        assert first == Blocks(1, 1)
    assert tftp.BLOCK_BYTES_LEAST <= transfer.block_bytes <= tftp.BLOCK_BYTES_MOST


def test_changed_tftp_requests_are_read_or_refused():
    check(TFTP_REQUESTS, 14, TFTP, request_feed)


words = st.lists(
    st.sampled_from(["octet", "blksize", "TSIZE", "timeout", "windowsize", "-1", "0", "9" * 40])
    | st.text(st.characters(codec="ascii"), max_size=8),
    max_size=40,
)


@settings(max_examples=2000, deadline=None)
@given(words, st.binary(max_size=20))
def test_any_words_of_a_tftp_request_are_read_or_refused(said, more):
    request_feed(rrq("undionly.kpxe", "octet", *said))
    request_feed(rrq(*said))
    request_feed(rrq(*said) + more)


def test_changed_acknowledgements_make_a_transfer_send_little():
    """A datagram brings one window at most, and no client keeps its place without progress."""
    window, blocks, now = 8, 200, 0.0

    def begun() -> ReadTransfer:
        options = {"windowsize": str(window), "tsize": "0"}
        transfer = ReadTransfer(tftp.BLOCK_BYTES * blocks, options)
        transfer.start(now)
        return transfer

    transfer, heard = begun(), 0

    def feed(data: bytes) -> None:
        nonlocal transfer, heard, now
        now, heard = now + 0.05, heard + 1
        effects = [*transfer.on_datagram(data, now), *transfer.on_timer(now)]
        assert len(effects) <= 2
        for effect in effects:
            if isinstance(effect, Blocks):
                assert 1 <= effect.first <= effect.first + effect.count - 1 <= blocks + 1
                assert effect.count <= window
        if transfer.deadline is None:
            transfer, heard = begun(), 0
        assert heard * 0.05 <= tftp.SILENCE_S_MAX * (blocks / window + 2)

    check(TFTP_ANSWERS, 15, TFTP, feed)


@settings(max_examples=2000, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=8), st.floats(0, 30)), max_size=12))
def test_any_datagrams_of_a_client_never_raise(events):
    transfer, now = ReadTransfer(9000, {"windowsize": "4"}), 0.0
    transfer.start(now)
    for data, after in events:
        now += after
        transfer.on_datagram(b"\0\4" + data, now)
        transfer.on_datagram(data, now)
        transfer.on_timer(now)


def test_changed_answers_to_the_simulated_rack_end_in_a_lease_or_none():
    asked = client("rom")
    (effect,) = asked.start(0.0)
    packet = decode(effect.datagram)
    assert packet is not None
    reply = answer(rack_site(), packet).reply
    assert reply is not None

    def feed(data: bytes) -> None:
        rom = client("rom")
        rom.start(0.0)
        for _ in range(2):
            rom.on_datagram(data, NODE, 0.1)

    check([reply.data.rstrip(b"\0") + b"\0"], 16, RACK, feed)


def test_changed_files_for_the_simulated_rack_are_taken_or_refused():
    server = ("127.77.0.1", 69)
    good = [
        *TFTP_ANSWERS,
        b"\0\6blksize\x001432\0tsize\x003000\0",
        b"\0\6blksize\x00000512" + b"0" * 5000 + b"\0",
    ]

    def feed(data: bytes) -> None:
        read = TftpRead(server, "undionly.kpxe")
        read.start(0.0)
        for _ in range(2):
            assert len(read.on_datagram(data, server, 0.1)) <= 2

    check(good, 17, RACK, feed)


RANGES = [b"bytes=0-1023", b"bytes=-500", b"bytes=2048-", b"bytes=0-1, 5-6", b'W/"v1", *']


def test_changed_ranges_name_bytes_of_the_file_or_none():
    def feed(data: bytes) -> None:
        text = data.decode("latin-1")
        span = select(3000, '"v1"', text, None)
        assert span is None or 0 <= span.offset <= span.offset + span.length <= 3000
        assert requested_bytes(text) >= 0
        unchanged('"v1"', text)

    check(RANGES, 20, HTTP, feed)


TARGETS = [
    b"/boot/v1/script?mac=52%3A54%3A00&x=1",
    b"http://n:8470/boot/v1/file/initrd",
    b"/media/v1/0?cap=AAAA&&=;",
]


def test_changed_targets_are_a_path_or_none():
    def feed(data: bytes) -> None:
        path, query = split_target(data.decode("latin-1"))
        assert path is None or path.startswith("/")
        assert len(query) <= QUERY_FIELDS_MAX

    check(TARGETS, 21, HTTP, feed)
