"""Servers that boot from discs in their BMCs' drives: no packet of DHCP, none of TFTP."""

import json
from pathlib import Path
from typing import Any

import pytest
from demo_processes import rackmesh, wait_for

from tests.support.fleet import IMAGE, Fleet, fleet, run, until

pytestmark = pytest.mark.slow


def start(site: Fleet) -> None:
    """Run a hub, one node and a rack that is off, so nobody has ever asked for an address."""
    site.start_hub()
    site.join("two", site.two, "node", "site-operator")
    site.run_node(site.two, "--subnet", "127.94.0.0/24")
    site.processes.start("rack", *site.rack_words(site.two), "--power-off")
    site.wait_linked(site.two)
    wait_for("the rack is up", (site.rack / "servers.json").exists, 30, site.processes)
    site.set_bmc_secret(site.bmc_login()["password"])
    rackmesh("asset", "add", IMAGE, site.image, "--data", site.hub)
    wait_for("it is signed", lambda: site.get(site.two, f"/assets/{IMAGE}"), 20, site.processes)
    for number, machine in enumerate(site.machines(), 1):
        rackmesh(
            "server", "accept", f"srv{number}", "--site", "two", "--bmc", machine["bmc"],
            "--bmc-secret", "rack-bmc", "--inspect", "oob", "--boot-by", "media",
            "--wait", "--timeout", "60", "--data", site.hub,
        )  # fmt: skip


def asked(site: Fleet) -> dict[str, Any]:
    """Return what machines asked of the node: counters of DHCP, TFTP and HTTP."""
    return dict(site.status(site.two)["services"]["boot"])


def drive(site: Fleet, index: int) -> str | None:
    """Return the disc in a server's drive, as the rack wrote it down."""
    kept = json.loads((site.rack / "rack.json").read_text())
    return str(kept["servers"][f"sim-{index + 1}"]["image"]) or None


def test_two_servers_are_deployed_by_discs_alone_though_the_power_fails(tmp_path: Path) -> None:
    with fleet(tmp_path / "site", servers=2) as site:
        (tmp_path / "site" / "node-two.toml").write_text(
            "[policy]\ndestructive_per_hour = 100\nmachine_lost_s = 20\n"
        )
        start(site)
        server = site.server("srv1")
        assert (server["state"], server["boot_by"]) == ("available", "media")
        first, second = site.deploy_order("srv1"), site.deploy_order("srv2")
        until("it writes", lambda: site.step(first, "write image")["state"] == "running")
        assert drive(site, 0)
        before = asked(site)
        site.kill("node-two")
        site.kill("rack")
        site.run_node(site.two)
        site.start_rack(site.two)
        for job, index in ((first, 0), (second, 1)):
            site.succeeded(job, 120)
            assert site.disk_holds_image(index)
            assert drive(site, index) is None, "it was taken out again"
        assert site.server("srv1")["state"] == "active"
        release = site.order("server", "release", "srv1", "--yes")
        site.succeeded(release, 90)
        assert site.disk_is_empty(0)
        assert drive(site, 0) is None
        for counts in (before, asked(site)):
            assert counts["http"]["requests"] > 10
            for protocol in ("dhcp", "tftp"):
                assert not any(counts[protocol].values()), counts[protocol]
        for index in range(2):
            assert "booting from the virtual CD" in site.console(index)
            assert "DHCP" not in site.console(index)
        logs = site.log("node-two") + site.log("rack") + site.log("hub")
        assert "/boot/v1/media/***" in logs
        shown = run("job", "logs", first, "--data", site.hub).out
        assert ".iso" not in shown
        site.no_traceback()
