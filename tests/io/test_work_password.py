"""The BMC's new password: made here, sealed first, set, and only then the one that counts."""

import json
from pathlib import Path

import pytest

from mesh.errors import CodecError
from mesh.proto import tables
from mesh.proto.enrol import check_bmc
from mesh.secrets import read_secret
from node.work.logins import ALPHABETS, PASSWORD_CHARS, new_password
from tests.support.work_machine import Crash
from tests.support.work_site import WorkSite


async def change(site: WorkSite) -> str:
    return await site.give("server.password", {"server": site.server})


def login_of(site: WorkSite) -> tuple[str, str]:
    """Return the id that the server names, and its password as this node opens it."""
    row = site.store.get(site.scope, tables.SERVER, site.server)
    secret = row.body["bmc"]["secret"]
    login = json.loads(read_secret(site.store, site.org.register, site.node, secret))
    return secret, login["password"]


async def test_the_bmc_gets_a_password_that_the_site_alone_knows(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.password = "bmc1"
        job = await site.end(await change(site))
        assert (job["state"], job["error"]) == ("succeeded", None)
        secret, password = login_of(site)
        assert secret.startswith("bmc-srv1-")
        assert site.bmc.password == password != "bmc1"
        assert job["steps"][0]["evidence"] == {"secret": secret, "instead": "bmc1"}
        assert job["steps"][2]["evidence"]["servers"] == ["srv1"]
        assert (await site.end(await site.power(True)))["state"] == "succeeded"
        held = tmp_path.rglob("state.db*")
        assert not [path for path in held if password.encode() in path.read_bytes()]


async def test_changed_twice_the_first_new_one_is_gone_too(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.password = "bmc1"
        await site.end(await change(site))
        first = login_of(site)
        job = await site.end(await change(site))
        assert job["steps"][0]["evidence"]["instead"] == first[0]
        assert login_of(site)[1] == site.bmc.password != first[1]


async def test_a_server_without_a_bmc_is_refused_in_one_sentence(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        await site.accept(bmc=False)
        with pytest.raises(Exception, match="has no BMC, so there is no password to change"):
            await change(site)


async def test_a_bmc_that_refuses_keeps_its_password_and_the_server_its_secret(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.password = "somebody changed it"
        job = await site.end(await change(site))
        assert job["state"] == "failed"
        assert "was refused" in job["error"]
        row = site.store.get(site.scope, tables.SERVER, site.server)
        assert row.body["bmc"]["secret"] == "bmc1"


async def one_life(site: WorkSite, order: bytes) -> bool:
    """Give the order (again) and live until its job has ended, or until the node is killed."""
    try:
        async with site.running(machine=False):
            await site.end((await site.work.submit(order))[0])
            return True
    except* Crash:
        site.cut.at = None
    return False


async def changed_killed_at(path: Path, at: int | None) -> int:
    """Change with the node killed at one boundary; return how many boundaries there were."""
    site = WorkSite(path)
    async with site.running():
        await site.accept()
        site.bmc.password = "bmc1"
        order = site.order("server.password", {"server": site.server})
    site.cut.count, site.cut.at = 0, at
    while not await one_life(site, order):
        pass
    boundaries = site.cut.count
    site.cut.at = None
    async with site.running(machine=False):
        (row,) = [r.body for r in site.store.rows(site.scope, tables.JOB)
                  if r.body["kind"] == "server.password"]  # fmt: skip
        assert row["state"] == "succeeded", row
        assert login_of(site)[1] == site.bmc.password != "bmc1"
    return boundaries


async def test_killed_at_any_write_or_order_nobody_is_locked_out(tmp_path):
    boundaries = await changed_killed_at(tmp_path / "whole", None)
    assert boundaries > 12
    for at in range(1, boundaries + 1):
        await changed_killed_at(tmp_path / str(at), at)


def test_a_password_has_characters_of_each_kind_and_fits_every_bmc():
    made = {new_password() for _ in range(200)}
    assert len(made) == 200
    for text in made:
        assert len(text) == PASSWORD_CHARS
        assert all(set(text) & set(kind) for kind in ALPHABETS)


async def test_a_server_that_rotates_gets_a_password_when_it_is_enrolled_and_released(tmp_path):
    async with WorkSite(tmp_path).running() as site:
        site.bmc.password = "bmc1"
        params = site.accept_params(True)
        params["bmc"] = {**params["bmc"], "rotate": True}
        job = await site.give("server.accept", params)
        if site.bmc.power == "off":
            site.bmc.switch("on")
        assert (await site.end(job))["state"] == "succeeded"
        enrolled = login_of(site)
        assert enrolled[1] == site.bmc.password != "bmc1"
        job = await site.give("server.release", {"server": site.server})
        row = await site.end(job)
        assert (row["state"], row["error"]) == ("succeeded", None)
        assert [s["id"] for s in row["steps"]][-3:] == ["seal", "password", "switch"]
        released = login_of(site)
        assert released[1] == site.bmc.password != enrolled[1]
        assert released[0] != enrolled[0]


@pytest.mark.parametrize(
    ("bmc", "words"),
    [
        ({"url": "https://10.0.0.9", "rotate": True}, "only with bmc.secret"),
        ({"url": "https://10.0.0.9", "secret": "s", "rotate": 1}, "neither true nor false"),
    ],
)
def test_what_cannot_be_rotated_is_refused_in_one_sentence(bmc, words):
    with pytest.raises(CodecError, match=words):
        check_bmc(bmc)
