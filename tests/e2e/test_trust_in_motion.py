"""Keys that change, members that end and state that is carried by hand, with real processes."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from demo_processes import wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run, until


def nodes_at(site: Fleet, data: Path) -> dict[str, Any]:
    return {node["name"]: node for node in site.get(data, "/nodes") or []}


def peers_at(site: Fleet, data: Path) -> dict[str, int]:
    """Linked peers and since when; the hub is called hub."""
    found = (site.status(data) or {"peers": []})["peers"]
    return {p["name"] if p["role"] == "node" else "hub": p["since_ms"] for p in found}


def test_keys_change_members_end_and_a_file_carries_it_on(tmp_path: Path) -> None:
    with fleet(tmp_path / "fleet", servers=1, image_mib=1) as site:
        late = site.folder / "late"
        site.start_hub()
        for name, data in (("one", site.one), ("two", site.two), ("two", late)):
            site.join(name, data, "node", "site-operator")
            site.run_node(data)
            site.wait_linked(data)
        wait_for("both of a site are linked", lambda: "late" in peers_at(site, site.two), 30,
                 site.processes)  # fmt: skip
        said = run("secret", "set", "bmc-1", "--site", "two", "--data", site.hub, stdin="pw")
        assert said.code == 0, said.err
        replaces_keys(site)
        delegates(site)
        site.processes.stop(site.one.name)  # in the dark from here on
        revokes(site, late)
        carries_by_hand(site)
        site.no_traceback()


def logged(site: Fleet, name: str, phrase: str) -> list[datetime]:
    """When a process logged something."""
    lines = [line for line in site.log(name).splitlines() if phrase in line]
    return [datetime.fromisoformat(json.loads(line)["t"]) for line in lines]


def replaces_keys(site: Fleet) -> None:
    """A node and a hub get new keys; their links come back by themselves."""
    for data, name in ((site.two, "node-two"), (site.hub, None)):
        before = peers_at(site, site.two)
        said = run("node", "rotate-key", "--json", "--data", data)
        assert said.code == 0, said.err
        assert json.loads(said.out)["item"]["epoch"] == 2

        def back(before: dict[str, int] = before, name: str | None = name) -> bool:
            now = peers_at(site, site.two)
            renewed = now.get("hub", 0) > before["hub"]
            known = name is None or nodes_at(site, site.hub)[name]["key_epoch"] == 2
            return renewed and known and "late" in now

        wait_for("links are made anew", back, 30, site.processes)
    site.wait_linked(site.two)


def delegates(site: Fleet) -> None:
    """The root lets a node speak for its site; before that it is told what is missing."""
    node = nodes_at(site, site.hub)["node-two"]["id"]
    words = "node", "revoke", "late", "--yes", "--data", site.two
    assert "does not name this site two's key" in one_sentence(run(*words))
    said = run("hub", "root", "delegate", node, "--data", site.hub)
    assert said.code == 0, said.err
    words = "node", "revoke", "node-one", "--yes", "--data", site.two
    until("it may speak", lambda: "is none of site two" in run(*words).err)


def revokes(site: Fleet, late: Path) -> None:
    """A site ends its node: others learn it within a second, the node finds no door."""
    refused = run("node", "revoke", "nobody", "--yes", "--data", site.hub)
    assert "there is no node 'nobody'" in one_sentence(refused)
    said = run("node", "revoke", "late", "--yes", "--json", "--data", site.two)
    assert said.code == 0, said.err
    item = json.loads(said.out)["item"]
    assert (item["status"], item["secrets"]) == ("revoked", ["bmc-1"])
    until("the hub knows", lambda: nodes_at(site, site.hub)["late"]["status"] == "revoked")
    until("its link is gone", lambda: "late" not in peers_at(site, site.two))
    (signed,) = logged(site, "node-two", "member changed")
    for name in ("hub", "node-two"):
        (closed,) = logged(site, name, "no longer an active member")
        print(f"{name} closed its link {(closed - signed).total_seconds():.3f} s after it")
        assert (closed - signed).total_seconds() < 1.0
    wait_for("it finds no door", lambda: not peers_at(site, late), 30, site.processes)


def carries_by_hand(site: Fleet) -> None:
    """A site that was dark, with no hub and no network, learns it from a file."""
    site.processes.stop("hub")
    file = site.folder / "two.state"
    said = run("state", "export", file, "--data", site.two)
    assert said.code == 0, said.err
    assert file.stat().st_mode & 0o077 == 0
    site.processes.stop(site.two.name)
    site.run_node(site.one)
    assert nodes_at(site, site.one)["late"]["status"] == "member"
    said = run("state", "import", file, "--json", "--data", site.one)
    assert said.code == 0, said.err
    item = json.loads(said.out)["item"]
    assert item["records"] >= 1
    assert nodes_at(site, site.one)["late"]["status"] == "revoked"
    damaged = site.folder / "cut.state"
    damaged.write_bytes(file.read_bytes()[:-5])
    said = run("state", "import", damaged, "--data", site.one)
    assert (said.code, "cut short" in one_sentence(said)) == (1, True)
    back = site.folder / "one.state"
    assert run("state", "export", back, "--site", "one", "--data", site.one).code == 0
    site.run_node(site.two)
    said = run("state", "import", "-", "--data", site.two, stdin="garbage")
    assert (said.code, "no file of rackmesh state export" in one_sentence(said)) == (1, True)
    assert run("state", "import", back, "--data", site.two).code == 0
