"""Servers that nobody booted: found by a scan, read by their BMC, imported, deployed."""

import json
from collections.abc import Generator

import pytest
from demo_processes import rackmesh

from tests.support.fleet import IMAGE, Fleet, fleet, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub, a node and two servers that are off and that nobody has seen."""
    with fleet(tmp_path_factory.mktemp("discovery"), 2, image_mib=4) as made:
        made.start_hub()
        made.join("two", made.two, "node", "site-operator")
        made.run_node(made.two, "--subnet", "127.93.0.0/24")
        made.processes.start("rack", *made.rack_words(made.two), "--power-off")
        made.wait_linked(made.two)
        rackmesh("asset", "add", IMAGE, str(made.image), "--want", "two", "--data", made.hub)
        yield made


def origin(site: Fleet) -> str:
    return str(site.machines()[0]["bmc"]).partition("/redfish")[0]


def listed(site: Fleet, noun: str, *words: str) -> list[dict]:
    said = run(*noun.split(), *words, "--json", "--data", site.hub)
    return list(json.loads(said.out)["items"])


def test_a_scan_finds_the_bmc_and_the_inbox_shows_it(site: Fleet) -> None:
    port = origin(site).rpartition(":")[2]
    words = "bmc", "scan", "--site", "two", "127.0.0.0/28", "--port", port
    job = site.succeeded(site.order(*words))
    assert job["steps"][0]["evidence"]["found"] == 1
    (bmc,) = listed(site, "bmc list")
    assert (bmc["url"], bmc["vendor"], bmc["servers"]) == (origin(site), "Rackmesh", [])
    said = run("server", "pending", "--data", site.hub)
    assert origin(site) in said.out
    assert run("bmc", "scan", "--site", "two", "10.0.0.0/8", "--data", site.hub).code == 2


def test_a_server_is_accepted_by_its_bmc_and_deployed_at_its_first_boot(site: Fleet) -> None:
    site.set_bmc_secret(site.bmc_login()["password"])
    machine = site.machines()[0]
    words = ("server", "accept", "srv1", "--site", "two", "--bmc", machine["bmc"],
             "--bmc-secret", "rack-bmc", "--inspect", "oob")  # fmt: skip
    job = site.succeeded(site.order(*words))
    assert job["steps"][0]["evidence"]["macs"] == [machine["mac"]]
    assert site.server("srv1")["macs"] == [machine["mac"]]
    assert listed(site, "server pending") == [], "it never booted"
    assert [bmc["servers"] for bmc in listed(site, "bmc list")] == [["srv1"]]
    site.succeeded(site.deploy_order("srv1"), 120)
    assert site.disk_holds_image(0)


def test_a_file_is_imported_whole_or_not_at_all(site: Fleet) -> None:
    login, machine = site.bmc_login(), site.machines()[1]
    head = "name,mac,bmc,bmc_user,bmc_password,mode\n"
    good = f"srv2,{machine['mac']},{machine['bmc']},{login['username']},{login['password']},"
    file = site.folder / "servers.csv"
    file.write_text(f"{head}{good}monitored\nsrv1,52:54:00:00:00:99,,,,\nsrv3,zz,,,,\n")
    import_it = ("server", "import", file, "--site", "two", "--data", site.hub)
    said = run(*import_it)
    assert said.code == 2
    assert "servers.csv:3: there is a server srv1 already" in said.err
    assert "servers.csv:4: 'zz' is no MAC address" in said.err
    assert [secret["id"] for secret in listed(site, "secret list")] == ["rack-bmc"]
    file.write_text(f"{head}{good}monitored\n")
    assert "srv2" in run(*import_it, "--dry-run").out
    assert len(listed(site, "server list")) == 1
    said = run(*import_it, "--json")
    (made,) = json.loads(said.out)["item"]["servers"]
    site.succeeded(made["job"])
    assert made["secret"] == "bmc-srv2"
    row = site.server("srv2")
    assert (row["administration"], row["state_text"]) == ("monitored", "active (monitored)")
    for kept in site.folder.rglob("*"):
        theirs = kept.relative_to(site.folder).parts[0] == site.rack.name or kept == file
        if not theirs and kept.is_file() and kept != site.image:
            assert login["password"].encode() not in kept.read_bytes(), kept


def test_what_is_monitored_is_not_touched_until_it_is_promoted(site: Fleet) -> None:
    for words in (
        ("power", "srv2", "on"), ("release", "srv2", "--yes"),
        ("deploy", "srv2", "--image", IMAGE), ("password", "srv2"),
    ):  # fmt: skip
        said = run("server", *words, "--data", site.hub)
        assert said.code != 0
        assert "monitored, so it is never powered" in said.err
    assert site.disk_is_empty(1)
    site.succeeded(site.order("server", "promote", "srv2"))
    assert site.server("srv2")["administration"] == "managed"
    site.succeeded(site.order("server", "power", "srv2", "off"))
