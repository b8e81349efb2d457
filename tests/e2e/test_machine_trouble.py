"""Machines and BMCs that do not do as they should: the job says so in one sentence."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
import trio
from demo_processes import RACKMESH, rackmesh, wait_for

from tests.support.fleet import Fleet, one_sentence, run, small_image, until
from tests.support.hostile_bmc import HANG, answer, hostile_bmc, on_system

FAILED = 1


@pytest.fixture
def held(site: Fleet) -> Generator[str]:
    """A deploy of srv1 that is writing its image, with the machine held still."""
    site.make_available("srv1")
    job = site.deploy_order("srv1")
    until("it writes", lambda: site.step(job, "write image")["state"] == "running")
    site.pause("rack")
    yield job
    site.go_on("rack")


@pytest.mark.slow
def test_a_machine_reset_in_the_middle_of_an_image_goes_on(site: Fleet) -> None:
    site.make_available("srv1")
    job = site.deploy_order("srv1")
    until("it writes", lambda: site.step(job, "write image")["state"] == "running")
    site.reset_machine(0)
    item = site.succeeded(job)
    assert item["attempt"] == 2, "the second attempt is shown"
    assert site.disk_holds_image(0)
    log = run("job", "logs", job, "--data", site.hub)
    assert "attempt 2" in log.out, log.out
    site.no_traceback()


def twin(site: Fleet, index: int) -> Path:
    """The folder of a rack with one machine that has the same MAC and is another machine."""
    folder = site.folder / "twin"
    folder.mkdir(exist_ok=True)
    kept = json.loads((site.rack / "rack.json").read_text())
    name = f"sim-{index + 1}"
    machine = {**kept["servers"][name], "power": True, "target": "None", "enabled": "Disabled"}
    machine |= {"name": "sim-1", "serial": "SIMTWIN", "uuid": machine["uuid"][::-1]}
    value = {**kept, "servers": {"sim-1": machine}, "bmc_port": 0}
    (folder / "rack.json").write_text(json.dumps(value))
    return folder


@pytest.mark.slow
def test_a_second_machine_with_the_same_mac_parks_the_job_and_harms_nothing(
    site: Fleet, held: str
) -> None:
    site.processes.start(
        "twin", RACKMESH, "rack", "simulate", "1", "--node-data", site.two, "--data",
        twin(site, 0), "--disk-mib", str(site.disk_mib),
    )  # fmt: skip
    try:
        item = wait_for(
            "the job is parked",
            lambda: (job := site.job(held))["state"] == "parked" and job,
            20,
            site.processes,
        )
    finally:
        site.processes.stop("twin")
    assert "srv1" in item["error"]
    shown = run("server", "list", "--data", site.hub)
    assert "srv1" in shown.out
    assert '"msg": "alarm"' in site.log("node-two")
    site.go_on("rack")
    said = run("job", "retry", held, "--wait", "--timeout", "90", "--data", site.hub)
    assert said.code == 0, said.err
    assert site.server("srv1")["state"] == "active"
    assert site.disk_holds_image(0)


@pytest.mark.slow
def test_an_image_larger_than_the_disk_fails_with_one_sentence(
    site: Fleet, tmp_path: Path
) -> None:
    site.make_available("srv2")
    big = small_image(tmp_path / "big.raw", site.disk_mib + 8, seed=2)
    rackmesh("asset", "add", "too-big", big, "--data", site.hub)
    wait_for("it is signed", lambda: site.get(site.two, "/assets/too-big"), 20, site.processes)
    said = run(
        "server", "deploy", "srv2", "--image", "too-big", "--wait", "--timeout", "60",
        "--data", site.hub,
    )  # fmt: skip
    assert said.code == FAILED
    for part in ("srv2", "disk", "image"):
        assert part in said.sentence
    server = site.server("srv2")
    assert server["state"] == "deploying failed"
    assert server["error"] and server["error"] in said.sentence
    job = said.sentence.split()[2]
    again = run("job", "retry", job, "--wait", "--timeout", "60", "--data", site.hub)
    assert (again.code, again.sentence) == (FAILED, said.sentence), "it is as large as before"
    site.succeeded(site.deploy_order("srv2"))
    assert site.disk_holds_image(1)


def test_a_bmc_that_refuses_the_password_is_named(site: Fleet) -> None:
    site.set_bmc_secret("wrong-password")
    try:
        before = site.server("srv3")["state"]
        said = run(
            "server", "power", "srv3", "off", "--wait", "--timeout", "60", "--data", site.hub
        )
        assert said.code == FAILED
        url = site.machines()[2]["bmc"].partition("/redfish")[0]
        assert url in said.sentence, said.sentence
        assert "password" in said.sentence
        assert "wrong-password" not in said.out + said.err + site.log("node-two")
        assert site.server("srv3")["state"] == before
    finally:
        site.set_bmc_secret(site.bmc_login()["password"])
    job = said.sentence.split()[2]
    wait_for(
        "the retried job has the new password",
        lambda: run("job", "retry", job, "--wait", "--data", site.hub).code == 0,
        30,
        site.processes,
    )


@pytest.mark.slow
async def test_a_bmc_that_hangs_or_lies_is_named_and_the_job_can_be_cancelled(
    site: Fleet,
) -> None:
    behaviour = [on_system(HANG)]

    def behave(method: str, path: str, body: bytes) -> bytes:
        return behaviour[0](method, path, body)

    async with hostile_bmc(behave) as bmc:
        name = "srv-hostile"
        await trio.to_thread.run_sync(_accept, site, name, f"{bmc.url}/redfish/v1/Systems/1")
        for bad in (HANG, answer(200, b"<html>please log in</html>"), answer(500, b"{")):
            behaviour[0] = on_system(bad)
            await trio.to_thread.run_sync(_power_fails, site, name, bmc.url)
    site.no_traceback()


def _accept(site: Fleet, name: str, url: str) -> None:
    rackmesh(
        "server", "accept", site.machines()[3]["mac"], name, "--bmc", url, "--bmc-secret",
        "rack-bmc", "--wait", "--timeout", "30", "--data", site.hub,
    )  # fmt: skip


def _power_fails(site: Fleet, name: str, url: str) -> None:
    """Order power; see the sentence while it is tried again; cancel."""
    job = site.order("server", "power", name, "on")

    def sentence() -> str | None:
        errors = [step["error"] for step in site.job(job)["steps"] if step["error"]]
        return errors[0] if errors else None

    told = wait_for("a try has failed", sentence, 30, site.processes)
    assert url in told, told
    assert site.server("srv1", site.hub) is not None, "the rest of the site goes on"
    assert run("job", "cancel", job, "--data", site.hub).code == 0
    assert site.ended(job)["state"] == "cancelled"


def test_a_bmc_that_nobody_gave_a_password_for_is_told(site: Fleet) -> None:
    said = run(
        "server", "accept", "02:00:00:00:00:01", "ghost", "--bmc-secret", "x",
        "--data", site.hub,
    )  # fmt: skip
    assert (said.code, "--bmc URL" in one_sentence(said)) == (2, True)
    said = run("server", "accept", "02:00:00:00:00:01", "ghost", "--data", site.hub)
    assert (said.code, "02:00:00:00:00:01" in one_sentence(said)) == (4, True), said.err
