"""Hooks of a job against real services: HTTPS on loopback, OpenSSH's sshd, ansible."""

import hashlib
import hmac
import json
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh.errors import Refused
from mesh.proto.hook import Hook, read_hook
from node.hooks.desk import HookDesk, HookTools
from node.hooks.outcome import HookFailed, HookUnsure
from node.hooks.programs import work_folder
from tests.support.hook_hosts import (
    OK,
    SshHost,
    WebhookHost,
    hook_folders,
    need_sshd,
    new_key,
    ssh_host,
    status,
    webhook_host,
)

KEY = b"signing key of the hook"
JOB: dict[str, Any] = {
    "id": "job1", "server": "s1", "server_name": "web1", "attempt": 2,
    "params": {"hostname": "www", "image": "debian", "ssh_keys": ["not for hooks"]},
}  # fmt: skip


class Desk:
    """A hook desk with secrets of its own, and what it wrote into the log."""

    def __init__(self, folder: Path) -> None:
        self.secrets: dict[str, bytes] = {"hook-key": KEY}
        self.lines: list[str] = []
        self.assets: dict[str, bytes] = {}
        tools = HookTools(secret=self.secret, folder=folder / "hooks", asset=self.asset)
        (folder / "hooks").mkdir(exist_ok=True)
        self.desk = HookDesk(
            tools, "lab", lambda _job, _now, line: self.lines.append(line), int
        )

    def secret(self, name: str) -> bytes:
        if name not in self.secrets:
            raise Refused(f"this node has no secret {name!r}")
        return self.secrets[name]

    async def asset(self, name: str, most: int) -> bytes | None:
        return self.assets[name][:most] if name in self.assets else None

    async def do(self, hook: Hook, **server: Any) -> dict[str, Any]:
        with trio.fail_after(60):
            return await self.desk.act("hook-1", hook, JOB, server)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    with hook_folders(monkeypatch) as found:
        yield found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# -- webhooks --------------------------------------------------------------------------------


def webhook(host: WebhookHost, **more: Any) -> Hook:
    body = {
        "name": "ci", "point": "after-deploy", "kind": "webhook", "url": host.url,
        "pin": host.pin, "secret": "hook-key",
    }  # fmt: skip
    return read_hook({**body, **more})


@pytest.fixture
async def web(tmp_path: Path) -> AsyncGenerator[WebhookHost]:
    async with webhook_host(tmp_path) as host:
        yield host


async def test_a_webhook_is_signed_and_has_one_delivery_id_for_all_tries(
    desk: Desk, web: WebhookHost
) -> None:
    web.answers = [status(503), OK]
    with pytest.raises(HookFailed, match=r"127\.0\.0\.1:\d+ answered 503") as failed:
        await desk.do(webhook(web))
    assert failed.value.passing
    evidence = await desk.do(webhook(web), ip="10.0.0.7")
    assert evidence == {"status": 200, "delivery": "job1-hook-1", "first": "taken"}
    first, second = web.asked
    for asked in (first, second):
        made = hmac.new(KEY, asked.body, hashlib.sha256).hexdigest()
        assert asked.headers["x-rackmesh-signature"] == f"sha256={made}"
        assert asked.headers["idempotency-key"] == "job1-hook-1"
        assert asked.headers["x-rackmesh-delivery"] == "job1-hook-1"
    said = json.loads(second.body)
    assert said.pop("time").endswith("+00:00")
    assert said == {
        "event": "after-deploy", "hook": "ci", "server": "web1", "server_id": "s1",
        "job": "job1", "attempt": 2, "site": "lab", "hostname": "www", "image": "debian",
        "ip": "10.0.0.7", "delivery": "job1-hook-1",
    }  # fmt: skip


async def test_nothing_is_sent_to_a_certificate_that_is_not_the_right_one(
    desk: Desk, web: WebhookHost
) -> None:
    with pytest.raises(HookFailed, match="which is not the pinned one") as failed:
        await desk.do(webhook(web, pin="ab" * 32))
    assert not failed.value.passing
    with pytest.raises(HookFailed, match="certificate verify failed"):
        await desk.do(replace(webhook(web), pin=None))
    assert web.asked == []


async def test_redirects_are_not_followed_and_a_refusal_is_for_good(
    desk: Desk, web: WebhookHost
) -> None:
    web.answers = [status(307, f"Location: {web.url}/other"), status(401), status(429)]
    with pytest.raises(HookFailed, match="307: redirects are not followed") as failed:
        await desk.do(webhook(web))
    assert (failed.value.passing, len(web.asked)) == (False, 1)
    for code, passing in ((401, False), (429, True)):
        with pytest.raises(HookFailed, match=f"answered {code}") as failed:
            await desk.do(webhook(web))
        assert failed.value.passing is passing


