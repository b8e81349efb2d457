"""What has broken other boot servers, tried on ours: the table is in node/DESIGN.md.

Only what no other test of the room shows already.
"""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from node.boot.dhcp_alarms import Heard
from node.boot.routes import form_fields, is_ours
from node.proto import dhcp, tftp
from node.proto import dhcp_options as opt
from node.proto.dhcp import AREA_BYTES_MAX, Packet, decode, encode
from node.proto.dhcp_answer import EVERYONE
from node.proto.lease import answer
from node.proto.rack_tftp import Failed, TftpRead
from node.proto.tftp import Aborted, Blocks, ReadTransfer
from tests.support.boot_corpus import AREA, RELAY, bare, full_site
from tests.support.boot_site import BIOS_ROM, MAC, packet, snapshot

KIND, END = b"\x35\x01\x01", b"\xff"
SITE = full_site()


def test_an_overloaded_field_does_not_overload_again() -> None:
    again = b"\x34\x01\x03" + END
    packet = decode(bare(KIND + b"\x34\x01\x01" + END, b"\x0c\x01x" + END, again))
    assert packet is not None
    assert packet.options == {opt.MESSAGE_TYPE: b"\x01"}, "sname holds a name, no options"
    assert packet.sname == b"\x0c\x01x\xff"


@pytest.mark.parametrize(
    "area",
    [
        KIND + b"\x34\x01\x01\x34\x01\x01" + END,  # said twice it is one value of two bytes
        KIND + b"\x34\0" + END,
        KIND + b"\x34\x01\x04" + END,
        KIND + b"\x34\x01\x03" + END + b"\x34",
    ],
)
def test_an_overload_that_is_no_overload_is_no_message_or_none_of_its_own(area: bytes) -> None:
    message = decode(bare(area, b"\x0c\xff", b"\x0c\xff"))
    assert message is None, "a field that is said to hold options and does not is malformed"


def test_an_option_given_twice_is_one_value_that_does_not_fit() -> None:
    """RFC 3396: two message types or addresses are one of twice the length, so none."""
    client = decode(bare(KIND + b"\x35\x01\x03" + END))
    assert client is not None
    assert client.message_type is None
    assert answer(SITE, client).kind == "not a request"
    twice = bytes((50, 4, 10, 77, 0, 20)) * 2
    client = decode(bare(b"\x35\x01\x03" + twice + END))
    assert client is not None
    assert client.requested_address is None
    assert answer(SITE, client).kind == "malformed"


@pytest.mark.parametrize("code", [*range(1, 52), *range(54, 82), *range(83, 255)])
def test_an_option_of_no_length_says_nothing(code: int) -> None:
    plain, empty = packet(options={}), packet(options={code: b""})
    result, without = answer(SITE, empty), answer(SITE, plain)
    if code == opt.IPXE:  # its presence alone says who asks
        assert empty.is_ipxe
        return
    assert result.kind == without.kind == "offer"
    assert result.reply is not None
    assert decode(result.reply.data) is not None


@pytest.mark.parametrize(
    "area",
    [b"", b"\x01", b"\x05\x04\x0a", b"\x05\x05\x0a\x4d\0\0", AREA + b"\x0b\xff", b"\0" * 9],
)
def test_a_relays_word_that_overruns_or_is_short_chooses_nothing(area: bytes) -> None:
    """The subnet is then that of the relay, and the word still goes back as it came."""
    result = answer(SITE, packet(giaddr=RELAY, options={opt.RELAY_AGENT: area}))
    assert result.kind == "offer"
    assert result.reply is not None
    message = decode(result.reply.data)
    assert message is not None
    assert message.options[opt.RELAY_AGENT] == area


def test_a_relays_word_is_read_alike_whether_it_is_remembered_or_not() -> None:
    long = AREA + b"\x97\xff" + bytes(255)
    assert len(long) > AREA_BYTES_MAX
    short, far = (Packet(options={opt.RELAY_AGENT: area}) for area in (AREA, long))
    assert far.relay_port == short.relay_port == "sw1 eth7"
    assert far.server_override == short.server_override
    dhcp._sub_options.cache_clear()
    for number in range(2 * dhcp.AREAS_REMEMBERED):
        area = number.to_bytes(2, "big") + bytes(200)
        _ = Packet(options={opt.RELAY_AGENT: area}).relay_options
        _ = Packet(options={opt.RELAY_AGENT: area * 9}).relay_options
    assert dhcp._sub_options.cache_info().currsize == dhcp.AREAS_REMEMBERED


