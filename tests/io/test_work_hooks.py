"""Hooks as steps of real jobs on the real store: order, resuming, parking, and what is kept."""

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.proto import tables
from tests.support.hook_hosts import (
    OK,
    SshHost,
    WebhookHost,
    hook_folders,
    need_sshd,
    ssh_host,
    status,
    webhook_host,
)
from tests.support.work_machine import IP
from tests.support.work_site import WorkSite, step

pytestmark = pytest.mark.slow
KEY = b"signing key of the hook"
LASTS = "sleep 30"
"""What runs on when the connection ends: it is not left for long."""


@pytest.fixture
async def web(tmp_path: Path) -> AsyncGenerator[WebhookHost]:
    async with webhook_host(tmp_path) as host:
        yield host


def site_at(folder: Path) -> WorkSite:
    site = WorkSite(folder)
    site.hook_secrets["hook-key"] = KEY
    return site


def webhook(web: WebhookHost, point: str, **more: Any) -> dict[str, Any]:
    body = {
        "name": f"tell-{point}", "point": point, "kind": "webhook", "url": web.url,
        "pin": web.pin, "secret": "hook-key",
    }  # fmt: skip
    return {**body, **more}


def command(host: SshHost, text: str, **more: Any) -> dict[str, Any]:
    body = {
        "name": "reg", "point": "after-deploy", "kind": "ssh", "command": text,
        "secret": "hook-ssh", "port": host.port, "user": host.user, "host": "127.0.0.1",
        "host_key": host.host_key,
    }  # fmt: skip
    return {**body, **more}


@asynccontextmanager
async def ssh_at(folder: Path, site: WorkSite) -> AsyncGenerator[SshHost]:
    need_sshd()
    async with ssh_host(folder / "sshd") as host:
        site.hook_secrets["hook-ssh"] = host.key
        yield host


async def test_hooks_before_and_after_a_deploy_are_steps_with_evidence(
    tmp_path: Path, web: WebhookHost
) -> None:
    site, mark = site_at(tmp_path), tmp_path / "mark"
    async with ssh_at(tmp_path, site) as host, site.running():
        site.machine.phone_fields = {
            "pub_key_ed25519": f"{host.host_key} root@web1", "pub_key_rsa": "N/A",
            "hostname": "web1",
        }  # fmt: skip
        await site.accept()
        hooks = [
            webhook(web, "before-deploy"),
            command(host, f"echo registered; touch {mark}"),
            webhook(web, "after-deploy"),
        ]
        job = await site.end(await site.deploy(hooks=hooks))
        assert (job["state"], job["error"]) == ("succeeded", None)
        ids = [entry["id"] for entry in job["steps"]]
        assert (ids[:2], ids[-2:]) == (["hook-1", "fetch"], ["hook-2", "hook-3"])
        assert step(job, "hook-1")["evidence"]["status"] == 200
        said = step(job, "hook-2")["evidence"]
        assert said == {"exit": 0, "host": "127.0.0.1", "first": "registered"}
        assert mark.exists()
        told = [json.loads(asked.body) for asked in web.asked]
        assert [(t["event"], t["ip"]) for t in told] == [
            ("before-deploy", None), ("after-deploy", IP),
        ]  # fmt: skip
        assert told[1]["delivery"] == f"{job['id']}-hook-3"
        lines = [text for _, _, text in await site.work.logs(job["id"], 0)]
        assert "| registered" in lines
        assert site.server_row()["system"] == {"ip": IP, "host_keys": [host.host_key]}
        assert site.machine.cidata is not None
        assert "pub_key_ed25519" in site.machine.cidata["user_data"]
        everything = json.dumps([job, lines])
        assert KEY.decode() not in everything
        assert "PRIVATE KEY" not in everything


async def test_a_hook_that_fails_before_a_deploy_ends_it_and_nothing_was_touched(
    tmp_path: Path, web: WebhookHost
) -> None:
    site = site_at(tmp_path)
    async with site.running():
        await site.accept()
        web.answers = [status(403)]
        orders = list(site.bmc.orders)
        job = await site.end(await site.deploy(hooks=[webhook(web, "before-deploy")]))
        assert job["state"] == "failed"
        assert job["error"].startswith("hook tell-before-deploy (webhook): 127.0.0.1:")
        assert job["error"].endswith(" answered 403")
        assert (site.server_row()["state"], site.server_row()["job"]) == ("available", None)
        assert (site.bmc.orders, site.machine.disk) == (orders, "old data")
        assert len(web.asked) == 1

        web.answers = [OK]
        await site.give("job.retry", {"job": job["id"]})
        await site.until(lambda: site.job(job["id"])["state"] != "failed")
        assert (await site.end(job["id"]))["state"] == "succeeded"
        assert len({asked.headers["idempotency-key"] for asked in web.asked}) == 1


