"""The mesh as operators see it, with real processes: links, who is away, who sees whom."""

import json
from pathlib import Path
from typing import Any

from demo_processes import wait_for

from tests.support.fleet import Fleet, fleet, run


def asked(verb: str, data: Path) -> Any:
    said = run("mesh", verb, "--json", "--data", data)
    assert said.out, said.err
    return json.loads(said.out)["item"]


def linked(site: Fleet, data: Path) -> set[str]:
    return {link["name"] for link in asked("peers", data)["links"]}


def paths_of(data: Path) -> set[str]:
    return {link["path"] for link in asked("peers", data)["links"]}


def test_hub_and_node_say_who_is_linked_and_who_is_gone(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=1, image_mib=1) as site:
        site.start_hub()
        late = site.folder / "late"
        for folder in (site.two, late):
            site.join("two", folder, "node")
            site.run_node(folder)
        both = {site.two.name, late.name}
        wait_for("all links", lambda: len(linked(site, site.hub)) == 2
                 and len(linked(site, site.two)) == 2, 60, site.processes)  # fmt: skip

        seen = asked("topology", site.hub)
        assert (seen["asked"], seen["answered"], seen["unknown"]) == (2, 2, [])
        assert len(seen["edges"]) == 3
        assert [part["nodes"] for part in seen["parts"]] == [3]
        wait_for("a direct path", lambda: paths_of(site.two) <= {"websocket", "tcp", "udp"}, 60,
                 site.processes)  # fmt: skip
        assert "websocket" in paths_of(site.two)
        wait_for("compared", lambda: all(
            link["synced_ms"] for link in asked("lag", site.two)["links"]
        ), 60, site.processes)  # fmt: skip
        hub, node = (asked("status", data) for data in (site.hub, site.two))
        assert hub["healthy"], hub
        assert node["healthy"], node
        assert len(node["gateways"]) == 2
        wait_for("the same fleet everywhere", lambda: len({
            asked("status", data)["digests"]["fleet"] for data in (site.hub, site.two, late)
        }) == 1, 60, site.processes)  # fmt: skip

        for verb in ("status", "peers", "topology", "lag"):
            said = run("mesh", verb, "--data", site.two)
            assert (said.code, "TWO" in said.out.upper()) == (0, True), said.out

        site.kill(late.name)
        wait_for("it is missed", lambda: asked("status", site.two)["away"], 60,
                 site.processes)  # fmt: skip
        (away,) = asked("status", site.two)["away"]
        assert away["since_ms"] is not None or away["by"] == "here"
        said = run("mesh", "status", "--data", site.two)
        assert (said.code, "OUT OF REACH" in said.out) == (3, True), said.err
        assert linked(site, site.hub) < both
        text = run("api", "GET", "/mesh", "--data", site.hub).out
        assert json.loads(text)["item"]["members"] == {"member": 3}
        site.no_traceback()
