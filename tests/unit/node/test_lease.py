"""What DHCP answers: RFC 2131 cases, known and unknown machines, relays, reply identity."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.proto import dhcp
from node.proto import dhcp_options as opt
from node.proto.dhcp import Packet, decode, encode
from node.proto.dhcp_answer import Answer
from node.proto.lease import answer
from node.proto.lease_snapshot import Snapshot, candidate
from tests.support.boot_site import (
    BIOS_ROM,
    CIDR,
    HTTP_ROM,
    IPXE,
    MAC,
    SUBNET,
    UEFI_ROM,
    A,
    B,
    C,
    packet,
    request,
    snapshot,
)
from tests.support.pcap import datagrams

OTHER = "52:54:00:77:00:02"
SERVER = {"macs": [MAC, OTHER], "ip": "10.77.0.20", "name": "web-1", "accepted_ms": 5}


def sent(result: Answer) -> Packet:
    assert result.reply is not None, result.kind
    message = decode(result.reply.data)
    assert message is not None
    return message


def offered(site: Snapshot, mac: str = MAC) -> str:
    return str(sent(answer(site, packet(mac=mac))).yiaddr)


def owner_host(site: Snapshot, mac: str = MAC) -> str:
    owner = site.owner_of(mac, site.subnets[0])
    assert owner is not None
    return str(owner.host)


# -- addresses -----------------------------------------------------------------------------


def test_a_known_server_gets_its_fixed_address_on_any_of_its_macs_without_a_write() -> None:
    site = snapshot(servers={"s1": SERVER})
    for mac in (MAC, OTHER):
        result = answer(site, request("10.77.0.20", A, mac=mac))
        assert result.kind == "ack"
        assert result.claim is None
        assert sent(result).yiaddr == IPv4Address("10.77.0.20")


def test_a_known_server_without_an_address_keeps_the_candidate_of_its_mac() -> None:
    before = offered(snapshot())
    site = snapshot(servers={"s1": {"macs": [MAC]}})
    assert offered(site) == before
    result = answer(site, request(before, A))
    assert result.kind == "ack"
    assert result.claim is None


def test_an_unknown_machine_gets_its_first_free_candidate() -> None:
    subnet = snapshot().subnets[0]
    first, second = (str(candidate(subnet, MAC, index)) for index in (0, 1))
    assert offered(snapshot()) == first
    taken = {OTHER: {"ip": first, "claimed_ms": 1}}
    assert offered(snapshot(bindings=taken)) == second
    declined = {MAC: {"declined": [first]}}
    assert offered(snapshot(bindings=declined)) == second


def test_a_machine_with_every_candidate_taken_gets_no_answer() -> None:
    subnet = snapshot().subnets[0]
    taken = {
        f"02:00:00:00:00:{index:02x}": {"ip": str(candidate(subnet, MAC, index))}
        for index in range(8)
    }
    assert answer(snapshot(bindings=taken), packet()).kind == "no free candidate"


def test_an_address_of_an_accepted_server_is_never_offered_to_an_unknown_machine() -> None:
    subnet = snapshot().subnets[0]
    first = str(candidate(subnet, MAC, 0))
    fixed = snapshot(servers={"s1": {"macs": [OTHER], "ip": first}})
    assert offered(fixed) != first
    assert offered(fixed, OTHER) == first
    overridden = snapshot(
        servers={"s1": {"macs": [OTHER], "ip": first}}, bindings={MAC: {"ip": first}}
    )
    assert offered(overridden) != first


def test_two_machines_bound_apart_to_one_address_the_earlier_keeps_it() -> None:
    subnet = snapshot().subnets[0]
    shared = str(candidate(subnet, MAC, 0))
    site = snapshot(
        bindings={MAC: {"ip": shared, "claimed_ms": 2}, OTHER: {"ip": shared, "claimed_ms": 1}}
    )
    assert offered(site, OTHER) == shared
    assert offered(site, MAC) != shared


def test_two_nodes_that_have_not_talked_give_an_unknown_machine_the_same_address() -> None:
    one = snapshot(hosts=[A], bindings={OTHER: {"ip": "10.77.0.150"}})
    two = snapshot(hosts=[B])
    assert one.id != two.id
    assert offered(one) == offered(two)


def test_the_id_says_whether_two_snapshots_are_alike() -> None:
    assert snapshot(hosts=[A, B]).id == snapshot(hosts=[B, A]).id
    assert snapshot().id != snapshot(hosts=[A]).id
    assert snapshot().id != snapshot(absent=[A]).id
    assert snapshot().id != snapshot(servers={"s1": SERVER}).id
    assert snapshot().id != snapshot(bindings={MAC: {"ip": "10.77.0.101"}}).id
    assert (
        snapshot(servers={"s1": SERVER}).id
        == snapshot(servers={"s1": {**SERVER, "state": "active", "changed_ms": 9}}).id
    )


def test_rows_that_do_not_parse_are_left_out_and_counted() -> None:
    site = snapshot(
        subnets=[SUBNET, {"cidr": "x"}, {**SUBNET, "cidr": "10.9.0.0/24"}],
        servers={"s1": {"ip": "::1"}, "s2": {"macs": 3}},
        bindings={"zz": {}, MAC: {"ip": "1.2.3"}},
    )
    assert site.rejected == 6
    assert answer(site, packet()).kind == "offer"


# -- RFC 2131 ------------------------------------------------------------------------------


def test_discover_and_request_end_in_a_lease_that_must_be_durable() -> None:
    site = snapshot()
    offer = answer(site, packet())
    assert offer.kind == "offer"
    assert offer.claim is None
    message = sent(offer)
    assert str(message.server_id) == owner_host(site)
    assert message.siaddr == message.server_id
    assert message.options[opt.LEASE_TIME] == (600).to_bytes(4, "big")
    assert message.options[opt.RENEWAL_TIME] == (300).to_bytes(4, "big")
    assert message.options[opt.REBINDING_TIME] == (525).to_bytes(4, "big")
    assert message.options[opt.SUBNET_MASK] == bytes((255, 255, 255, 0))
    assert message.options[opt.ROUTER] == IPv4Address("10.77.0.254").packed
    assert message.options[opt.DNS] == IPv4Address("10.77.0.53").packed
    ack = answer(site, request(str(message.yiaddr), owner_host(site)))
    assert ack.kind == "ack"
    assert ack.claim is not None
    assert (ack.claim.mac, ack.claim.ip) == (MAC, message.yiaddr)
    assert sent(ack).message_type == dhcp.ACK
    bound = snapshot(bindings={MAC: {"ip": str(message.yiaddr)}})
    assert answer(bound, request(str(message.yiaddr), A)).claim is None


def test_a_request_that_names_any_member_is_acknowledged_in_that_members_name() -> None:
    site = snapshot(hosts=[A, B, C], absent=[C])
    address = offered(site)
    for host in (A, B, C):
        assert str(sent(answer(site, request(address, host))).server_id) == host


def test_a_request_that_names_a_stranger_gets_silence() -> None:
    site = snapshot()
    result = answer(site, request(offered(site), "10.77.0.66"))
    assert result == Answer(kind="other server")


def test_a_request_for_an_address_that_another_node_may_have_offered_gets_silence() -> None:
    assert answer(snapshot(), request("10.77.0.7", A)) == Answer(kind="other address")


def test_init_reboot_with_the_right_address_is_acknowledged_by_broadcast() -> None:
    site = snapshot(servers={"s1": SERVER})
    result = answer(site, request("10.77.0.20", None))
    assert result.kind == "renew"
    assert result.reply is not None
    assert str(result.reply.address) == "255.255.255.255"


@pytest.mark.parametrize(
    ("known", "asked", "kind"),
    [
        (True, "10.77.0.21", "nak"),
        (True, "192.168.1.5", "nak"),
        (False, "192.168.1.5", "nak"),  # wrong network: RFC 2131 section 4.3.2
        (False, "10.77.0.21", "no record"),
    ],
)
def test_init_reboot_with_a_wrong_address_follows_the_rfc(
    known: bool, asked: str, kind: str
) -> None:
    site = snapshot(servers={"s1": SERVER} if known else {})
    result = answer(site, request(asked, None))
    assert result.kind == kind
    if kind == "nak":
        message = sent(result)
        assert message.message_type == dhcp.NAK
        assert message.yiaddr == message.ciaddr == message.siaddr == dhcp.ZERO
        assert opt.LEASE_TIME not in message.options
        assert result.reply is not None
        assert str(result.reply.address) == "255.255.255.255"


@pytest.mark.parametrize("firmware", [BIOS_ROM, UEFI_ROM, IPXE, HTTP_ROM])
@pytest.mark.parametrize("asked", ["10.77.0.21", "192.168.1.5"])
def test_firmware_is_never_refused(firmware: dict[int, bytes], asked: str) -> None:
    site = snapshot(servers={"s1": SERVER})
    assert answer(site, request(asked, None, options=firmware)).reply is None


def test_renewing_is_answered_to_the_clients_own_address() -> None:
    site = snapshot(servers={"s1": SERVER})
    result = answer(site, packet(dhcp.REQUEST, ciaddr="10.77.0.20"))
    assert result.kind == "renew"
    assert result.reply is not None
    assert (str(result.reply.address), result.reply.port) == ("10.77.0.20", 68)
    message = sent(result)
    assert str(message.ciaddr) == str(message.yiaddr) == "10.77.0.20"
    moved = answer(site, packet(dhcp.REQUEST, ciaddr="10.77.0.99"))
    assert moved.kind == "nak"


def test_a_request_without_an_address_is_malformed() -> None:
    assert answer(snapshot(), packet(dhcp.REQUEST)).kind == "malformed"
    short = packet(dhcp.REQUEST, options={opt.SERVER_ID: b"\1"}, ciaddr="10.77.0.20")
    assert answer(snapshot(), short).kind == "malformed"


def test_inform_gets_configuration_but_no_lease() -> None:
    result = answer(snapshot(), packet(dhcp.INFORM, ciaddr="10.77.0.20"))
    message = sent(result)
    assert message.message_type == dhcp.ACK
    assert message.yiaddr == dhcp.ZERO
    assert opt.LEASE_TIME not in message.options
    assert opt.SUBNET_MASK in message.options
    assert result.claim is None


def test_release_frees_only_the_binding_that_the_client_has() -> None:
    site = snapshot(bindings={MAC: {"ip": "10.77.0.120"}})
    named = {opt.SERVER_ID: IPv4Address(A).packed}
    freed = answer(site, packet(dhcp.RELEASE, ciaddr="10.77.0.120", options=named))
    assert freed == Answer(kind="release", freed=IPv4Address("10.77.0.120"))
    other = answer(site, packet(dhcp.RELEASE, ciaddr="10.77.0.121", options=named))
    assert other.freed is None
    assert answer(site, packet(dhcp.RELEASE, ciaddr="10.77.0.120")).kind == "other server"


def test_decline_says_which_address_is_in_use() -> None:
    address = offered(snapshot())
    declines = replace(request(address, A), options={
        opt.MESSAGE_TYPE: bytes((dhcp.DECLINE,)),
        opt.SERVER_ID: IPv4Address(A).packed,
        opt.REQUESTED_ADDRESS: IPv4Address(address).packed,
    })  # fmt: skip
    bound = snapshot(bindings={MAC: {"ip": address}})
    assert answer(bound, declines) == Answer(kind="decline", in_use=IPv4Address(address))
    never_bound = answer(snapshot(), declines)
    assert never_bound == Answer(kind="decline"), "an invented machine makes no row"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"op": 2}, "not a request"),
        ({"options": {}}, "not a request"),
        ({"options": {53: b"\x0d"}}, "not a request"),
        ({"chaddr": bytes(6)}, "no machine has this mac"),
        ({"chaddr": b"\xff" * 6}, "no machine has this mac"),
        ({"giaddr": IPv4Address("10.99.0.1")}, "no subnet"),
    ],
)
def test_what_is_not_for_us_is_counted_and_not_answered(change: dict, kind: str) -> None:
    assert answer(snapshot(), replace(packet(), **change)) == Answer(kind=kind)


def test_a_site_without_subnet_or_members_does_not_answer() -> None:
    assert answer(snapshot(subnets=[]), packet()).kind == "no subnet"
    assert answer(snapshot(hosts=[]), packet()).kind == "no service set"


# -- the way back --------------------------------------------------------------------------


def test_a_client_without_an_address_gets_a_broadcast_whatever_its_flag_says() -> None:
    for flags in (0, 0x8000):
        result = answer(snapshot(), packet(flags=flags))
        assert result.reply is not None
        assert (str(result.reply.address), result.reply.port) == ("255.255.255.255", 68)
        assert sent(result).flags == flags


def test_link_selection_chooses_the_subnet() -> None:
    far = {**SUBNET, "cidr": "10.88.0.0/24", "first": "10.88.0.10", "last": "10.88.0.99"}
    site = snapshot(subnets=[SUBNET, far])
    chosen = answer(site, packet(giaddr="10.77.0.250", options={82: b"\x05\x04\x0a\x58\0\0"}))
    assert str(sent(chosen).yiaddr).startswith("10.88.0.")
    relayed = answer(site, packet(giaddr="10.88.0.1"))
    assert str(sent(relayed).yiaddr).startswith("10.88.0.")


def test_clients_on_our_own_wire_get_the_subnet_that_the_members_stand_in() -> None:
    first = {**SUBNET, "cidr": "10.1.0.0/24", "first": "10.1.0.10", "last": "10.1.0.99"}
    site = snapshot(subnets=[first, SUBNET])
    assert str(site.direct) == CIDR
    told = snapshot(subnets=[first, SUBNET], direct="10.1.0.0/24")
    assert offered(told).startswith("10.1.0.")


def test_an_acknowledgement_says_which_node_firmware_is_sent_to() -> None:
    site = snapshot()
    address = offered(site)
    wants = request(address, A, options=IPXE)
    assert str(answer(site, wants).boots_from) == owner_host(site)
    assert answer(site, packet(options=IPXE)).boots_from is None, "an offer binds nobody"
    assert answer(site, request(address, None, options=IPXE)).boots_from is None, "no offer"
    assert answer(site, request(address, A)).boots_from is None, "a system boots no more"


def test_an_absent_owner_is_named_no_more() -> None:
    site = snapshot(hosts=[A, B])
    gone = owner_host(site)
    left = snapshot(hosts=[A, B], absent=[gone])
    assert owner_host(left) != gone
    assert snapshot(hosts=[A], absent=[A]).owner_of(MAC, left.subnets[0]) is not None
    assert left.fallbacks(MAC)[-1] == f"http://{gone}:8470"


# -- booting -------------------------------------------------------------------------------


def test_a_bios_rom_gets_the_ipxe_loader_by_tftp() -> None:
    site = snapshot()
    message = sent(answer(site, packet(options=BIOS_ROM)))
    assert message.file == b"undionly.kpxe"
    assert str(message.siaddr) == owner_host(site)
    assert message.options[opt.VENDOR_CLASS] == b"PXEClient"
    assert message.options[opt.VENDOR] == b"\x06\x01\x08\xff"


@pytest.mark.parametrize("arch", [7, 9])
def test_uefi_gets_the_efi_loader(arch: int) -> None:
    rom = {**UEFI_ROM, opt.ARCHITECTURE: bytes((0, arch))}
    assert sent(answer(snapshot(), packet(options=rom))).file == b"snponly.efi"


def test_ipxe_gets_the_url_of_its_script_and_does_not_wait_for_others() -> None:
    site = snapshot()
    message = sent(answer(site, packet(options=IPXE)))
    url = f"http://{owner_host(site)}:8470/boot/v1/script?mac={MAC}"
    assert message.file == url.encode()
    assert message.options[opt.IPXE] == b"\xb0\x01\x01"
    assert opt.VENDOR not in message.options


def test_http_boot_gets_a_url_and_its_own_vendor_class_back() -> None:
    site = snapshot()
    message = sent(answer(site, packet(options=HTTP_ROM)))
    assert message.file == f"http://{owner_host(site)}:8470/boot/v1/file/snponly.efi".encode()
    assert message.options[opt.VENDOR_CLASS] == b"HTTPClient"


def test_an_unknown_architecture_gets_an_address_but_no_boot_file_and_is_seen() -> None:
    rom = {opt.VENDOR_CLASS: b"PXEClient:Arch:00027:UNDI:003000", opt.ARCHITECTURE: b"\0\x1b"}
    result = answer(snapshot(), packet(options=rom))
    message = sent(result)
    assert message.yiaddr != dhcp.ZERO
    assert message.file == b""
    assert opt.BOOT_FILE not in message.options
    assert opt.VENDOR_CLASS not in message.options
    assert result.unknown_arch
    assert result.seen is not None
    assert result.seen.arch == "unknown-27"


def test_an_operating_system_gets_no_boot_file() -> None:
    result = answer(snapshot(servers={"s1": SERVER}), packet(options={opt.PARAMETERS: b"\x0c"}))
    message = sent(result)
    assert message.file == b""
    assert message.options[opt.HOSTNAME] == b"web-1"
    assert not result.unknown_arch


def test_what_must_be_echoed_is_echoed() -> None:
    echoed = {opt.CLIENT_ID: b"\1abc", opt.MACHINE_UUID: bytes(17)}
    message = sent(answer(snapshot(), packet(options={**BIOS_ROM, **echoed})))
    for code, value in echoed.items():
        assert message.options[code] == value


def test_the_client_says_how_long_a_reply_may_be() -> None:
    options = {**IPXE, opt.CLIENT_ID: b"i" * 255, opt.PARAMETERS: bytes((67,))}
    result = answer(snapshot(), packet(options=options))
    assert result.reply is not None
    assert len(result.reply.data) <= 576 - 28


def test_every_captured_client_is_answered_as_its_firmware_expects() -> None:
    expected = {
        "bios-rom-virtio-net-pci.pcap": {b"http"},
        "uefi-norom-virtio-net-pci.pcap": {b"snpo", b"http"},
        "uefi-http-dhcp.pcap": {b"http"},
    }
    for name, files in expected.items():
        seen = set()
        for datagram in datagrams(name):
            client = decode(datagram.data) if datagram.target_port == 67 else None
            if client is not None and client.message_type == dhcp.DISCOVER:
                message = sent(answer(snapshot(), client))
                seen.add(message.file[:4])
                assert message.xid == client.xid
                assert len(encode(message)) <= client.bytes_max
        assert seen - {b""} == files


# -- identity ------------------------------------------------------------------------------

hosts = st.sampled_from([A, B, C, "10.77.0.66"])
any_address = st.integers(0, 255).map(lambda n: IPv4Address(f"10.77.0.{n}"))
any_packet = st.builds(
    Packet,
    op=st.sampled_from([1, 1, 1, 2]),
    xid=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([0, 0x8000]),
    ciaddr=st.sampled_from([dhcp.ZERO, IPv4Address("10.77.0.20"), IPv4Address("10.77.0.101")]),
    giaddr=st.sampled_from([dhcp.ZERO, IPv4Address("10.77.0.250"), IPv4Address("10.9.0.1")]),
    chaddr=st.sampled_from(["525400770001", "525400770002", "525400770003"]).map(bytes.fromhex),
    options=st.fixed_dictionaries(
        {53: st.integers(0, 9).map(lambda n: bytes((n,)))},
        optional={
            50: any_address.map(lambda a: a.packed),
            54: hosts.map(lambda h: IPv4Address(h).packed),
            55: st.binary(max_size=40),
            57: st.binary(min_size=2, max_size=2),
            60: st.sampled_from([b"PXEClient:Arch:00000", b"HTTPClient", b"udhcp"]),
            61: st.binary(max_size=300),
            77: st.just(b"iPXE"),
            82: st.binary(max_size=300),
            93: st.binary(max_size=4),
            97: st.binary(min_size=16, max_size=17),
        },
    ),
)  # fmt: skip
SERVERS = {"s1": SERVER}
BINDINGS = {"52:54:00:77:00:03": {"ip": "10.77.0.101", "claimed_ms": 4}}


@settings(max_examples=400)
@given(any_packet)
def test_two_nodes_with_the_same_rows_give_the_same_bytes(client: Packet) -> None:
    one = snapshot(hosts=[A, B, C], servers=SERVERS, bindings=BINDINGS)
    two = snapshot(hosts=[C, B, A], servers=SERVERS, bindings=BINDINGS)
    assert one.id == two.id
    assert answer(one, client) == answer(two, client)


@settings(max_examples=300)
@given(any_packet)
def test_a_reply_is_a_whole_message_for_its_client(client: Packet) -> None:
    result = answer(snapshot(servers=SERVERS, bindings=BINDINGS), client)
    if result.reply is not None:
        message = decode(result.reply.data)
        assert message is not None
        assert (message.xid, message.chaddr) == (client.xid, client.chaddr)
        assert (
            len(result.reply.data)
            <= (1472 if client.giaddr != dhcp.ZERO else client.bytes_max) + 320
        )
        if client.is_ipxe:
            assert message.message_type != dhcp.NAK


@given(st.binary(max_size=600))
def test_garbage_never_raises(data: bytes) -> None:
    head = encode(Packet(chaddr=b"\2abcde"))[:240]
    client = decode(head + b"\x35\x01\x01" + data)
    if client is not None:
        answer(snapshot(), client)