async def test_a_release_has_hooks_and_a_failure_that_counts_not_is_shown(
    tmp_path: Path, web: WebhookHost
) -> None:
    site = site_at(tmp_path)
    async with site.running():
        await site.accept()
        web.answers = [status(404), OK]
        hooks = [
            webhook(web, "before-release", on_failure="continue"),
            webhook(web, "after-release"),
        ]
        params = {"server": site.server, "hooks": hooks}
        job = await site.end(await site.give("server.release", params))
        assert job["state"] == "succeeded"
        entry = step(job, "hook-1")
        assert (entry["state"], entry["error"][-12:]) == ("skipped", "answered 404")
        assert site.server_row()["cleaned"] is True
        assert json.loads(web.asked[-1].body)["event"] == "after-release"


async def test_a_node_that_dies_in_a_webhook_sends_it_again_under_the_same_id(
    tmp_path: Path, web: WebhookHost
) -> None:
    async def silence(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    site = site_at(tmp_path)
    web.answers = [silence, OK]
    async with site.running():
        await site.accept()
        job = await site.deploy(hooks=[webhook(web, "before-deploy")])
        await site.until(lambda: web.asked)
    async with site.running():
        assert (await site.end(job))["state"] == "succeeded"
    assert len(web.asked) == 2
    assert {asked.headers["idempotency-key"] for asked in web.asked} == {f"{job}-hook-1"}


@pytest.mark.parametrize("repeatable", [False, True], ids=["once", "repeatable"])
async def test_a_node_that_dies_in_a_command_does_it_again_only_if_it_may(
    tmp_path: Path, repeatable: bool
) -> None:
    site, began = site_at(tmp_path), tmp_path / "began"
    async with ssh_at(tmp_path, site) as host:
        text = f"echo x >> {began}; test $(wc -l < {began}) -gt 1 || {LASTS}"
        hook = command(host, text, repeatable=repeatable)
        async with site.running():
            await site.accept()
            job = await site.deploy(hooks=[{**hook, "point": "before-deploy"}])
            await site.until(lambda: began.exists() and began.read_text())
        async with site.running():
            row = await site.end(job)
            assert row["state"] == ("succeeded" if repeatable else "parked")
            assert began.read_text() == ("x\nx\n" if repeatable else "x\n")
            if not repeatable:
                assert "nobody knows whether it was done" in row["waits_for"]
                await site.give("job.retry", {"job": job})
                await site.until(lambda: site.job(job)["state"] != "parked")
                assert (await site.end(job))["state"] == "succeeded"
                assert began.read_text() == "x\nx\n", "a person's word"


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    with hook_folders(monkeypatch) as found:
        yield found


async def test_a_cancelled_job_stops_its_hook(tmp_path: Path, folders: Path) -> None:
    site = site_at(tmp_path)
    async with ssh_at(tmp_path, site) as host, site.running():
        await site.accept()
        hook = command(host, f"echo begun; {LASTS}", point="before-deploy")
        job = await site.deploy(hooks=[hook])
        await site.until(lambda: list(folders.glob("rackmesh-hook-*/connected")))
        await site.give("job.cancel", {"job": job})
        row = await site.end(job)
        assert row["error"] == "cancelled by ann@hub"
        assert site.server_row()["state"] == "available"
        await site.until(lambda: not list(folders.glob("rackmesh-hook-*")))


async def test_playbooks_of_open_orders_are_kept_in_the_cache(
    tmp_path: Path, web: WebhookHost
) -> None:
    asset = "b3:" + "7" * 64
    site = site_at(tmp_path)
    site.assets.waiting = "waits"
    async with site.running():
        await site.accept()
        play = {
            "name": "play", "point": "before-deploy", "kind": "ansible", "asset": "site",
            "asset_id": asset, "connection": "local",
        }  # fmt: skip
        job = await site.deploy(hooks=[play])
        await site.until(lambda: step(site.job(job), "hook-1-fetch").get("state") == "running")
        assert asset in site.work.assets_in_use()
        row = site.store.get(site.scope, tables.JOB, job)
        assert row is not None
        assert site.server_row()["state"] == "deploying"
