"""Assets that do not come as they should: told in `asset list`, never stored, never served."""

import json
import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import trio
from demo_processes import DemoFailed, rackmesh, wait_for

from tests.support.fleet import IMAGE, Fleet, fleet, one_sentence, run
from tests.support.origin import Origin

MIB = 1 << 20


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, a node at each of two sites, and the origin."""
    with fleet(tmp_path_factory.mktemp("depot")) as made:
        made.start_hub()
        for site, data in (("one", made.one), ("two", made.two)):
            made.join(site, data)
            made.run_node(data)
        made.start_origin()
        for data in (made.one, made.two):
            made.wait_linked(data)
        made.register_image()
        yield made


def at(depot: Fleet, name: str, site: str) -> dict[str, Any]:
    """How an asset fares at a site, as the hub shows it."""
    item = depot.get(depot.hub, f"/assets/{name}")
    found = [r for r in item["sites"] if r["site"] == site] if item else []
    return dict(found[0]) if found else {"state": None, "error": None}


def wait_at(depot: Fleet, name: str, site: str, state: str, timeout_s: float = 30) -> Any:
    """Wait until an asset is in a state at a site."""
    try:
        return wait_for(
            f"{name} is {state} at {site}",
            lambda: (found := at(depot, name, site))["state"] == state and found,
            timeout_s,
            depot.processes,
        )
    except DemoFailed as exc:
        raise AssertionError(f"{exc}: {at(depot, name, site)}") from exc


def listed(depot: Fleet, name: str) -> str:
    """The line of `asset list` about an asset."""
    out = run("asset", "list", "--data", depot.hub).out
    return next(line for line in out.splitlines() if line.startswith(f"{name} "))


def add(depot: Fleet, name: str, source: str | Path, *words: str) -> None:
    rackmesh("asset", "add", name, source, *words, "--data", depot.hub)


def data_file(depot: Fleet, data: Path, name: str) -> Path:
    """The file in a node's cache that holds an asset's bytes."""
    size = depot.image.stat().st_size
    found = [p for p in (data / "cache" / "assets").rglob("*") if p.is_file()]
    return next(p for p in found if p.stat().st_size == size)


def test_an_asset_whose_bytes_do_not_match_is_never_had(depot: Fleet) -> None:
    wrong = "0" * 64
    add(depot, "forged", depot.origin_url(), "--sha256", wrong, "--want", "one")
    found = wait_at(depot, "forged", "one", "failed")
    assert wrong in found["error"]
    assert depot.image_sha256 in found["error"], "what it hashes to is told"
    assert "failed: forged hashes to" in listed(depot, "forged")
    item = depot.get(depot.hub, "/assets/forged")
    assert item["asset"] is None, "the hub signs nothing"
    shown = run("asset", "show", "forged", "--data", depot.hub)
    assert (shown.code, wrong in shown.out) == (0, True)


def test_a_hash_that_is_none_is_refused_at_once(depot: Fleet) -> None:
    said = run(
        "asset", "add", "odd", depot.origin_url(), "--sha256", "abc", "--data", depot.hub
    )
    assert (said.code, "abc" in one_sentence(said)) == (2, True), said.err
    said = run("asset", "add", "odd", depot.folder / "absent.raw", "--data", depot.hub)
    assert (said.code, "absent.raw" in one_sentence(said)) == (2, True), said.err
    said = run("asset", "want", "nowhere", "one", "--data", depot.hub)
    assert (said.code, "nowhere" in one_sentence(said)) == (4, True), said.err


def test_an_origin_that_is_dead_is_named(depot: Fleet) -> None:
    add(depot, "orphan", "http://127.0.0.1:1/os.raw", "--want", "one")
    found = wait_at(depot, "orphan", "one", "failed")
    assert "127.0.0.1:1" in found["error"], found["error"]
    add(depot, "missing", depot.origin_url().replace("http:", "https:"), "--want", "one")
    assert wait_at(depot, "missing", "one", "failed")["error"]


async def test_an_origin_that_is_cut_in_the_middle_goes_on_where_it_stopped(
    depot: Fleet,
) -> None:
    content = os.urandom(12 * MIB)
    origin = Origin(content, cut_after=[5 * MIB, 3 * MIB + 17])
    wrong = Origin(content[:MIB])
    async with trio.open_nursery() as nursery:
        await nursery.start(origin.run)
        await nursery.start(wrong.run)

        def fetch() -> Any:
            add(depot, "wrong", wrong.url, "--sha256", "1" * 64, "--want", "one")
            wait_at(depot, "wrong", "one", "failed")
            add(depot, "cut", origin.url, "--want", "one")
            return wait_at(depot, "cut", "one", "verified")

        found = await trio.to_thread.run_sync(fetch)
        nursery.cancel_scope.cancel()
    assert len(origin.requests) == 3, origin.requests
    assert origin.sent <= 1.02 * len(content)
    assert found["origin_bytes"] <= 1.02 * len(content)
    assert len(wrong.requests) == 1, "wrong bytes are not fetched again and again"


def flip(path: Path, offset: int) -> None:
    """Damage one byte of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))
        os.fsync(file.fileno())


@pytest.mark.slow
def test_a_chunk_that_was_damaged_on_disk_is_neither_served_nor_taken(depot: Fleet) -> None:
    flip(data_file(depot, depot.one, IMAGE), 7 * MIB + 11)
    rackmesh("asset", "want", IMAGE, "two", "--data", depot.hub)
    wait_at(depot, IMAGE, "two", "verified", 60)
    for data in (depot.one, depot.two):
        wait_for(
            "both are whole again",
            lambda data=data: (
                data_file(depot, data, IMAGE).read_bytes() == depot.image.read_bytes()
            ),
            30,
            depot.processes,
        )
    assert "damaged" in depot.log(depot.two.name) + depot.log(depot.one.name)
    depot.no_traceback()


