"""The IPMI core: addresses, what answers mean, what to send; garbage is only garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto import ipmi as core
from drivers.proto.quirks import IPMI_PLAIN, IPMI_TABLE, IpmiQuirks

SIMULATOR = IPMI_TABLE[0x1291, 0x0F02]


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("ipmi://10.0.0.9", "10.0.0.9", 623),
        ("ipmi://10.0.0.9/", "10.0.0.9", 623),
        ("ipmi://bmc-7.oob.example:6230", "bmc-7.oob.example", 6230),
        ("ipmi://[2001:db8::7]:623", "2001:db8::7", 623),
    ],
)
def test_an_address_is_a_host_and_a_port(url: str, host: str, port: int) -> None:
    address = core.parse_address(url)
    assert (address.host, address.port) == (host, port)
    assert core.parse_address(address.url) == address


@pytest.mark.parametrize(
    "url",
    ["", "ipmi://", "ipmi:h", "https://h", "ipmi://h:0", "ipmi://h:99999", "ipmi://h/x",
     "ipmi://h?a=1", "ipmi://h#a", "ipmi://u:p@h", "ipmi://h\n", "ipmi://" + "h" * 300,
     "ipmi://[::1"],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence_about_the_address(url: str) -> None:
    with pytest.raises(ValueError, match="BMC address") as caught:
        core.parse_address(url)
    assert "u:p" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_makes_an_address_raise_anything_else(text: str) -> None:
    for url in (text, f"ipmi://{text}"):
        try:
            core.parse_address(url)
        except ValueError:
            continue


@given(st.binary(max_size=20), st.booleans())
def test_garbage_never_raises(data: bytes, reports_flags: bool) -> None:
    quirks = IpmiQuirks(reports_flags=reports_flags)
    for parse in (core.parse_power, core.parse_device_id, lambda d: core.parse_boot(d, quirks)):
        try:
            parse(data)
        except core.NotIpmi:
            continue
    for code in data:
        assert core.refusal(code)


def test_the_maker_is_named_by_20_bits_and_the_product_by_16() -> None:
    made = bytes(6) + bytes.fromhex("91120f020f") + bytes(4)
    assert core.parse_device_id(made) == (0xF1291, 0x0F02)
    assert core.parse_device_id(bytes.fromhex("000000000000 9112f0 020f")) == (0x1291, 0x0F02)


def test_power_is_the_lowest_bit_whatever_else_is_said() -> None:
    assert core.parse_power(bytes.fromhex("210040")) == "on"
    assert core.parse_power(bytes.fromhex("600000")) == "off"


@pytest.mark.parametrize(
    ("data", "boot"),
    [
        ("0105 e004000000", core.Boot("network", persistent=True, efi=True)),
        ("0105 c008000000", core.Boot("disk", persistent=True, efi=False)),
        ("0105 8004000000", core.Boot("network", persistent=False, efi=False)),
        ("0105 8014000000", core.Boot("cd", persistent=False, efi=False)),
        ("0105 8018000000", core.Boot("other", persistent=False, efi=False)),
        ("0105 0004000000", core.Boot("other", persistent=False, efi=False)),  # not valid
        ("0185 e004000000", core.Boot("other", persistent=False, efi=False)),  # locked
    ],
)
def test_boot_flags_count_only_while_valid(data: str, boot: core.Boot) -> None:
    assert core.parse_boot(bytes.fromhex(data), IPMI_PLAIN) == boot


def test_a_bmc_that_reports_the_device_alone_is_believed() -> None:
    seen = bytes.fromhex("01050004000000")  # captured from ipmi_sim with a chassis program
    assert core.parse_boot(seen, SIMULATOR).device == "network"
    assert core.parse_boot(bytes.fromhex("01050000000000"), SIMULATOR).device == "other"


@pytest.mark.parametrize("data", ["0106 c004000000", "0205 c004000000", "0105c0", ""])
def test_other_boot_options_are_no_answer(data: str) -> None:
    with pytest.raises(core.NotIpmi):
        core.parse_boot(bytes.fromhex(data), IPMI_PLAIN)


NOTHING = core.Boot("other", persistent=False, efi=False)


def test_boot_is_ordered_for_good_first_and_for_once_where_that_is_refused() -> None:
    found = [c.data.hex() for c in core.boot_commands("network", True, NOTHING)]
    assert found == ["05e004000000", "05a004000000"]
    found = [c.data.hex() for c in core.boot_commands("disk", False, NOTHING)]
    assert found == ["05c008000000", "058008000000"]


@pytest.mark.parametrize("efi", [False, True])
def test_the_efi_bit_stays_when_nobody_has_seen_the_firmware(efi: bool) -> None:
    now = core.Boot("disk", persistent=True, efi=efi)
    for command in core.boot_commands("network", None, now):
        assert bool(command.data[1] & 0x20) == efi


def test_nothing_is_sent_only_when_the_order_stands_for_good() -> None:
    now = core.Boot("disk", persistent=True, efi=True)
    assert core.stands(now, "disk", None)
    assert core.stands(now, "disk", True)
    assert not core.stands(now, "disk", False)
    assert not core.stands(now, "network", True)
    assert not core.stands(core.Boot("disk", persistent=False, efi=True), "disk", True)


def test_what_does_not_fit_into_a_login_is_said_before_it_is_sent() -> None:
    assert core.why_no_login("ADMIN", "twenty-bytes-exactly") is None
    assert core.why_no_login("ADMIN", "one-more-than-twenty-") == (
        "the password has 21 bytes, but IPMI 2.0 takes at most 20"
    )
    assert "user name has 18 bytes" in str(core.why_no_login("ä" * 9, "x"))
    assert "zero byte" in str(core.why_no_login("a\0", "x"))
