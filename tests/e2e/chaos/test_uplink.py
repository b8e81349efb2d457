"""The uplink of a site is cut in the middle of things, one way or both, and comes back.

Site two and its rack are in a network namespace of their own, joined to everybody else by one
cable; nftables drops what crosses it, without a word to either end, as a broken line does.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from tests.e2e.chaos.storm import DEAD_SOCKETS
from tests.support.fleet import IMAGE, Fleet, run, small_image, until
from tests.support.netns import Namespace, namespace, wire

pytestmark = [pytest.mark.root, pytest.mark.slow, DEAD_SOCKETS]
HUB, SITE_TWO = "10.99.0.1", "10.99.0.2"
BYTES_A_SECOND = 3 << 20
ASSET_MIB = 30
CUTS = {"out": 8.0, "in": 8.0, "both": 45.0}
"""Seconds; a link is given up after 35 of silence, before that TCP goes on by itself."""


class Apart(Fleet):
    """A fleet whose site two is behind a cable."""

    def __init__(self, folder: Path, space: Namespace) -> None:
        super().__init__(folder, servers=1, image_mib=6)
        self.disk_mib, self.space = 16, space

    def behind(self, words: list[str | Path]) -> list[str | Path]:
        """Run a command in site two's namespace."""
        return [*self.space.argv(), *words]

    def hub_words(self) -> list[str | Path]:
        """Listen where the cable ends, too."""
        words = super().hub_words()
        return [*words, "--listen", "0.0.0.0", "--advertise", HUB]

    def node_words(self, data: Path, *flags: str | Path) -> list[str | Path]:
        """Node two is at the far end."""
        host = SITE_TWO if data == self.two else HUB
        words = super().node_words(data, *flags, "--mesh-listen", host)
        return self.behind(words) if data == self.two else words

    def rack_words(self, *nodes: Path) -> list[str | Path]:
        """So is the rack."""
        return self.behind(super().rack_words(*nodes))

    @contextmanager
    def cut(self, way: str) -> Generator[None]:
        """Drop all that crosses the cable, one way or both."""
        hooks = {"out": ["output"], "in": ["input"], "both": ["input", "output"]}[way]
        self.space.run("nft", "add", "table", "inet", "cut")
        for hook in hooks:
            side = "iifname" if hook == "input" else "oifname"
            chain = f"{{ type filter hook {hook} priority 0 ; }}"
            self.space.run("nft", "add", "chain", "inet", "cut", hook, chain)
            self.space.run("nft", "add", "rule", "inet", "cut", hook, side, "far", "drop")
        try:
            yield
        finally:
            self.space.run("nft", "delete", "table", "inet", "cut")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Apart]:
    """Hub and site one on one side of the cable, site two and its rack on the other."""
    with ExitStack() as stack:
        near, far = (stack.enter_context(namespace(900)) for _ in range(2))
        wire(near, "near", far, "far")
        near.run("ip", "address", "add", f"{HUB}/24", "dev", "near")
        far.run("ip", "address", "add", f"{SITE_TWO}/24", "dev", "far")
        far.run("nft", "add", "table", "inet", "slow")
        chain = "{ type filter hook input priority -1 ; }"
        far.run("nft", "add", "chain", "inet", "slow", "input", chain)
        limit = f"limit rate over {BYTES_A_SECOND} bytes/second burst 256 kbytes drop"
        far.run("nft", "add", "rule", "inet", "slow", "input", "iifname", "far", *limit.split())
        made = Apart(tmp_path_factory.mktemp("cut") / "fleet", far)
        stack.enter_context(near.entered())
        stack.callback(made.processes.stop_all)
        made.start_sites()
        made.register_image()
        rackmesh("asset", "want", IMAGE, "two", "--data", made.hub)
        made.accept(1)
        yield made


def chunks(site: Apart, name: str) -> tuple[int, int]:
    """How many chunks of an asset node two has, and of how many."""
    item = site.get(site.two, f"/assets/{name}") or {"sites": []}
    found = [r for r in item["sites"] if r["site"] == "two"]
    return (found[0]["have"], found[0]["of"]) if found else (0, 0)


@pytest.mark.parametrize("way", list(CUTS))
def test_a_cut_in_the_middle_is_outlived_and_nothing_is_done_twice(
    site: Apart, way: str
) -> None:
    site.make_available("srv1")
    name = f"large-{way}"
    path = small_image(site.folder / f"{name}.raw", ASSET_MIB, seed=len(way))
    rackmesh("asset", "add", name, path, "--want", "two", "--data", site.hub)
    until("it is on its way", lambda: 1 <= chunks(site, name)[0] < chunks(site, name)[1], 60)
    running = site.deploy_order("srv1")
    until("the site has it", lambda: site.job(running)["state"] == "running", 30)
    with site.cut(way):
        site.succeeded(running, 60)  # the site needs nobody for it
        if CUTS[way] > 35:
            wait_for("the hub misses it", lambda: not reached(site), 60, site.processes)
        waiting = site.order("server", "release", "srv1", "--yes")
        assert site.job(waiting, site.hub)["state"] == "queued"
        assert site.get(site.two, f"/jobs/{waiting}") is None
        until("the cut has lasted", elapsed(CUTS[way]), CUTS[way] + 5)
        assert chunks(site, name)[0] < chunks(site, name)[1]
    site.succeeded(waiting, 120)
    assert site.disk_is_empty(0)
    wait_for("the asset is there", lambda: whole(site, name), 90, site.processes)
    wait_for("both say the same", lambda: jobs(site, site.hub) == jobs(site, site.two), 45,
             site.processes)  # fmt: skip
    assert jobs(site, site.two).keys() >= {running, waiting}
    item = site.get(site.hub, f"/assets/{name}")
    came = next(r for r in item["sites"] if r["site"] == "two")["peer_bytes"]
    assert came <= (ASSET_MIB << 20) * 1.5, "what had come was not fetched again"
    site.no_traceback()


def elapsed(seconds: float) -> Any:
    """Return a question that is true after so long."""
    import time

    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def reached(site: Apart) -> bool:
    """Whether the hub says that it reaches node two."""
    nodes = site.get(site.hub, "/nodes")
    return any(node["site"] == "two" and node["reachable"] for node in nodes)


def whole(site: Apart, name: str) -> bool:
    """Whether site two has all of an asset, as the hub sees it, too."""
    said = run("asset", "show", name, "--json", "--data", site.hub)
    have, of = chunks(site, name)
    return of > 0 and have == of and '"verified"' in said.out


def jobs(site: Apart, data: Path) -> dict[str, str]:
    """All jobs with their states, as a daemon shows them."""
    return {job["id"]: job["state"] for job in site.get(data, "/jobs") or []}
