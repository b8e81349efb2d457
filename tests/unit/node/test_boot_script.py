"""iPXE scripts: what they start, whom they ask next, what never gets into them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.boot_script import (
    ask_script,
    local_disk_script,
    ramdisk_script,
    redacted,
    refusal_script,
)

URLS = ["http://10.77.0.1:8470", "http://10.77.0.2:8470"]
MAC = "52:54:00:77:00:01"


def test_the_ramdisk_is_fetched_from_any_node_and_told_who_it_is() -> None:
    lines = ramdisk_script(URLS, MAC, capability="cap_1-x").splitlines()
    assert lines[0] == "#!ipxe"
    kernel = next(line for line in lines if line.startswith("kernel "))
    for url in URLS:
        assert f"kernel {url}/boot/v1/file/vmlinuz initrd=initrd console=ttyS0" in kernel
    assert f"rackmesh.url={','.join(URLS)}" in kernel
    assert f"rackmesh.mac={MAC}" in kernel
    assert "rackmesh.cap=cap_1-x" in kernel
    assert f"initrd {URLS[0]}/boot/v1/file/initrd || initrd {URLS[1]}" in "\n".join(lines)
    assert lines[-1].endswith("|| exit 1")
    assert "rackmesh.cap" not in ramdisk_script(URLS, MAC)


def test_the_local_disk_is_started_on_bios_and_by_a_loader_of_any_node_on_uefi() -> None:
    lines = local_disk_script(URLS).splitlines()
    assert lines[1:4] == [
        "iseq ${platform} pcbios || goto efi",
        "sanboot --no-describe --drive 0x80 || exit 1",
        ":efi",
    ]
    assert lines[4].startswith(f"chain {URLS[0]}/boot/v1/file/localboot.efi || chain {URLS[1]}")
    assert lines[5] == "exit 1", "a loader that came back must not end in the firmware's menu"


def test_a_machine_that_did_not_say_its_mac_asks_again_at_any_node() -> None:
    script = ask_script(URLS)
    assert script.count("chain http://") == 2
    assert "mac=${net0/mac}" in script
    assert script.endswith("|| exit 1\n")


def test_a_refusal_is_shown_and_cannot_break_out_of_its_line() -> None:
    script = refusal_script("held by ops; see #7\nshell || ${net0/mac}")
    assert script.splitlines()[1] == "echo held by ops see 7shell  net0/mac"
    assert script.splitlines()[-1] == "exit 1"


@pytest.mark.parametrize(
    "bad", ["x y", "http://a\nshell", "ftp://a", "http://a/b", "http://${evil}"]
)
def test_a_url_that_is_not_a_boot_listener_is_our_own_mistake(bad: str) -> None:
    with pytest.raises(AssertionError):
        ramdisk_script([bad], MAC)
    with pytest.raises(AssertionError):
        ramdisk_script(URLS, MAC, capability="a b")


def test_capabilities_are_redacted() -> None:
    assert redacted("quiet rackmesh.cap=SECRET x") == "quiet rackmesh.cap=*** x"


@given(st.text(max_size=300))
def test_no_sentence_makes_a_second_command(sentence: str) -> None:
    lines = refusal_script(sentence).splitlines()
    assert len(lines) == 4
    assert not set(lines[1]) & set("$|&;#\n\r{}`\"'\\")
