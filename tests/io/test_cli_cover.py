"""The command line covers the API: what every verb really asks is compared with the table."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from quart import request, websocket

from hub.api.bind import operation_of
from hub.api.upload import PATH as UPLOAD
from hub.api.upload import Uploads
from hub.app import make_app
from hub.front import WebSide
from mesh.host.local_socket import listen_local
from mesh.rest.operations import OPERATIONS
from rackmesh import cli
from tests.support.alike import ERASED
from tests.support.bmc_words import give_bmc
from tests.support.hub_bench import Bench, fill, hub_bench, second_hub

BY_PROGRAMS = {
    "getOpenapi": "read by programs: rackmesh api GET /openapi.json",
    "getHoldings": "compared by programs: rackmesh api GET /holdings",
    "getVersion": "rackmesh status says the daemon's build",
    "importBundle": "rackmesh bundle import; only nodes take it (tests/e2e/test_bundle.py)",
    "signIn": "a browser's session; the command line has the socket or a token",
    "signOut": "a browser's session",
    "getSession": "a browser's session",
    "changePassword": "of who is signed in; rackmesh account password does it for others",
}
"""Operations without a verb of their own, and why."""
MAC = "52:54:00:aa:00:00"
VERBS: tuple[tuple[str, ...], ...] = (
    ("hub", "restore-report"), ("hub", "restore-report", "--dismiss"), ("hub", "list"),
    ("mesh", "status"), ("mesh", "peers"), ("mesh", "topology"), ("mesh", "lag"),
    ("status",), ("site", "list"), ("node", "list"), ("server", "list"),
    ("server", "show", "web-1"), ("server", "inventory", "web-1"),
    ("server", "sensors", "web-1"), ("server", "events", "web-1"),
    ("server", "firmware", "web-1"), ("server", "bios", "show", "web-1"), ("server", "pending"),
    ("server", "console", "web-1", "--linger", "0"),
    ("job", "list"), ("job", "show", "j2"), ("job", "logs", "j1"), ("job", "cancel", "j2"),
    ("job", "skip", "j1", "--reason", "seen to by hand"), ("job", "hold", "j2"),
    ("job", "unhold", "j2"), ("job", "kill", "j2", "--yes"), ("job", "archive", "j1"),
    ("job", "confirm", "j1", "--done", "--reason", "seen"), ("job", "list", "--all"),
    ("hook", "list"), ("hook", "show", "ci"), ("hook", "remove", "ci"),
    ("template", "list"), ("template", "show", "seed"), ("template", "remove", "seed"),
    ("erase", "list"), ("erase", "show", ERASED["id"]),
    ("cleanup-policy", "show", "--site", "fra1"),
    ("cleanup-policy", "show", "--server", "web-1"),
    ("cleanup-policy", "set", "--site", "fra1", "--samples", "512"),
    ("cleanup-policy", "set", "--server", "web-1", "--inherit"),
    ("group", "list"), ("group", "show", "g1"), ("group", "cancel", "g1", "--yes"),
    ("group", "retry", "g1"), ("asset", "list"), ("asset", "show", "debian-12"),
    ("asset", "add", "x", "http://127.0.0.1/x"), ("asset", "want", "debian-12", "fra1"),
    ("asset", "unwant", "debian-12", "fra1"), ("asset", "clone", "debian-12", "d2"),
    ("asset", "verify", "debian-12"), ("asset", "verify"), ("asset", "gc", "--dry-run"),
    ("asset", "pin", "debian-12", "fra1"), ("asset", "unpin", "debian-12", "fra1"),
    ("asset", "gc"), ("asset", "remove", "d2"), ("token", "list"),
    ("token", "create", "--site", "fra1"), ("token", "revoke", "t0"), ("secret", "list"),
    ("bmc", "list"), ("bmc", "scan", "--site", "fra1", "10.9.0.0/24", "--port", "8443"),
    ("server", "adopt", "db-1", "--monitored", "--site", "fra1", "--mac", MAC),
    ("server", "promote", "web-1"), ("server", "reject", MAC), ("server", "restore", MAC),
    ("server", "boot-by", "web-1", "network", "--yes"),
    ("server", "power", "web-1", "web-2", "on", "--yes"), ("account", "list"),
    ("account", "show", "ann"),
    ("account", "role", "ann", "viewer"), ("account", "remove", "ann"), ("apitoken", "list"),
    ("node", "revoke", "fra1-a", "--yes"), ("node", "suspend", "fra1-a", "--yes"),
    ("node", "resume", "fra1-a"), ("node", "relay", "fra1-a"),
    ("node", "relay", "fra1-a", "--off"), ("node", "rotate-key"),
    ("apitoken", "create", "ci", "--role", "viewer"), ("apitoken", "revoke", "nope"),
)  # fmt: skip


@dataclass
class Desk:
    """A command line beside a hub, and which operations were asked for."""

    bench: Bench
    data: Path
    asked: set[str] = field(default_factory=set)

    async def run(self, *words: str, stdin: str | None = None) -> Result:
        args = [*words, "--data", str(self.data)]
        with trio.fail_after(60):
            return await trio.to_thread.run_sync(
                lambda: CliRunner().invoke(cli, args, input=stdin)
            )


@asynccontextmanager
async def desk(folder: Path) -> AsyncGenerator[Desk]:
    async with hub_bench(folder) as bench:
        fill(bench)
        bench.rows.put(
            "site:fra1", "job", "j9", kind="server.power", server="s1", group="g1",
            server_name="web-1", state="blocked", waits_for="x", steps=[],
        )  # fmt: skip
        bench.rows.put("site:fra1", "inventory", "52:54:00:00:00:00", inventory={}, at_ms=1)
        give_bmc(bench)
        bench.peers.answers["job.logs"] = lambda body: {
            "lines": [[1, 1, "a line"]] if body["after"] < 1 else []
        }
        await bench.ingest.read_all()
        app = make_app(bench.services)
        found = Desk(bench, folder)

        @app.before_request
        async def note() -> None:
            rule = request.url_rule.rule if request.url_rule else None
            operation = operation_of(request.method, rule)
            if operation is not None:
                found.asked.add(operation.id)

        @app.before_websocket
        async def note_socket() -> None:
            rule = websocket.url_rule.rule if websocket.url_rule else None
            operation = operation_of("GET", rule)
            if operation is not None:
                found.asked.add(operation.id)

        class Noted(Uploads):
            async def handle(self, scope: Any, receive: Any, send: Any) -> None:
                assert UPLOAD.match(scope["path"])
                found.asked.add("uploadAsset")
                await super().handle(scope, receive, send)

        web = WebSide(app, Noted(bench.services))
        (folder / "run").mkdir(exist_ok=True)

        async def serve(stream: Any) -> None:
            await web.serve(stream, 0)

        async with await listen_local(folder / "run" / "api.sock") as listener:
            async with trio.open_nursery() as nursery, web.running():
                nursery.start_soon(trio.serve_listeners, serve, [listener])
                yield found
                nursery.cancel_scope.cancel()


async def test_every_operation_has_a_verb(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        with_file = tmp_path / "image.raw"
        with_file.write_bytes(b"image")
        servers = tmp_path / "servers.csv"
        servers.write_text("name,mac\ndb-9,52:54:00:00:00:99\n")
        await at.run("server", "import", str(servers), "--site", "fra1")
        done = await at.run(
            "account", "add", "ann", "--role", "operator", "--password-file", "-",
            stdin="correct horse battery",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        words = "account", "password", "ann", "--password-file", "-"
        await at.run(*words, stdin="another horse battery")
        await at.run("secret", "set", "bmc-1", "--site", "fra1", stdin="value")
        words = "secret", "set", "bmc-2", "--site", "fra1", "--username", "root"
        pinned = "--bmc", "https://10.0.0.9", "--bmc-tls-sha256", "AB:" * 31 + "AB"
        done = await at.run(*words, *pinned, stdin="value")
        assert done.exit_code == 0, done.output
        seed = tmp_path / "preseed.cfg"
        seed.write_text("d-i netcfg/get_hostname string {{ hostname }}\n")
        done = await at.run("template", "add", "seed", str(seed))
        assert done.exit_code == 0, done.output
        done = await at.run("template", "render", "seed", "--server", "web-1")
        assert done.output == "d-i netcfg/get_hostname string web-1\n"
        words = "hook", "add", "ci", "--at", "before-deploy", "--secret", "hook-ci"
        done = await at.run(*words, "--webhook", "https://ci.example/started")
        assert (done.exit_code, done.stdout[-33:]) == (0, "hook ci (before-deploy) is there\n")
        await at.run("asset", "add", "local", str(with_file))
        await at.run("asset", "export", "debian-12", str(tmp_path / "out.raw"))
        for verb in ("export", "import"):
            done = await at.run("state", verb, str(tmp_path / "lab.state"))
            assert done.exit_code == 0, done.output
        at.bench.rows.put("fleet", "reference", "bare", kind="live", members=[], want=[])
        await at.bench.ingest.read_all()
        done = await at.run("bundle", "create", str(tmp_path / "x"), "--asset", "bare")
        assert done.exit_code == 0, done.output
        sealed = str(tmp_path / "hub.backup")
        await at.run("hub", "backup", sealed, "--passphrase-file", "-", stdin="word " * 6)
        second = await second_hub(at.bench.trust, tmp_path / "second")
        admitted = await at.run("hub", "root", "admit", second.identity.node_id)
        assert admitted.exit_code == 0, admitted.output
        for verb in VERBS:
            said = await at.run(*verb)
            assert "Traceback" not in said.output, (verb, said.output)
            assert said.exception is None or isinstance(said.exception, SystemExit), (
                verb, said.exception,
            )  # fmt: skip
        at.bench.services.bus.publish("job", id="j1")
        at.asked |= await follow_events(at)
        missing = OPERATIONS.keys() - at.asked - BY_PROGRAMS.keys()
        assert not missing
        assert BY_PROGRAMS.keys() <= OPERATIONS.keys()


async def follow_events(at: Desk) -> set[str]:
    """Ask for the stream as the verb does, and leave after its first event."""
    from mesh.rest.client import ApiClient, Target

    def read() -> dict[str, Any]:
        client = ApiClient(Target(socket=at.data / "run" / "api.sock"))
        try:
            return next(iter(client.events("/events")))
        finally:
            client.close()

    async def publish() -> None:
        while True:
            at.bench.services.bus.publish("job", id="j1")
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        with trio.fail_after(30):
            event = await trio.to_thread.run_sync(read)
        nursery.cancel_scope.cancel()
    assert event == {"kind": "job", "data": {"id": "j1"}}
    return {"followEvents"}


def leaves(table: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, (target, _) in table.items():
        inner = leaves(target, (*before, name)) if isinstance(target, dict) else None
        found += inner if inner is not None else [(*before, name)]
    return found


READS = [v for v in VERBS if v[-1] == "list" or v[0] == "status" or v[:2] == ("job", "show")]


@pytest.mark.parametrize("verb", [*READS, ("version",)], ids=" ".join)
async def test_json_is_a_document_with_a_schema_name(
    tmp_path: Path, verb: tuple[str, ...]
) -> None:
    async with desk(tmp_path) as at:
        if verb == ("version",):
            said = CliRunner().invoke(cli, ["version", "--json"])
        else:
            said = await at.run(*verb, "--json")
        assert said.exit_code == 0, said.output
        document = json.loads(said.stdout)
        assert document["schema"].startswith("rackmesh/")
        assert ("items" in document) == (verb[-1] == "list")


async def test_many_servers_are_named_before_they_are_hit(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        orders = at.bench.fake.orders
        words = "server", "release", "--filter", "site:fra1 name:web-*"
        said = await at.run(*words, stdin="n\n")
        assert said.exit_code == 1
        assert "2 servers: web-1 (fra1), web-2 (fra1)" in said.stderr
        assert orders == []
        said = await at.run(*words, "--yes", "--idempotency-key", "k1")
        assert said.exit_code == 0, said.output
        assert orders == [
            ({"kind": "server.release", "servers": ["s1", "s2"], "params": {}}, "uid 0")
        ]
        again = await at.run(*words, "--yes", "--idempotency-key", "k1")
        assert (again.exit_code, again.stdout) == (0, said.stdout)
        assert len(orders) == 1
        said = await at.run("server", "power", "on", "--filter", "name:nobody", "--yes")
        assert (said.exit_code, "no server passes the filter" in said.stderr) == (4, True)
        said = await at.run("server", "power", "web-1", "on", "--filter", "name:x")
        assert (said.exit_code, "either their names or --filter" in said.stderr) == (2, True)
        said = await at.run("server", "release", "--filter", " ", "--yes")
        assert (said.exit_code, "name:* means all" in said.stderr) == (2, True)
        keyed = ("--idempotency-key", "k2")
        first = await at.run("server", "power", "web-1", "on", *keyed)
        other = await at.run("server", "power", "web-1", "off", *keyed)
        assert (first.exit_code, other.exit_code) == (0, 7)


async def test_waiting_for_a_group_says_what_it_waits_for_and_ends_in_time(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as at:
        words = "server", "release", "--filter", "name:web-*", "--yes", "--wait"
        said = await at.run(*words, "--timeout", "0.2")
        assert said.exit_code == 8, said.output
        assert "group g1 is still waiting: 0 of 1 over (1 blocked); 1: x" in said.stderr
        at.bench.rows.put(
            "site:fra1", "job", "j9", kind="server.release", server="s1", group="g1",
            server_name="web-1", state="failed", error="the disk died", steps=[],
        )  # fmt: skip
        await at.bench.ingest.read_all()
        said = await at.run(*words)
        assert said.exit_code == 1
        assert "group g1 failed: web-1: the disk died" in said.stderr


async def test_lists_are_filtered_and_limited(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        said = await at.run("server", "list", "--filter", "state:*failed")
        assert [line.split()[0] for line in said.stdout.splitlines()] == ["SERVER", "db-2"]
        said = await at.run("server", "list", "--limit", "2", "--sort=-name")
        assert [line.split()[0] for line in said.stdout.splitlines()[1:]] == ["web-2", "web-1"]
        assert "there are more than these 2" in said.stderr
        said = await at.run("server", "list", "--filter", "color:red")
        assert (said.exit_code, "no filter key 'color'" in said.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    said = CliRunner().invoke(cli, ["completion", shell])
    assert said.exit_code == 0
    assert "_RACKMESH_COMPLETE" in said.output


def test_words_are_completed_without_importing_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("mesh.cli.lazy.importlib.import_module", loaded.append)
    env = {
        "_RACKMESH_COMPLETE": "bash_complete", "COMP_WORDS": "rackmesh server de",
        "COMP_CWORD": "2",
    }  # fmt: skip
    complete: Callable[..., Result] = CliRunner().invoke
    said = complete(cli, [], env=env, prog_name="rackmesh", complete_var="_RACKMESH_COMPLETE")
    assert said.output.split() == ["plain,deploy"]
    assert loaded == []


async def test_a_bmc_is_asked_and_its_words_are_told_with_their_age(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        said = await at.run("server", "sensors", "web-1")
        assert said.exit_code == 0, said.output
        assert "CPU Temp  temperature  91.5 °C  warning  > 90/100" in said.output
        assert "PSU 1     other        present  ok" in said.output
        assert "ago by node" in said.output
        said = await at.run("server", "events", "web-1")
        assert "2025-11-28 01:00:00  critical  PSU 1: <failure>  2" in said.output
        assert "clock not set        ok        log cleared       1" in said.output
        assert "older entries" in said.output
        said = await at.run("server", "firmware", "web-1", "--json")
        assert json.loads(said.output)["item"]["components"] == [
            {"name": "BIOS", "version": "2.4.1"}
        ]
        said = await at.run("server", "bios", "show", "web-1")
        assert "BootMode  Uefi  Bios" in said.output
        said = await at.run("server", "sensors", "web-2")
        assert said.exit_code == 7
        assert "web-2 has no BMC" in said.output


async def test_a_certificate_is_pinned_when_somebody_has_compared_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as at:
        password = tmp_path / "password"
        password.write_text("s3cret-word")
        words = "secret", "set", "bmc-1", "--site", "fra1", "--username", "root"
        seen = (*words, "--bmc", "https://10.0.0.9")
        file = "--value-file", str(password)
        said = await at.run(*seen, *file, stdin="n\n")
        assert said.exit_code == 1
        assert "CN=bmc-1, valid until 2030-03-17" in said.output
        assert ":".join(["AB"] * 32) in said.output
        assert not at.bench.services.secrets.list()
        said = await at.run(*seen, *file, stdin="y\n")
        assert said.exit_code == 0, said.output
        assert [one["id"] for one in at.bench.services.secrets.list()] == ["bmc-1"]
        assert "s3cret-word" not in said.output
        for more, code, why in (
            ((*seen[:-2], "--bmc-tls-sha256", "12"), 2, "64 hexadecimal"),
            (seen, 2, "--value-file FILE"),
            ((*seen, "--bmc-tls-sha256", "0" * 64), 7, "not the certificate"),
            (("secret", "set", "x", "--site", "fra1", "--bmc", "https://h"), 2, "--username"),
        ):
            said = await at.run(*more, stdin="value")
            assert said.exit_code == code, said.output
            assert why in said.output