@pytest.mark.parametrize("message_type", range(1, 9))
def test_a_unicast_of_no_subnet_is_dropped(message_type: int) -> None:
    """Kea CVE-2025-40779 ended the server."""
    foreign = packet(message_type, ciaddr="203.0.113.7")
    assert answer(snapshot(subnets=[]), foreign).kind == "no subnet"
    relayed = replace(foreign, giaddr=IPv4Address("203.0.113.1"))
    assert answer(SITE, relayed).kind == "no subnet"
    reply = answer(SITE, foreign).reply  # on our own wire a refusal may be told to everybody
    assert reply is None or reply.address is EVERYONE


def test_options_nested_as_deep_as_a_datagram_are_walked_once() -> None:
    """Kea CVE-2026-3608: a stack overflow. Nothing here calls itself."""
    area = b"\x52\xfe" * 1900
    assert decode(bare(KIND + area)) is None
    nested = b"\x01\xfe" * 127
    assert Packet(options={opt.RELAY_AGENT: nested}).relay_options == {}
    assert decode(bare(KIND + b"\x0c\0" * 255 + END)) is not None
    assert decode(bare(KIND + b"\x0c\0" * 256 + END)) is None, "one more option than we read"


def test_what_another_server_gave_to_invented_machines_fills_no_table() -> None:
    heard = Heard()
    for number in range(heard.MACHINES_MAX + 100):
        heard.note(f"mac-{number}", IPv4Address(number))
    assert len(heard._ips) == heard.MACHINES_MAX
    assert heard.is_at(f"mac-{heard.MACHINES_MAX}", str(IPv4Address(heard.MACHINES_MAX)))


def test_a_reply_is_hardly_longer_than_its_packet() -> None:
    """No amplification: the shortest packets that get the longest replies."""
    for rom in ({}, BIOS_ROM, {**BIOS_ROM, opt.IPXE: b"", opt.PARAMETERS: b"\x0c\x1c\x43"}):
        data = encode(packet(giaddr=RELAY, options=rom)).rstrip(b"\0")
        client = decode(data)
        assert client is not None
        reply = answer(SITE, client).reply
        assert reply is not None
        assert len(reply.data) <= 1.5 * len(data)


def test_a_client_that_tells_one_gap_for_ever_is_given_up() -> None:
    """It made the wait grow until it was no number any more, which ended the service."""
    transfer = ReadTransfer(1_000_000, {"windowsize": "64"})
    transfer.start(0.0)
    now, effects, sent = 0.0, [], 0
    while transfer.deadline is not None:
        now += 0.01
        effects = transfer.on_datagram(b"\0\4\0\0", now) + transfer.on_timer(now)
        sent += sum(isinstance(effect, Blocks) for effect in effects)
        assert now < tftp.SILENCE_S_MAX + 1
    assert effects[-1] == Aborted("the client went silent", failure=True)
    assert sent > 1100, "more often than a double of a double fits into a float"


def test_a_probe_after_silence_is_answered_however_soon() -> None:
    """What it shows was taken for an echo of the window before it: the transfer stood still."""
    transfer = ReadTransfer(512 * 50, {"windowsize": "4"})
    transfer.start(0.0)
    for now, block in ((0.3, 0), (0.6, 2), (0.9, 3)):
        transfer.on_datagram(bytes((0, 4, 0, block)), now)
    assert transfer.deadline is not None
    now = transfer.deadline
    assert transfer.on_timer(now) == [Blocks(7, 1)]
    assert transfer.on_datagram(b"\0\4\0\3", now + 0.01) == [Blocks(4, 4)]


def test_only_addresses_of_our_networks_are_ours() -> None:
    assert is_ours(SITE, "10.77.0.9")
    assert is_ours(SITE, "10.88.0.9")
    assert not is_ours(SITE, "192.0.2.7")
    assert is_ours(snapshot(subnets=[]), "192.0.2.7"), "nobody has said which are"


@pytest.mark.parametrize("size", [b"00000512" + b"0" * 5000, b"0000051465", b"1433", b"7", b""])
def test_a_block_size_that_was_not_asked_for_ends_the_racks_transfer(size: bytes) -> None:
    read = TftpRead(("10.77.0.1", 69), "f", 1432)
    read.start(0.0)
    found = read.on_datagram(b"\0\6blksize\0" + size + b"\0", ("10.77.0.1", 1069), 0.1)
    assert found == [Failed("the server changed the block size to one not asked for")]


def test_a_posted_object_too_deep_to_be_shown_is_no_form() -> None:
    for depth in (100, 900, 990, 5000):
        body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
        form_fields({"content-type": "application/json"}, body)


def test_a_mac_of_many_or_of_nobody_is_no_machine() -> None:
    for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        assert answer(SITE, packet(mac=mac)).kind == "no machine has this mac"
    assert answer(SITE, packet(mac=MAC)).kind == "offer"
