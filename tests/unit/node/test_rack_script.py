"""The simulated servers' iPXE: the language that our nodes emit, and hostile scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.proto.rack_script import (
    FETCHES_MAX,
    STEPS_MAX,
    Answer,
    Ask,
    Boot,
    End,
    Exited,
    FetchImage,
    FetchScript,
    Restart,
    Say,
    ScriptRun,
    Sleep,
    SwitchOff,
    TryDisk,
)

FIRST = "http://a:1/boot/v1/script?mac=52:54:00:00:00:01"
SETTINGS = {"net0/mac": "52:54:00:00:00:01", "platform": "pcbios", "uuid": "u-1"}


def play(pages: dict[str, str | bytes], absent: tuple[str, ...] = ()) -> tuple[list[Ask], End]:
    """Run from FIRST; what is in neither ``pages`` nor ``absent`` is an image that is there."""
    run = ScriptRun(SETTINGS)
    asks: list[Ask] = []
    step = run.start(FIRST)
    while isinstance(step, Ask):
        asks.append(step)
        assert len(asks) < STEPS_MAX * 2, "the run must end"
        match step:
            case FetchScript(url):
                page = pages.get(url)
                body = page.encode() if isinstance(page, str) else page or b""
                step = run.on_answer(Answer(page is not None, body))
            case FetchImage(url):
                step = run.on_answer(Answer(url not in absent))
            case TryDisk():
                step = run.on_answer(Answer(False))
            case _:
                step = run.on_answer(Answer(True))
    return asks, step


def script(*lines: str) -> str:
    return "\n".join(("#!ipxe", *lines))


def test_a_kernel_with_its_arguments_and_initrd_is_booted() -> None:
    text = script(
        "# ramdisk", "kernel /boot/v1/file/vmlinuz rackmesh.mac=${net0/mac} quiet",
        "initrd --name initrd http://b:2/initrd", "boot",
    )  # fmt: skip
    asks, end = play({FIRST: text})
    assert asks == [
        FetchScript(FIRST),
        FetchImage("http://a:1/boot/v1/file/vmlinuz"),
        FetchImage("http://b:2/initrd"),
    ]
    assert end == Boot(
        "http://a:1/boot/v1/file/vmlinuz",
        "rackmesh.mac=52:54:00:00:00:01 quiet",
        ("http://b:2/initrd",),
    )


def test_a_failed_command_ends_the_script_unless_an_alternative_follows() -> None:
    absent = ("http://a:1/k",)
    _, end = play({FIRST: script("kernel /k", "boot")}, absent)
    assert end == Exited(False, "http://a:1/k could not be fetched")
    _, end = play({FIRST: script("kernel /k || kernel http://b/k x", "boot")}, absent)
    assert end == Boot("http://b/k", "x", ())
    _, end = play({FIRST: script("iseq a b && reboot ||", "poweroff")})
    assert end == SwitchOff()


def test_a_chain_goes_on_to_the_next_node_and_comes_back_after_exit() -> None:
    second, third = "http://b/s", "http://c/s"
    pages: dict[str, str | bytes] = {
        FIRST: script(f"chain http://dead/s || chain {second} || chain {third}", "reboot"),
        second: script("exit 1"),
        third: script("echo hello ${platform}", "exit", "poweroff"),
    }
    asks, end = play(pages)
    assert Say("hello pcbios") in asks
    assert end == Restart()


def test_replace_does_not_come_back() -> None:
    pages: dict[str, str | bytes] = {
        FIRST: script("chain --autofree --replace http://b/s", "reboot"),
        "http://b/s": script("exit"),
    }
    assert isinstance(play(pages)[1], Exited)


def test_a_wait_script_that_replaces_itself_goes_on_for_long() -> None:
    waits = script("echo wait", "sleep 5", f"chain --replace {FIRST} || exit 1")
    asks, end = play({FIRST: waits})
    assert asks.count(FetchScript(FIRST)) == FETCHES_MAX
    assert isinstance(end, Exited)
    _, end = play({FIRST: script("chain --replace http://dead/ || reboot")})
    assert end == Restart()


def test_settings_are_expanded_in_the_forms_that_scripts_use() -> None:
    lines = ["set next ${net0/mac:hexhyp}", "echo <${next}> <${nothing}> <${net0/mac:hexraw}>"]
    asks, _ = play({FIRST: script(*lines, "clear next", "echo <${next}>")})
    assert asks[1:] == [Say("<52-54-00-00-00-01> <> <525400000001>"), Say("<>")]


def test_a_comparison_chooses_a_label() -> None:
    lines = [
        "iseq ${platform} efi && goto efi ||",
        "sanboot --no-describe --drive 0x80 || exit 1",
    ]
    asks, end = play({FIRST: script(*lines, ":efi", "reboot")})
    assert asks[1:] == [TryDisk()]
    assert end == Exited(False, "the first disk does not boot")


def test_sleep_is_bounded() -> None:
    asks, _ = play({FIRST: script("sleep 999999", "sleep x")})
    assert asks[1:] == [Sleep(60.0), Sleep(1.0)]


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b"#!ipxe" + b"a" * (65 << 10)])
def test_what_is_no_script_fails(body: bytes) -> None:
    assert not play({FIRST: body})[1].ok


def test_a_script_that_chains_itself_ends() -> None:
    asks, end = play({FIRST: script(*[f"chain {FIRST} ||"] * 50)})
    assert isinstance(end, Exited)
    assert len(asks) <= FETCHES_MAX + 1
    _, end = play({FIRST: script(":a", f"chain {FIRST}&${{x}} || goto a")})
    assert isinstance(end, Exited)


def test_a_script_that_jumps_for_ever_ends() -> None:
    _, end = play({FIRST: script(":a", "echo x", "goto a")})
    assert end == Exited(False, f"the script took over {STEPS_MAX} commands")
    _, end = play({FIRST: script(":a", "goto a")})
    assert isinstance(end, Exited)
    _, end = play({FIRST: script(":a", "imgfree || goto a && goto a")})
    assert isinstance(end, Exited)


def test_settings_that_grow_are_cut_off() -> None:
    grow = ["set a ${a}${a}xxxxxxxx"] * 100
    assert isinstance(play({FIRST: script(*grow)})[1], Exited)
    many = [f"set v{n} x" for n in range(1000)]
    assert isinstance(play({FIRST: script(*many)})[1], Exited)


WORDS = (
    "chain kernel initrd boot exit goto set iseq echo || && sanboot sleep 1 a :a ${a} ${${a}}"
    " ${ http://h/ --name -n reboot # imgfree isset"
)


@given(
    st.lists(
        st.lists(st.sampled_from(WORDS.split()), max_size=6).map(" ".join),
        max_size=20,
    )
)
def test_garbage_never_raises(lines: list[str]) -> None:
    play({FIRST: script(*lines), "http://h/": script(*lines[::-1])})


@given(st.text(max_size=300))
def test_any_text_never_raises(text: str) -> None:
    play({FIRST: script(text)})
