"""Installers on a real store: their answers are made when asked for, and go out once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mesh.proto import tables
from mesh.proto.order import NORMAL, OrderRefused, check_params, order_class
from mesh.proto.template_text import digest
from node.boot.ports import Refusal
from node.work.boot_desk import BootDesk
from tests.support.work_machine import IP, MAC, Agent
from tests.support.work_site import CutStore, WorkSite, step

KERNEL, INITRD = ("b3:" + digit * 64 for digit in "12")
PLAIN = "host {{ hostname }} at {{ address }} via {{ gateway }}\ncall {{ phone_url }}\n"
SECRET = PLAIN + "password {{ secret('install-root') }}\n"


def installer(text: str, form: str = "preseed", **given: str) -> dict[str, Any]:
    files = [
        {"role": "kernel", "name": "vmlinuz", "asset": KERNEL},
        {"role": "initrd", "name": "initrd", "asset": INITRD},
    ]
    answers = {
        "template": "seed", "format": form, "digest": digest(form, text), "vars": given,
    }  # fmt: skip
    return {"kind": "installer", "cmdline": "console=ttyS0", "files": files, "answers": answers}


async def keep(site: WorkSite, text: str, form: str = "preseed") -> None:
    body = {"name": "seed", "format": form, "text": text}
    await site.store.write(lambda tx: tx.put(tables.FLEET, tables.TEMPLATE, "seed", body))
    subnet = {"router": "10.77.0.254", "dns": ["10.77.0.53"]}
    await site.store.write(lambda tx: tx.put(site.scope, tables.SUBNET, "10.77.0.0/24", subnet))


async def accept(site: WorkSite, desk: BootDesk, mine: bool = False) -> None:
    params = {"machine": MAC, "name": "srv1", "server": site.server, "bmc": None}
    await Agent(desk, None, site.machine.hardware).hello()
    give = site.mine if mine else site.give
    await site.end(await give("server.accept", params))


async def install(site: WorkSite, what: dict[str, Any], mine: bool = False) -> str:
    params = {"server": site.server, "image": "di", "hostname": "web1", "boot": what}
    job = await (site.mine if mine else site.give)("server.deploy", params)
    await site.until(lambda: step(site.job(job), "booted").get("state") == "running")
    return job


async def capability(desk: BootDesk) -> str:
    script = await desk.script_for(MAC, IP)
    assert isinstance(script, str)
    found = re.search(r"/answers/v1/([^/]+)/", script)
    assert found is not None, script
    return found[1]


def all_rows(site: WorkSite) -> str:
    rows = [site.store.rows(site.scope, t) for t in (tables.JOB, tables.SERVER, tables.ORDER)]
    return json.dumps([row.body for some in rows for row in some], default=repr)


async def test_secrets_go_out_once_and_the_job_says_who_asked_again(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    site.opens[site.node.node_id] = {"install-root": 1}
    async with site.running(machine=False):
        desk = site.need_desk()
        await keep(site, SECRET)
        await accept(site, desk)
        job = await install(site, installer(SECRET))
        script = await desk.script_for(MAC, IP)
        words = (
            "quiet auto=true priority=critical preseed/url=http://10.77.0.1:8470/answers/v1/"
        )
        assert words in str(script)
        cap = await capability(desk)

        refused = await desk.answers(cap, "preseed.cfg", "10.77.0.66")
        assert isinstance(refused, Refusal)
        assert "not bound to that machine" in refused.sentence
        other = await desk.answers(cap, "ks.cfg", IP)
        assert isinstance(other, Refusal)
        assert other.status == 404

        text = await desk.answers(cap, "preseed.cfg", IP)
        assert isinstance(text, str)
        assert "host web1 at 10.77.0.101 via 10.77.0.254" in text
        assert "password install-root\n" in text, "the login's password of the test site"
        assert "call http://10.77.0.1:8470/phone/v1/" in text
        again = await desk.answers(cap, "preseed.cfg", IP)
        assert isinstance(again, Refusal)
        assert (again.status, "went out once" in again.sentence) == (410, True)
        await site.until(
            lambda: "asked for again from" in str(site.job(job).get("waits_for")), 30
        )
        assert "sanboot" in str(await desk.script_for(MAC, IP)), "it is not installed again"

        phone = text.split("/phone/v1/")[1].split()[0]
        assert phone not in all_rows(site)
        assert (await desk.phone_in(phone, {}, IP))[0] == 200
        assert (await site.end(job))["state"] == "succeeded"
        row = site.server_row()
        assert (row["state"], row["image"], row["boot"]) == ("active", "di", None)
        assert (row["cleaned"], row["hostname"]) == (False, "web1")
        late = await desk.answers(cap, "preseed.cfg", IP)
        assert isinstance(late, Refusal)
        assert "not being installed so any more" in late.sentence


async def test_without_secrets_it_may_be_read_again_and_started_is_heard(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running(machine=False) as site:
        desk = site.need_desk()
        await keep(site, PLAIN, "autoinstall")
        await accept(site, desk)
        job = await install(site, installer(PLAIN, "autoinstall"))
        cap = await capability(desk)
        for _ in range(2):
            assert isinstance(await desk.answers(cap, "user-data", IP), str)
        assert f"instance-id: {job}-1" in str(await desk.answers(cap, "meta-data", IP))
        assert await desk.answers(cap, "vendor-data", IP) == ""
        assert await desk.answers(cap, "started", IP) == "go on\n"
        await site.until(lambda: "installs itself" in str(site.job(job).get("waits_for")))


async def test_a_secret_that_is_not_here_and_a_changed_template_are_said(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running(machine=False) as site:
        desk = site.need_desk()
        await keep(site, SECRET)
        await accept(site, desk)
        job = await install(site, installer(SECRET))
        cap = await capability(desk)
        refused = await desk.answers(cap, "preseed.cfg", IP)
        assert isinstance(refused, Refusal)
        assert "no secret 'install-root'" in refused.sentence
        await site.until(lambda: "no secret" in str(site.job(job).get("waits_for")))
        await keep(site, SECRET + "more\n")
        refused = await desk.answers(cap, "preseed.cfg", IP)
        assert isinstance(refused, Refusal)
        assert (refused.status, "changed after the order" in refused.sentence) == (409, True)


async def test_another_node_asks_the_runner_before_secrets_leave(tmp_path: Path) -> None:
    site = WorkSite(tmp_path)
    async with site.running(machine=False):
        second = site.org.admit("node2")
        site.opens[second.node_id] = {"install-root": 1}
        site.peers.witness = second.node_id
        work = site.build(CutStore(site.store, site.cut, schema=False), second)
        other = BootDesk(work, site.is_bound)
        handlers = site.need_desk().rpc_handlers()
        site.peers.nodes = {site.node.node_id: handlers, second.node_id: {}}
        await keep(site, SECRET)
        await accept(site, other, mine=True)
        job = await install(site, installer(SECRET), mine=True)
        cap = await capability(other)
        text = await other.answers(cap, "preseed.cfg", IP)
        assert isinstance(text, str)
        assert "password install-root" in text
        again = await other.answers(cap, "preseed.cfg", IP)
        assert isinstance(again, Refusal)
        assert again.status == 410
        site.peers.nodes = {}
        assert site.job(job)["net_boot"]["answers_again"] == IP


@pytest.mark.parametrize("capability", ["", "x", "a" * 300])
async def test_a_wrong_capability_gets_a_sentence(tmp_path: Path, capability: str) -> None:
    async with WorkSite(tmp_path).running(machine=False) as site:
        desk = site.need_desk()
        await keep(site, PLAIN)
        await accept(site, desk)
        job = await install(site, installer(PLAIN))
        about = site.server, job, 1, site.clock.now_ms()
        media = site.work.capabilities.mint("media:", *about)
        old = site.work.capabilities.mint("answers:", site.server, job, 7, about[3])
        for wrong in (capability, str(media), str(old)):
            refused = await desk.answers(wrong, "preseed.cfg", IP)
            assert isinstance(refused, Refusal)
            assert refused.status == 403


def test_an_installer_destroys_and_names_its_template() -> None:
    server = "01890000-0000-7000-8000-000000000001"
    boot = installer(PLAIN)
    params = {"server": server, "image": "di", "hostname": "h", "boot": boot}
    check_params("server.deploy", params)
    assert order_class("server.deploy", params, None) == "destructive"
    assert order_class("server.deploy", params, server_cleaned=True) == NORMAL
    for wrong in (None, {}, {**boot["answers"], "digest": "x"}, {**boot["answers"], "vars": 1}):
        with pytest.raises(OrderRefused, match="cannot be carried out"):
            check_params("server.deploy", {**params, "boot": {**boot, "answers": wrong}})
