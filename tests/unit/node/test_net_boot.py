"""Booting off the network: scripts, what proves it, and what a request asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.net_boot import BootFile, NetBoot
from node.proto.boot_script import redacted
from node.proto.http_range import requested_bytes
from node.proto.net_boot_proof import (
    PHONE_GRACE_MS,
    READ_ENOUGH_BYTES,
    Proved,
    Waits,
    hear,
    judge,
)
from node.proto.net_boot_script import iso_script, live_script
from node.proto.rack_script import Answer, Boot, FetchImage, FetchScript, ScriptRun

URLS = ["http://10.0.0.1:8470", "http://10.0.0.2:8470"]
MAC = "52:54:00:00:00:01"
FILES = [BootFile(r, r, "b3:" + d * 64) for r, d in (("kernel", "1"), ("initrd", "2"))]
LIVE = NetBoot("live", "quiet  root=/dev/ram0", tuple(FILES))
DISC = NetBoot("iso", "", (BootFile("iso", "cd", "b3:" + "3" * 64),))


def test_a_live_script_names_every_node_for_every_file_and_says_when_it_boots() -> None:
    phone = [f"{url}/phone/v1/PCAP" for url in URLS]
    script = live_script(URLS, MAC, LIVE, "MCAP", phone, "web1")
    for url in URLS:
        for tail in ("1" * 64, "2" * 64, "boots"):
            assert f"{url}/media/v1/{tail}?cap=MCAP" in script
    line = "initrd=initrd quiet root=/dev/ram0 rackmesh.phone=" + ",".join(phone)
    assert f"{line} rackmesh.hostname=web1" in script
    assert "PCAP" not in redacted(script)
    assert "MCAP" not in redacted(script)


def run(script: str, refuse: tuple[str, ...] = ()) -> tuple[list[str], object]:
    """Run a script as a simulated server does; return what it fetched and how it ended."""
    machine, fetched = ScriptRun({}), list[str]()
    step = machine.start("http://10.0.0.1/first")
    while isinstance(step, FetchScript | FetchImage):
        fetched.append(step.url)
        first = isinstance(step, FetchScript)
        step = machine.on_answer(
            Answer(
                not any(part in step.url for part in refuse), script.encode() if first else b""
            )
        )
    return fetched, step


def test_firmware_runs_the_live_script_to_its_kernel_and_the_told_file_is_no_initrd() -> None:
    script = live_script(URLS, MAC, LIVE, "MCAP", ["http://p"], "web1")
    fetched, end = run(script)
    names = [url.rpartition("/")[2].partition("?")[0] for url in fetched[1:]]
    assert [name[:5] for name in names] == [
        "11111",
        "22222",
        "boots",
    ]
    assert isinstance(end, Boot)
    assert end.initrds == (f"{URLS[0]}/media/v1/{'2' * 64}?cap=MCAP",)


def test_a_node_that_is_away_is_passed_over_and_telling_is_no_condition() -> None:
    script = live_script(URLS, MAC, LIVE, "MCAP", ["http://p"], "web1")
    _, end = run(script, refuse=("10.0.0.1:8470",))
    assert isinstance(end, Boot)
    assert "10.0.0.2" in end.kernel
    _, end = run(script, refuse=("boots",))
    assert isinstance(end, Boot)


def test_an_iso_script_goes_to_the_next_node_and_says_when_it_cannot() -> None:
    script = iso_script(URLS, MAC, DISC, "MCAP")
    tail = f"/media/v1/{'3' * 64}?cap=MCAP"
    assert f"sanboot --no-describe {URLS[0]}{tail} || sanboot" in script
    assert "This firmware does not boot the ISO" in script
    assert "chain --replace" in script


def test_only_what_was_heard_proves_anything_and_the_evidence_says_what() -> None:
    assert judge("srv1", 1, {}, 0) == Waits(None)
    heard = hear({}, 1, 1000, {"boots": True})
    waits = judge("srv1", 1, heard, 1000)
    assert isinstance(waits, Waits)
    assert "waits for it to phone in" in str(waits.sentence)
    silent = judge("srv1", 1, heard, 1000 + PHONE_GRACE_MS)
    assert silent == Proved({"attempt": 1, "phoned_in": False, "fetched": "kernel and initrds"})
    up = judge("srv1", 1, hear(heard, 1, 2000, {"phoned_in": True}), 2000)
    assert up == Proved({"attempt": 1, "phoned_in": True})


def test_what_an_earlier_attempt_did_proves_nothing() -> None:
    heard = hear({}, 1, 1000, {"boots": True, "phoned_in": True})
    assert judge("srv1", 2, heard, 10**9) == Waits(None)
    assert judge("srv1", 2, hear(heard, 2, 5, {"boots": True}), 6) != Waits(None)
    assert "phoned_in" not in hear(heard, 2, 5, {"boots": True})


@pytest.mark.parametrize(("read", "proved"), [(READ_ENOUGH_BYTES - 1, False), (1 << 20, True)])
def test_an_iso_is_booted_when_it_was_read_far_enough(read: int, proved: bool) -> None:
    found = judge("srv1", 1, hear({}, 1, 0, {"read_bytes": read}), 0)
    assert isinstance(found, Proved) is proved


@given(st.dictionaries(st.sampled_from(["boots", "phoned_in", "read_bytes"]), st.none() | st.text() | st.integers() | st.booleans()))  # fmt: skip  # noqa: E501
def test_odd_news_never_raise(news: dict[str, object]) -> None:
    judge("srv1", 1, hear({}, 1, 0, news), 10)


@pytest.mark.parametrize(
    ("header", "count"),
    [("bytes=0-2047", 2048), ("bytes=5-5", 1), (None, 0), ("bytes=0-", 0), ("bytes=9-1", 0),
     ("lines=1-2", 0)],
)  # fmt: skip
def test_only_a_closed_range_says_how_much_is_asked_for(header, count) -> None:
    assert requested_bytes(header) == count
