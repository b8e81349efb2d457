"""The mesh for real: 12 nodes in 4 sites, two hubs, a NAT and thin links, and bad days.

One story in the order of this file: each test leaves the mesh whole for the next one. What is
compared are the digests of everything that members hold (``GET /holdings``), so "equal" means
every row and every record of the register. How long each thing took is printed at the end.
"""

import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.mesh_netns import (
    NODES_PER_SITE,
    SITES,
    Country,
    Daemon,
    country,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed"),
]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Country]:
    """Two hubs and twelve nodes, all running and equal."""
    with country(tmp_path_factory.mktemp("mesh")) as made:
        found_two_hubs(made)
        joined = []
        for site in SITES:
            for number in range(1, NODES_PER_SITE + 1):
                node = made.add_node(site, number)
                joined.append((node, made.join(node, made.hubs[number % 2])))
        for node, pid in joined:
            assert made.forge.wait(pid, 90) == 0, (made.folder / f"{node.name}.log").read_text()
        made.start(*made.nodes.values())
        made.timed("12 nodes started: all equal", made.equal)
        yield made
        tell(request.config, made.took)
        for one in made.all:
            said = (made.folder / f"{one.name}.log").read_text()
            assert "Traceback" not in said, (one.name, said[said.index("Traceback") :][:3000])


