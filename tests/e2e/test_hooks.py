"""Hooks through real processes: defined at the hub, done by a node that is killed meanwhile."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from demo_processes import rackmesh, wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run
from tests.support.hook_hosts import SshHost, WebhookHost, need_sshd, ssh_host, webhook_host

pytestmark = pytest.mark.slow
KEY = "the key of the signatures"


def define(site: Fleet, web: WebhookHost, host: SshHost, command: str) -> None:
    """Define a webhook before, one after, and a command between the two."""
    at_hub = ("--data", site.hub)
    rackmesh("secret", "set", "hook-ci-two", "--site", "two", *at_hub, stdin=KEY)
    rackmesh("secret", "set", "hook-ssh", "--site", "two", *at_hub, stdin=host.key.decode())
    words = ("--webhook", web.url, "--pin", web.pin, "--secret", "hook-ci-{site}")
    rackmesh("hook", "add", "a-tell", "--at", "before-deploy", *words, *at_hub)
    rackmesh("hook", "add", "z-tell", "--at", "after-deploy", *words, *at_hub)
    public = site.folder / "key.pub"
    public.write_text(host.host_key)
    rackmesh(
        "hook", "add", "join", "--at", "after-deploy", "--ssh", command, "--site", "two",
        "--host", "127.0.0.1", "--port", str(host.port), "--user", host.user,
        "--host-key", f"@{public}", "--secret", "hook-ssh", *at_hub,
    )  # fmt: skip
    words = ("--at", "after-deploy", "--webhook", "http://x/", "--secret", "hook-x")
    said = run("hook", "add", "x", *words, *at_hub)
    assert "url must be an https URL" in one_sentence(said)


def deploy(site: Fleet, folder: Path) -> dict[str, Any]:
    """Kill the node while the command runs, say a word, and return the job at its end."""
    began, at_hub = folder / "began", ("--data", site.hub)
    job = site.deploy_order("srv1")
    rackmesh("hook", "remove", "z-tell", *at_hub)  # the order carries it all the same
    wait_for("the command began", began.exists, 60, site.processes)
    site.kill("node-two")
    site.run_node(site.two)
    item = site.ended(job)
    assert item["state"] == "parked"
    assert "nobody knows whether it was done" in item["waits_for"]
    (folder / "go").touch()
    rackmesh("job", "retry", job, *at_hub)
    wait_for("the job goes on", lambda: site.job(job)["state"] != "parked", 30, site.processes)
    done = site.succeeded(job)
    assert began.read_text() == "joined\njoined\n", "once more, at a person's word"
    return dict(done)


def story(folder: Path, web: WebhookHost, host: SshHost) -> None:
    with fleet(folder / "fleet", 1, 1) as site:
        site.start_hub()
        site.join("two", site.two, "node", "site-operator")
        site.run_node(site.two, "--subnet", "127.96.0.0/24")
        site.start_rack(site.two)
        site.wait_linked(site.two)
        site.accept(1)
        rackmesh("asset", "add", "demo-os", str(site.image), "--data", site.hub)
        lasts = f"for i in $(seq 300); do test -e {folder}/go && exit; sleep 0.1; done"
        define(site, web, host, f"echo joined >> {folder}/began; {lasts}")
        names = [step["name"] for step in deploy(site, folder)["steps"]]
        assert names[:2] == ["hook a-tell (webhook)", "fetch image"]
        assert names[-2:] == ["hook join (ssh)", "hook z-tell (webhook)"]

        site.order("server", "release", "srv1", "--yes")
        words = ("server", "deploy", "srv1", "--image", "demo-os", "--no-hooks")
        bare = site.order(*words)
        wait_for("it is planned", lambda: site.job(bare)["steps"], 30, site.processes)
        assert site.job(bare)["steps"][0]["name"] == "fetch image"
        inner = host.key.split(b"\n")[2]
        files = [p for at in (site.two, site.hub) for p in at.rglob("*") if p.is_file()]
        logs = [site.folder / f"{name}.log" for name in ("hub", "node-two")]
        for path in [*files, *logs]:
            held = path.read_bytes()
            assert inner not in held, path
            assert KEY.encode() not in held, path
        site.no_traceback()


async def test_a_job_parks_when_its_node_is_killed_in_a_hook_and_goes_on_at_a_word(
    tmp_path: Path,
) -> None:
    need_sshd()
    async with webhook_host(tmp_path) as web, ssh_host(tmp_path / "sshd") as host:
        await trio.to_thread.run_sync(story, tmp_path, web, host)
    told = [json.loads(asked.body) for asked in web.asked]
    assert [(t["event"], t["server"], t["site"]) for t in told] == [
        ("before-deploy", "srv1", "two"), ("after-deploy", "srv1", "two"),
    ]  # fmt: skip
    assert told[1]["ip"].startswith("127.96.0.")
    for asked in web.asked:
        made = hmac.new(KEY.encode(), asked.body, hashlib.sha256).hexdigest()
        assert asked.headers["x-rackmesh-signature"] == f"sha256={made}"