@pytest.mark.slow
def test_an_operator_has_a_disk_read_again_and_what_nobody_wants_let_go(depot: Fleet) -> None:
    for site in ("one", "two"):
        rackmesh("asset", "want", IMAGE, site, "--data", depot.hub)
        wait_at(depot, IMAGE, site, "verified")
    sound = run("asset", "verify", IMAGE, "--data", depot.one)
    assert (sound.code, sound.err) == (0, "")
    assert "chunks are here and sound" in sound.out
    flip(data_file(depot, depot.one, IMAGE), 3 * MIB + 1)
    found = run("asset", "verify", "--json", "--data", depot.one)
    assert found.code == 3, found
    items = {item["name"]: item for item in json.loads(found.out)["items"]}
    assert items[IMAGE]["damaged"] == 1
    wait_for(
        "the chunk is there again",
        lambda: (
            run("asset", "verify", IMAGE, "--data", depot.one).code == 0
            and at(depot, IMAGE, "one")["state"] == "verified"
        ),
        30,
        depot.processes,
    )
    assert run("asset", "verify", "none-such", "--data", depot.one).code == 4
    wanted = run("asset", "gc", "--data", depot.one)
    assert IMAGE not in wanted.out, "what the site wants stays"
    rackmesh("asset", "pin", IMAGE, "one", "--data", depot.hub)
    rackmesh("asset", "unwant", IMAGE, "one", "--data", depot.hub)
    wait_for(
        "the node knows both",
        lambda: (r := seen_at_one(depot)) and r["pinned"] and not r["wanted"],
        30,
        depot.processes,
    )
    assert IMAGE not in run("asset", "gc", "--data", depot.one).out, "what is pinned stays"
    rackmesh("asset", "unpin", IMAGE, "one", "--data", depot.hub)
    assert run("asset", "unpin", IMAGE, "one", "--data", depot.hub).code == 4
    wait_for(
        "it may go",
        lambda: IMAGE in run("asset", "gc", "--dry-run", "--data", depot.one).out,
        30,
        depot.processes,
    )
    assert at(depot, IMAGE, "one")["state"] == "verified", "a dry run lets it stay"
    assert IMAGE in run("asset", "gc", "--data", depot.one).out
    again = run("asset", "gc", "--data", depot.one)
    assert (again.out, again.err.strip()) == ("", "nothing here may go")
    wait_for(
        "the hub knows that it went",
        lambda: at(depot, IMAGE, "one")["state"] != "verified",
        30,
        depot.processes,
    )
    seeded = run("asset", "seed", IMAGE, "--site", "one", "--data", depot.hub)
    assert (seeded.code, seeded.out) == (0, f"{IMAGE} is at one\n")
    assert at(depot, IMAGE, "one")["state"] == "verified"
    add(depot, "dead-end", "http://127.0.0.1:9/none")
    late = run("asset", "seed", "dead-end", "--site", "two", "--wait", "1", "--data", depot.hub)
    assert late.code == 8, late


def seen_at_one(depot: Fleet) -> Any:
    """How the image fares at site one, as its own node shows it."""
    item = depot.get(depot.one, f"/assets/{IMAGE}")
    return next((r for r in item["sites"] if r["site"] == "one"), None) if item else None


@pytest.fixture
def full_disk(depot: Fleet) -> Generator[Path]:
    """A joined node's folder whose cache is on a disk too small for the image."""
    data = depot.folder / "node-full"
    depot.join("full", data)
    cache = data / "cache"
    cache.mkdir()
    size = f"size={64 + 8}m"  # 64 MiB stay reserved
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", cache], check=True)
    try:
        depot.run_node(data)
        depot.wait_linked(data)
        yield data
    finally:
        if data.name in depot.processes.running:
            depot.processes.stop(data.name)
        subprocess.run(["umount", cache], check=True)


@pytest.mark.root
@pytest.mark.slow
def test_a_full_disk_is_told_and_the_fetch_goes_on_once_there_is_room(
    depot: Fleet, full_disk: Path
) -> None:
    rackmesh("asset", "want", IMAGE, "full", "--data", depot.hub)
    found = wait_at(depot, IMAGE, "full", "failed")
    assert "do not fit" in found["error"]
    assert str(full_disk) in found["error"]
    wait_for("the list says why", lambda: "MiB are free" in listed_at(depot, "full"), 60,
             depot.processes)  # fmt: skip
    again = "remount,size=512m"
    subprocess.run(["mount", "-o", again, full_disk / "cache"], check=True)
    assert wait_at(depot, IMAGE, "full", "verified", 60)["error"] is None


def listed_at(depot: Fleet, site: str) -> str:
    """The line of `asset list` about the image at a site."""
    out = run("asset", "list", "--data", depot.hub).out
    return next(
        line for line in out.splitlines() if line.startswith(IMAGE) and f" {site} " in line
    )


def test_what_is_listed_has_one_shape_everywhere(depot: Fleet) -> None:
    for data in (depot.hub, depot.one):
        answer = json.loads(run("asset", "list", "--json", "--data", data).out)
        assert answer["schema"] == "rackmesh/assets/1"
        named = {item["name"]: item for item in answer["items"]}
        assert named[IMAGE]["sha256"] == depot.image_sha256