def tell(config: Any, took: dict[str, float]) -> None:
    """Say how long each thing took, whether the tests passed or not."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(flush=True)
        for what, took_s in took.items():
            print(f"{took_s:7.1f} s  {what}", flush=True)


def found_two_hubs(made: Country) -> None:
    """Start a hub, let a second one join, and let the root name its keys."""
    first, second = made.add_hub("hub-a"), made.add_hub("hub-b")
    made.start(first)
    token = made.folder / "hub.token"
    token.write_text(first.post("/tokens", {"roles": ["hub"]})["token"])
    join = ("hub", "join", "--token-file", str(token), "--name", "hub-b", "--region", "eu")
    made.command(second, *join, "--data", str(second.data))
    made.start(second)
    made.wait("the hubs meet", lambda: len(first.get("/hubs") or ()) == 2)
    (waiting,) = [hub["id"] for hub in first.get("/hubs") if hub["name"] == "hub-b"]
    made.wait("it says its keys", lambda: state_of(first, waiting) == "waits")
    made.command(first, "hub", "root", "admit", waiting, "--data", str(first.data))
    made.wait("its keys count", lambda: state_of(second, waiting) == "named")


def state_of(hub: Daemon, other: str) -> str:
    return next(one["state"] for one in hub.get("/hubs") if one["id"] == other)


def change(land: Country, name: str, at: int = 0) -> None:
    """Write a row of the whole fleet at a hub."""
    land.hubs[at].post("/assets", {"name": name, "url": f"http://10.200.0.9/{name}"})


def knows(one: Daemon, name: str) -> bool:
    return any(asset["name"] == name for asset in one.get("/assets") or ())


def id_of(one: Daemon) -> str:
    return str(one.get("/status")["node"])


def others(land: Country, *but: Daemon) -> list[Daemon]:
    return [one for one in land.all if one not in but]


def test_every_node_has_a_hub_and_its_own_site(land: Country) -> None:
    hubs = {id_of(hub) for hub in land.hubs}
    for site in SITES:
        ids = {id_of(node) for node in land.of(site)}
        for node in land.of(site):
            land.wait(
                f"{node.name} is linked",
                lambda at=node, all_=ids: (
                    at.peers() >= all_ - {id_of(at)} and bool(at.peers() & hubs)
                ),
            )


def test_a_change_at_one_hub_is_seen_by_all(land: Country) -> None:
    change(land, "change-1")
    land.timed(
        "a change at a hub: known to 14", lambda: all(knows(o, "change-1") for o in land.all)
    )
    assert land.wait("equal", land.equal) < 60


@pytest.mark.parametrize("name", ["fra-1", "nat-2"])
def test_a_node_that_is_killed_is_missed_and_comes_back(land: Country, name: str) -> None:
    node = land.nodes[name]
    gone = id_of(node)
    land.end(node, number=signal.SIGKILL)
    near = [one for one in land.of(node.site) if one is not node]
    land.timed(f"{name} killed: missed by its site", lambda: all(
        gone not in one.peers() for one in near
    ))  # fmt: skip
    change(land, f"while-{name}")
    land.wait("the others know", lambda: all(
        knows(one, f"while-{name}") for one in others(land, node)
    ))  # fmt: skip
    land.start(node)
    land.timed(f"{name} started again: all equal", land.equal)
    assert knows(node, f"while-{name}")


def test_a_site_that_was_cut_off_catches_up(land: Country) -> None:
    site = land.of("ams")
    ids = {id_of(node) for node in site}
    land.cut("ams")
    land.timed("ams cut off: missed by the hubs", lambda: all(
        not ids & hub.peers() for hub in land.hubs
    ))  # fmt: skip
    change(land, "without-ams")
    restarted = site[0]
    land.end(restarted)
    restarted.flags = ["--subnet", "10.99.1.0/24"]
    land.start(restarted)
    land.wait(
        "the others know", lambda: all(knows(o, "without-ams") for o in others(land, *site))
    )
    land.wait("ams agrees with itself", lambda: land.equal(site))
    assert not any(knows(node, "without-ams") for node in site)
    assert not land.equal(), "the two sides differ"
    land.cut("ams", off=False)
    land.timed("ams on again: all equal", land.equal)
    assert all(knows(node, "without-ams") for node in site)
    for hub in land.hubs:
        assert (id_of(restarted), "10.99.1.0/24") in hub.rows("site:ams", "subnet")


def test_one_hub_dies_and_its_nodes_go_to_the_other(land: Country) -> None:
    first, second = land.hubs
    other = id_of(second)
    land.end(first, number=signal.SIGKILL)
    land.timed("hub-a killed: every node has hub-b", lambda: all(
        other in node.peers() for node in land.nodes.values()
    ))  # fmt: skip
    change(land, "without-hub-a", at=1)
    land.timed("a change at hub-b alone: known to 13", lambda: all(
        knows(one, "without-hub-a") for one in others(land, first)
    ))  # fmt: skip
    land.start(first)
    land.timed("hub-a started again: all equal", land.equal)
    assert knows(first, "without-hub-a")


def test_everything_restarts_at_once(land: Country) -> None:
    before = {one.name: one.state() for one in land.all}
    land.end(*land.all, number=signal.SIGKILL)
    land.start(*land.all)
    land.timed("all 14 killed and started at once: all equal", land.equal)
    for one in land.all:
        was, now = before[one.name], one.state()
        assert was is not None and now is not None
        assert was["register"] == now["register"], "nobody was lost"
    change(land, "after-the-restart")
    land.wait("all know", lambda: all(knows(one, "after-the-restart") for one in land.all))


def test_a_node_moves_to_another_address(land: Country) -> None:
    node = land.nodes["lis-3"]
    moved = id_of(node)
    land.end(node)
    land.readdress(node, 77)
    land.start(node)
    hub = land.hubs[0]
    land.timed("lis-3 moved: its new address is known", lambda: any(
        one["id"] == moved and any("10.103.0.77" in a for a in one["addresses"])
        for one in hub.get("/nodes") or ()
    ))  # fmt: skip
    near = [one for one in land.of("lis") if one is not node]
    land.timed("lis-3 moved: linked with its site", lambda: all(
        moved in one.peers() for one in near
    ))  # fmt: skip
    land.wait("all equal", land.equal)


def test_a_node_that_was_restored_from_an_old_copy_loses_nothing(land: Country) -> None:
    node = land.nodes["fra-3"]
    restored = id_of(node)
    land.end(node)
    backup = land.folder / "fra-3.backup"
    shutil.copytree(node.data, backup)
    node.flags = ["--subnet", "10.99.2.0/24"]
    land.start(node)
    change(land, "after-the-backup")
    land.wait("all equal", land.equal)
    land.end(node, number=signal.SIGKILL)
    shutil.rmtree(node.data)
    backup.rename(node.data)
    node.flags = []
    land.start(node)
    land.timed("fra-3 restored from an old copy: all equal", land.equal)
    assert knows(node, "after-the-backup")
    for one in (node, *land.hubs):
        assert (restored, "10.99.2.0/24") in one.rows("site:fra", "subnet"), one.name


def test_two_nodes_of_one_identity_are_noticed_and_nothing_is_lost(land: Country) -> None:
    node = land.nodes["lis-2"]
    twice = id_of(node)
    land.end(node)
    copy = land.folder / "lis-2-copy"
    shutil.copytree(node.data, copy)
    space, address = land.host("lis", 9)
    twin = Daemon("lis-2-copy", copy, space, address, "lis")
    node.flags, twin.flags = ["--subnet", "10.99.3.0/24"], ["--subnet", "10.99.4.0/24"]
    land.start(node, twin)
    land.timed("two of one identity: noticed", lambda: any(
        "another process" in said
        for one in (node, twin) for said in (one.get("/status") or {"problems": []})["problems"]
    ))  # fmt: skip
    theirs = twice, "10.99.4.0/24"
    land.timed("what both wrote is told", lambda: all(
        {(twice, "10.99.3.0/24"), theirs} <= one.rows("site:lis", "subnet").keys()
        for one in (node, *land.hubs)
    ))  # fmt: skip
    land.end(twin)
    land.timed("one of them stopped: all equal", land.equal)
    for one in (node, *land.hubs):
        rows = one.rows("site:lis", "subnet")
        assert {(twice, "10.99.3.0/24"), theirs} <= rows.keys(), one.name


def test_a_node_that_is_revoked_is_out_everywhere_and_stays_out(land: Country) -> None:
    node = land.nodes["ams-3"]
    ended = id_of(node)
    rest = others(land, node)
    land.hubs[0].post(f"/nodes/{ended}/revoke", None)
    land.timed("ams-3 revoked: known to 13, no link left", lambda: all(
        status_of(one, ended) == "revoked" and ended not in one.peers() for one in rest
    ))  # fmt: skip
    land.timed("ams-3 revoked: the others are equal", lambda: land.equal(rest))
    change(land, "not-for-ams-3")
    land.wait("the others know", lambda: all(knows(one, "not-for-ams-3") for one in rest))
    land.end(node)
    land.start(node)
    land.wait("equal", lambda: land.equal(rest))
    assert not knows(node, "not-for-ams-3")
    assert not any(ended in one.peers() for one in rest)


def status_of(one: Daemon, node: str) -> str | None:
    """Return what a daemon says of a member."""
    return next((n["status"] for n in one.get("/nodes") or () if n["id"] == node), None)
