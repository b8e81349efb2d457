"""A hub from its backup: what reached a node comes back, the rest is said to be missing."""

import json
import shutil
from pathlib import Path
from typing import Any

from demo_processes import RACKMESH, wait_for

from tests.support.fleet import Fleet, Said, fleet, one_sentence, run, until

PASSPHRASE = "four words make it"


def account(site: Fleet, name: str) -> None:
    made = run(
        "account", "add", name, "--role", "viewer", "--password-file", "-", "--data", site.hub,
        stdin="a long password",
    )  # fmt: skip
    assert made.code == 0, made.err


def power(site: Fleet, name: str) -> Said:
    return run("server", "power", name, "on", "--json", "--data", site.hub)


def given(said: Said) -> str:
    assert said.code == 0, said.err
    return str(json.loads(said.out)["item"]["order"])


def reaches_the_node(site: Fleet, order: str) -> None:
    until("the node has the order", lambda: site.get(site.two, f"/jobs/{order}"))


def restore(site: Fleet, file: Path, *more: str, passphrase: str = PASSPHRASE) -> Said:
    words = ("hub", "restore", file, "--data", site.hub, "--passphrase-file", "-", *more)
    return run(*words, stdin=passphrase)


def start_hub(site: Fleet) -> None:
    """Start the hub on its old port, well or not."""
    site.processes.start(
        "hub", RACKMESH, "hub", "up", "--data", site.hub, "--listen", "127.0.0.1",
        "--port", str(site.hub_port), "--advertise", "127.0.0.1",
    )  # fmt: skip
    wait_for("the hub answers", lambda: site.status(site.hub), 30, site.processes)


def report(site: Fleet) -> Any:
    return json.loads(run("hub", "restore-report", "--json", "--data", site.hub).out)["item"]


def build(site: Fleet, upload: Path) -> None:
    """A hub, a node with a server, a person, an uploaded file."""
    site.start_hub()
    site.join("two", site.two, "node", "site-operator")
    site.run_node(site.two, "--subnet", "127.94.0.0/24")
    site.start_rack(site.two)
    site.wait_linked(site.two)
    account(site, "ann")
    upload.write_bytes(b"x" * 70_000)
    assert run("asset", "add", "mine", upload, "--data", site.hub).code == 0
    site.accept(1)


def back_up(site: Fleet, file: Path) -> None:
    """Make a backup of the running hub."""
    words = ("hub", "backup", file, "--data", site.hub, "--passphrase-file", "-")
    made = run(*words, "--json", stdin=PASSPHRASE)
    assert made.code == 0, made.err
    told = json.loads(made.out)
    assert told["schema"] == "rackmesh/backup/1"
    assert [asset["name"] for asset in told["item"]["assets_not_inside"]] == ["mine"]
    assert file.stat().st_mode & 0o777 == 0o600
    ring = (site.hub / "keys" / "ring.key").read_bytes()
    assert ring[40:80] not in file.read_bytes(), "it is sealed"
    assert not list(site.hub.glob(".backup-*"))
    again = run(*words, stdin=PASSPHRASE)
    assert (again.code, "already exists" in one_sentence(again)) == (7, True)


def work_on_and_die(site: Fleet) -> tuple[list[str], str]:
    """Give three orders that reach the node and one that reaches nobody; kill the hub."""
    reached = [given(power(site, "srv1")) for _ in range(3)]
    for order in reached:
        reaches_the_node(site, order)
    account(site, "late")
    site.pause(site.two.name)
    lost = given(power(site, "srv1"))
    site.kill("hub")
    site.go_on(site.two.name)
    return reached, lost


def refused_restores(site: Fleet, file: Path, other: Path) -> None:
    """Nothing changes for a restore that cannot be meant."""
    refused = restore(site, file)
    assert (refused.code, "--replace" in one_sentence(refused)) == (7, True)
    before = sorted(p.name for p in site.hub.iterdir())
    for said in (
        restore(site, file, "--replace", passphrase="not the passphrase"),
        restore(site, other, "--replace"),
    ):
        assert (said.code, one_sentence(said).count("\n")) == (1, 0)
    assert sorted(p.name for p in site.hub.iterdir()) == before


def waits_for_the_node(site: Fleet) -> None:
    """A restored hub writes nothing before it has met the node."""
    site.pause(site.two.name)
    start_hub(site)
    problems = site.status(site.hub)["problems"]
    assert any("writes nothing before it has met a node of site two" in p for p in problems)
    waiting = power(site, "srv1")
    assert (waiting.code, "met no peer yet" in one_sentence(waiting)) == (7, True)
    assert report(site)["state"] == "waits"
    names = json.loads(run("account", "list", "--json", "--data", site.hub).out)["items"]
    assert [item["name"] for item in names] == ["admin", "ann"]
    site.go_on(site.two.name)
    wait_for("it went on", lambda: report(site)["state"] == "went on", 60, site.processes)


def test_a_hub_from_its_backup_has_every_order_that_reached_a_node(tmp_path: Path) -> None:
    file, upload = tmp_path / "hub.backup", tmp_path / "upload.raw"
    with fleet(tmp_path / "fleet", servers=1, image_mib=1) as site:
        build(site, upload)
        back_up(site, file)
        reached, lost = work_on_and_die(site)
        refused_restores(site, file, upload)
        shutil.rmtree(site.hub)
        done = restore(site, file)
        assert done.code == 0, done.err
        assert "not inside: uploaded mine" in done.err
        waits_for_the_node(site)

        def back() -> Any:
            found = report(site)
            return found["orders_got_back"] == 3 and found["sites_not_met"] == [] and found

        found = wait_for("the orders are back", back, 30, site.processes)
        orders = {row["key"] for row in found["got_back"] if row["table"] == "order"}
        assert orders == set(reached), "every order that had reached the node, no other"
        assert lost not in json.dumps(found["got_back"])
        assert found["jobs_without_order"] == []
        assert found["lost_from_ms"] < found["lost_until_ms"]
        assert set(reached) <= {job["id"] for job in site.get(site.hub, "/jobs")}
        text = run("hub", "restore-report", "--data", site.hub).out
        assert "orders that came back: 3" in text
        assert any("restored from a backup" in p for p in site.status(site.hub)["problems"])
        reaches_the_node(site, given(power(site, "srv1")))
        assert run("hub", "restore-report", "--dismiss", "--data", site.hub).code == 0
        assert run("hub", "restore-report", "--data", site.hub).code == 4
        assert site.status(site.hub)["healthy"]
        site.no_traceback()