async def test_of_an_endless_answer_the_status_counts(desk: Desk, web: WebhookHost) -> None:
    sent = [0]

    async def endless(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            sent[0] += 4096

    web.answers = [endless]
    evidence = await desk.do(webhook(web))
    assert (evidence["status"], len(evidence["first"])) == (200, 160)
    assert sent[0] < 64 << 20


async def test_headers_without_end_and_silence_end_at_the_limits(
    desk: Desk, web: WebhookHost
) -> None:
    async def headers(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"X-More: " + b"x" * 4000 + b"\r\n")

    async def silence(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async def garbage(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"\x00\xff nothing of HTTP\r\n\r\n")

    web.answers = [headers, silence, garbage]
    with pytest.raises(HookFailed, match="cannot be asked"):
        await desk.do(webhook(web))
    with pytest.raises(HookFailed, match="did not answer within 1 s") as failed:
        await desk.do(webhook(web, timeout_s=1))
    assert failed.value.passing
    with pytest.raises(HookFailed, match="cannot be asked"):
        await desk.do(webhook(web))


async def test_what_an_answer_repeats_of_the_secret_is_taken_out(
    desk: Desk, web: WebhookHost
) -> None:
    web.answers = [status(200, body=b"\x1b[31mgot " + KEY + b" thanks\r\nmore")]
    assert (await desk.do(webhook(web)))["first"] == " [31mgot [redacted] thanks"


async def test_a_secret_that_is_not_here_is_one_sentence(desk: Desk, web: WebhookHost) -> None:
    with pytest.raises(HookFailed, match="this node has no secret 'hook-other'") as failed:
        await desk.do(webhook(web, secret="hook-other"))
    assert not failed.value.passing


# -- ssh -------------------------------------------------------------------------------------


@asynccontextmanager
async def ssh_desk(folder: Path) -> AsyncGenerator[tuple[Desk, SshHost]]:
    need_sshd()
    desk = Desk(folder)
    async with ssh_host(folder / "sshd") as host:
        desk.secrets["hook-ssh"] = host.key
        yield desk, host


def command(host: SshHost, text: str, **more: Any) -> Hook:
    body = {
        "name": "reg", "point": "after-deploy", "kind": "ssh", "command": text,
        "secret": "hook-ssh", "port": host.port, "user": host.user, "host": "127.0.0.1",
        "host_key": host.host_key,
    }  # fmt: skip
    return read_hook({**body, **more})


async def test_a_command_runs_on_a_host_whose_key_is_the_given_one(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        said = await desk.do(command(host, "echo one; echo two; echo three >&2"))
        assert (said["exit"], said["host"]) == (0, "127.0.0.1")
        assert said.keys() == {"exit", "host", "first", "last"}
        assert sorted(desk.lines) == ["| one", "| three", "| two"], "in any order"
        with pytest.raises(HookFailed, match=r"ended with exit code 7: it is broken") as failed:
            await desk.do(command(host, "echo it is broken >&2; exit 7", tries=3))
        assert not failed.value.passing, "it ran, and may not run twice"
        with pytest.raises(HookFailed, match="exit code 7") as failed:
            await desk.do(command(host, "exit 7", repeatable=True))
        assert failed.value.passing


async def test_the_server_itself_is_known_by_the_key_that_it_reported(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        own = replace(command(host, "echo ok"), host=None, host_key=None)
        system = {"ip": "127.0.0.1", "host_keys": [f"{host.host_key} root@web1"]}
        assert (await desk.do(own, system=system))["first"] == "ok"
        system["host_keys"] = [new_key()[1]]
        with pytest.raises(HookFailed, match="Host key verification failed") as failed:
            await desk.do(own, system=system)
        assert failed.value.passing, "nothing was tried"
        with pytest.raises(HookFailed, match="web1 reported no host key"):
            await desk.do(own, system={"ip": "127.0.0.1", "host_keys": ["nonsense"]})
        with pytest.raises(HookFailed, match="nobody knows the address of web1"):
            await desk.do(own)


async def test_a_wrong_host_key_or_user_key_ends_before_the_command(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        mark = tmp_path / "mark"
        with pytest.raises(HookFailed, match="Host key verification failed"):
            await desk.do(command(host, f"touch {mark}", host_key=new_key()[1]))
        desk.secrets["hook-ssh"] = new_key()[0]
        with pytest.raises(HookFailed, match="Permission denied") as failed:
            await desk.do(command(host, f"touch {mark}"))
        assert failed.value.passing
        desk.secrets["hook-ssh"] = b"no key at all"
        with pytest.raises(HookFailed, match="is no private key without a passphrase"):
            await desk.do(command(host, f"touch {mark}"))
        assert not mark.exists()


async def test_a_command_that_does_not_end_is_stopped_and_its_outcome_is_unknown(
    tmp_path: Path,
) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        slow = command(host, "echo begun; exec sleep 15", timeout_s=2)
        with pytest.raises(HookUnsure, match="within 2 s; nobody knows whether it was done"):
            await desk.do(slow)
        assert desk.lines == ["| begun"]
        with pytest.raises(HookFailed) as failed:
            await desk.do(replace(slow, repeatable=True))
        assert failed.value.passing
        with pytest.raises(HookUnsure):
            await desk.do(command(host, "kill -9 $PPID"))


async def test_huge_output_is_bounded_and_secrets_in_it_are_taken_out(tmp_path: Path) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        (tmp_path / "key").write_bytes(host.key)
        text = f"cat {tmp_path}/key; echo api_token=abcdef; head -c 3000000 /dev/zero | tr"
        said = await desk.do(command(host, text + r" '\0' a; seq 100000; printf 'end\a\n'"))
        assert said["last"] == "end"
        assert len(desk.lines) <= 81
        assert max(map(len, desk.lines)) <= 402
        everything = "\n".join(desk.lines)
        assert "[redacted]" in everything
        assert "abcdef" not in everything
        assert not any(line in everything for line in host.key.decode().split("\n") if line)
        assert "[more, not kept]" in everything


async def test_the_private_key_is_in_no_argument_environment_or_file(
    tmp_path: Path, folders: Path
) -> None:
    async with ssh_desk(tmp_path) as (desk, host):
        look = (
            "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/cmdline; tr '\\0' '\\n' <"
            f" $p/environ; done 2>/dev/null; cat {folders}/rackmesh-hook-*/* 2>/dev/null"
        )
        out = tmp_path / "seen"
        await desk.do(command(host, f"({look}) > {out}; true"))
        seen = out.read_bytes()
        assert b"HostKeyAlias=rackmesh-hook" in seen, "the client itself was seen"
        for line in host.key.split(b"\n")[1:-2]:
            assert line not in seen
        assert not list(folders.glob("rackmesh-hook-*")), "nothing outlives the run"


async def test_what_a_killed_node_left_is_removed_and_nothing_else(
    tmp_path: Path, folders: Path
) -> None:
    async with work_folder() as living:
        for path in (living, left := folders / "rackmesh-hook-left"):
            path.mkdir(exist_ok=True)
            (path / "known_hosts").write_text("x")
            os.utime(path, (1, 1))
        (young := folders / "rackmesh-hook-young").mkdir()
        (link := folders / "rackmesh-hook-link").symlink_to(tmp_path)
        async with work_folder() as other:
            assert other != living
            there = {path for path in (living, left, young, link) if path.exists()}
            assert there == {living, young, link}
            assert tmp_path.exists()


# -- ansible ---------------------------------------------------------------------------------

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: {mark}
        content: "{{{{ rackmesh_event }}}} of {{{{ inventory_hostname }}}}"
"""

FAILS = "- hosts: all\n  gather_facts: false\n  tasks: [{fail: {}}]\n"


def play(**more: Any) -> Hook:
    body = {
        "name": "setup", "point": "after-deploy", "kind": "ansible", "playbook": "site.yml",
        "secret": "hook-ssh", "timeout_s": 60,
    }  # fmt: skip
    return read_hook({**body, **more})


@pytest.mark.slow
async def test_a_playbook_runs_against_the_one_server(tmp_path: Path) -> None:
    if shutil.which("ansible-playbook") is None:
        pytest.skip("ansible is missing: apt-get install ansible-core")
    async with ssh_desk(tmp_path) as (desk, host):
        mark = tmp_path / "mark"
        desk.assets["b3:" + "1" * 64] = PLAY.format(mark=mark).encode()
        (tmp_path / "hooks" / "site.yml").write_text(FAILS)
        system = {"ip": "127.0.0.1", "host_keys": [host.host_key]}
        hook = play(
            playbook=None, asset="site", asset_id="b3:" + "1" * 64, port=host.port,
            user=host.user,
        )  # fmt: skip
        said = await desk.do(hook, system=system)
        assert said["exit"] == 0
        assert "failed=0" in said["last"]
        assert mark.read_text() == "after-deploy of web1"
        with pytest.raises(HookFailed, match="web1 ended with exit code 2") as failed:
            await desk.do(play(connection="local", secret=None))
        assert not failed.value.passing


async def test_what_is_missing_for_a_playbook_is_one_sentence(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = play(connection="local", secret=None)
    with pytest.raises(HookFailed, match=r"site\.yml cannot be read: No such file"):
        await desk.do(hook)
    path = tmp_path / "hooks" / "site.yml"
    os.symlink("/etc/passwd", path)
    with pytest.raises(HookFailed, match="cannot be read"):
        await desk.do(hook)
    path.unlink()
    path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(HookFailed, match="longer than 1048576 bytes"):
        await desk.do(hook)
    path.write_text("- hosts: all\n")
    monkeypatch.setattr("node.hooks.programs.PATH", str(tmp_path))
    with pytest.raises(HookFailed, match="this node has no ansible-playbook") as failed:
        await desk.do(hook)
    assert not failed.value.passing
