"""What a BMC says, over the whole way: command line, hub, node, the rack's virtual BMC."""

import json
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, fleet, one_sentence, run


def asked(site: Fleet, *words: str, data: Path) -> dict[str, Any]:
    said = run("server", *words, "--json", "--data", data)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)["item"]
    return found


def test_a_server_tells_its_sensors_log_versions_and_settings(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=2, image_mib=1) as site:
        site.start_hub()
        site.join("two", site.two, "node", "site-operator")
        site.run_node(site.two, "--subnet", "127.96.0.0/24")
        site.start_rack(site.two)
        site.wait_linked(site.two)
        site.accept(1)
        for target in ("off", "on"):
            job = site.order("server", "power", "srv1", target, data=site.two)
            assert site.ended(job, data=site.two)["state"] == "succeeded"
        for data in (site.hub, site.two):
            found = asked(site, "sensors", "srv1", data=data)
            units = {one["name"]: (one["unit"], one["state"]) for one in found["readings"]}
            assert units["CPU1 Temp"] == ("Cel", "ok")
            assert units["Fan1"] == ("RPM", "ok")
            assert found["attempts"][0]["outcome"] == "done"
            events = asked(site, "events", "srv1", data=data)["entries"]
            assert "Power on by the BMC." in [one["message"] for one in events]
            names = [
                one["name"] for one in asked(site, "firmware", "srv1", data=data)["components"]
            ]
            assert names == ["BIOS", "BMC"]
            assert (
                asked(site, "bios", "show", "srv1", data=data)["current"]["BootMode"] == "Bios"
            )
        said = run("server", "sensors", "nobody", "--data", site.hub)
        assert (said.code, "no server 'nobody'" in one_sentence(said)) == (4, True)
        words = ("secret", "set", "x", "--site", "two", "--username", "u")
        pin = ("--bmc", "https://127.0.0.1:1", "--bmc-tls-sha256", "0" * 64)
        said = run(*words, *pin, "--data", site.hub)
        assert (said.code, "shows no certificate" in one_sentence(said)) == (7, True)
        site.no_traceback()
