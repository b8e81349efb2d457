"""The DHCP codec: captured firmware, the RFCs' cases, round trips and garbage."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto import dhcp, dhcp_boot
from node.proto import dhcp_options as opt
from node.proto.dhcp import Packet, decode, encode
from tests.support.pcap import datagrams


def from_clients(name: str) -> list[Packet]:
    found = [decode(d.data) for d in datagrams(name) if d.target_port == 67]
    assert all(found)
    return [packet for packet in found if packet is not None]


def test_every_captured_message_decodes() -> None:
    count = 0
    for name in (
        "bios-rom-virtio-net-pci.pcap",
        "uefi-norom-virtio-net-pci.pcap",
        "uefi-http-dhcp.pcap",
    ):
        for datagram in datagrams(name):
            if datagram.target_port in {67, 68}:
                message = decode(datagram.data)
                assert message is not None
                assert message.message_type in {1, 2, 3, 5}
                count += 1
    assert count == 42


def test_the_ipxe_rom_of_a_bios_machine_is_read_as_it_was_captured() -> None:
    rom = from_clients("bios-rom-virtio-net-pci.pcap")[0]
    assert rom.message_type == dhcp.DISCOVER
    assert rom.is_ipxe
    assert rom.architectures == (0,)
    assert rom.vendor_class == b"PXEClient:Arch:00000:UNDI:002001"
    assert rom.options[opt.NETWORK_INTERFACE].hex() == "010201"
    assert rom.options[opt.CLIENT_ID] == b"\x01" + rom.chaddr
    assert rom.bytes_max == 1472 - 28
    assert rom.flags == 0
    assert rom.machine_uuid is not None
    assert rom.wants(opt.BOOT_FILE)


def test_ovmf_pxe_is_read_as_it_was_captured() -> None:
    discover, request = from_clients("uefi-norom-virtio-net-pci.pcap")[:2]
    assert not discover.is_ipxe
    assert discover.architectures == (7,)
    assert discover.flags == dhcp.BROADCAST_FLAG
    assert opt.CLIENT_ID not in discover.options
    assert request.message_type == dhcp.REQUEST
    assert request.server_id == IPv4Address("10.77.0.1")
    assert request.requested_address == IPv4Address("10.77.0.130")
    assert request.bytes_max == dhcp.MESSAGE_BYTES_MAX  # it says 65,280
    assert dhcp_boot.architecture(request) == "uefi-x64"


def test_ovmf_http_boot_and_the_ipxe_after_it_are_read_as_they_were_captured() -> None:
    found = from_clients("uefi-http-dhcp.pcap")
    assert found[0].vendor_class.startswith(b"HTTPClient")
    assert dhcp_boot.architecture(found[0]) == "uefi-x64-http"
    ipxe = [packet for packet in found if packet.is_ipxe]
    assert {dhcp_boot.architecture(packet) for packet in ipxe} == {"uefi-x64"}
    ramdisk = found[-1]
    assert not dhcp_boot.is_firmware(ramdisk)
    assert dhcp_boot.architecture(ramdisk) == ""


def test_the_uuid_is_shown_as_linux_shows_it() -> None:
    raw = bytes.fromhex("00" + "33221100554477668899aabbccddeeff")
    packet = Packet(options={opt.MACHINE_UUID: raw})
    assert packet.machine_uuid == "00112233-4455-6677-8899-aabbccddeeff"
    assert Packet(options={opt.MACHINE_UUID: raw[:16]}).machine_uuid is None


def test_an_option_in_parts_and_in_overloaded_fields_is_one_value() -> None:
    data = bytearray(encode(Packet()))[:236] + dhcp.COOKIE
    data += bytes((opt.OVERLOAD, 1, 3, 77, 2)) + b"iP" + bytes((opt.END,))
    data[108:111] = bytes((77, 1)) + b"X"
    data[111] = opt.END
    data[44:47] = bytes((77, 1)) + b"E"
    data[47] = opt.END
    packet = decode(bytes(data))
    assert packet is not None
    assert packet.options == {77: b"iPXE"}
    assert packet.is_ipxe
    assert packet.file == packet.sname == b""


def test_options_that_do_not_fit_go_to_file_and_sname_and_the_rest_is_left_out() -> None:
    options = {53: b"\5", 43: bytes(200), 60: b"x" * 100, 61: b"y" * 60, 12: b"z" * 60}
    data = encode(Packet(options=options), 548)
    assert len(data) <= 548
    packet = decode(data)
    assert packet is not None
    assert packet.options == options
    small = encode(Packet(options={**options, 66: b"q" * 200}), 548)
    fewer = decode(small)
    assert fewer is not None
    assert fewer.options == options


def test_a_long_option_is_split_and_joined_again() -> None:
    packet = Packet(options={53: b"\1", 43: bytes(range(256)) * 3})
    assert decode(encode(packet)) == packet


def test_option_82_comes_last_even_where_room_is_short() -> None:
    relay = bytes((1, 4)) + b"ge-1"
    data = encode(
        Packet(options={53: b"\5", opt.RELAY_AGENT: relay, 43: bytes(255), 60: b"v" * 200}), 548
    )
    assert data.rstrip(b"\0").endswith(bytes((82, 6)) + relay + b"\xff")


def test_relay_sub_options_that_do_not_parse_are_none() -> None:
    assert Packet(options={82: b"\x01\x02ab\x13\x00"}).relay_options == {1: b"ab", 19: b""}
    assert Packet(options={82: b"\x01\x05ab"}).relay_options == {}
    assert Packet(options={82: b"\x01\x02ab\x13"}).relay_options == {}


@pytest.mark.parametrize(
    ("area", "port"),
    [
        (b"\x01\x06Gi0/17\x02\x03sw1", "sw1 Gi0/17"),
        (b"\x01\x04\x00\x01\x00\x07\x02\x06\x52\x54\x00\x12\x34\x56", "525400123456 00010007"),
        (b"\x01\xc8" + b"x" * 200, "x" * 64),
        (b"\x13\x00", ""),
    ],
)
def test_a_relay_says_where_a_machine_is_plugged_in(area: bytes, port: str) -> None:
    assert Packet(options={82: area}).relay_port == port


@pytest.mark.parametrize(
    ("vendor", "option_93", "expected"),
    [
        (b"PXEClient:Arch:00007:UNDI:003000", b"", (7,)),
        (b"PXEClient:Arch:00007:UNDI:003000", b"\0\x09\0\x07", (9, 7)),
        (b"PXEClient", b"", ()),
        (b"PXEClient:Arch:zzz:UNDI", b"\0", ()),
    ],
)
def test_the_architecture_comes_from_option_93_or_the_vendor_class(
    vendor: bytes, option_93: bytes, expected: tuple[int, ...]
) -> None:
    packet = Packet(options={opt.VENDOR_CLASS: vendor, opt.ARCHITECTURE: option_93})
    assert packet.architectures == expected


def test_user_class_is_known_with_and_without_its_length_byte() -> None:
    assert Packet(options={opt.USER_CLASS: b"\x04iPXE"}).is_ipxe
    assert Packet(options={opt.USER_CLASS: b"iPXE"}).is_ipxe
    assert not Packet(options={opt.USER_CLASS: b"iPXE2"}).is_ipxe


def test_what_is_not_a_whole_message_of_an_ethernet_client_is_nothing() -> None:
    good = encode(Packet(options={53: b"\1", 12: b"name"}))
    assert decode(good) is not None
    assert decode(good[:239]) is None
    assert decode(b"\3" + good[1:]) is None
    assert decode(good[:1] + b"\6" + good[2:]) is None  # token ring
    assert decode(good[:2] + b"\x10" + good[3:]) is None  # 16 bytes of address
    assert decode(good[:236] + b"\0\0\0\0" + good[240:]) is None
    assert decode(good[:240] + bytes((53, 9, 1))) is None
    assert decode(good[:240] + bytes((53,))) is None
    assert decode(good[:240] + bytes((53, 1, 1))) is not None  # no end mark
    assert decode(good[:240] + bytes((52, 1, 9, 255))) is None
    assert decode(good[:240] + bytes((1, 0)) * 300) is None


option_maps = st.dictionaries(
    st.integers(1, 254).filter(lambda code: code != opt.OVERLOAD),
    st.binary(max_size=300),
    max_size=5,
)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)


@given(
    packet=st.builds(
        Packet,
        op=st.sampled_from([1, 2]),
        hops=st.integers(0, 255),
        xid=st.integers(0, 2**32 - 1),
        secs=st.integers(0, 65535),
        flags=st.integers(0, 65535),
        ciaddr=addresses,
        yiaddr=addresses,
        siaddr=addresses,
        giaddr=addresses,
        chaddr=st.binary(min_size=6, max_size=6),
        file=st.sampled_from([b"", b"undionly.kpxe"]),
        sname=st.sampled_from([b"", b"host"]),
        options=option_maps,
    )
)
def test_what_is_encoded_decodes_to_itself_or_fewer_options(packet: Packet) -> None:
    data = encode(packet)
    again = decode(data)
    assert again is not None
    for code, value in again.options.items():
        assert packet.options[code] == value
    if sum(len(value) + 2 for value in packet.options.values()) < 1200:
        assert again == packet


@given(st.binary(max_size=1500))
def test_garbage_never_raises(data: bytes) -> None:
    decode(data)


@given(st.binary(max_size=400), st.binary(min_size=64, max_size=64), st.sampled_from([1, 2, 3]))
def test_garbage_in_options_never_raises(area: bytes, sname: bytes, overload: int) -> None:
    head = bytearray(encode(Packet())[:240])
    head[44:108] = sname
    packet = decode(bytes(head) + bytes((52, 1, overload)) + area)
    if packet is not None:
        dhcp_boot.architecture(packet)
        _ = (packet.relay_options, packet.machine_uuid, packet.bytes_max, packet.server_id)
