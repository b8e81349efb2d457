"""The API as other programs meet it: real processes asked by curl, a shell and the commands."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

from demo_processes import RACKMESH, ROOT

from tests.support.fleet import Fleet, run, until


def curl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "-sS", "-m", "20", *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )


def at_socket(data: Path, path: str, *words: str) -> str:
    socket = ("--unix-socket", data / "run" / "api.sock")
    return curl(*socket, *words, f"http://rackmesh{path}").stdout


def test_hub_and_node_describe_themselves_to_programs(site: Fleet) -> None:
    for data, role in ((site.hub, "hub"), (site.two, "node")):
        described = json.loads(at_socket(data, "/api/v1/openapi.json"))
        assert described["info"]["title"] == f"Rackmesh {role}"
        assert "/groups/{group}" in described["paths"]
        assert at_socket(data, "/readyz") == "ready\n"
        metrics = at_socket(data, "/metrics").splitlines()
        assert any(line.startswith("rackmesh_servers{state=") for line in metrics)
        resident = next(m for m in metrics if m.startswith("process_resident_memory_bytes"))
        assert 1 << 20 < float(resident.split()[1]) < 96 << 20
        refused = json.loads(at_socket(data, "/api/v1/servers?filter=color:red"))
        assert (refused["status"], refused["code"]) == (400, "bad-request")
    assert json.loads(at_socket(site.two, "/api/v1/tokens"))["hint"]


def test_a_repeated_request_over_the_port_gives_the_same_job(site: Fleet) -> None:
    token = (site.hub / "api-token").read_text().strip()
    body = json.dumps({"kind": "server.power", "server": "srv1", "params": {"on": False}})
    words = (
        "-k", "-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json",
        f"https://127.0.0.1:{site.hub_port}/api/v1/orders",
    )  # fmt: skip
    first = curl("-H", "Idempotency-Key: once", "-d", body, *words).stdout
    assert curl("-H", "Idempotency-Key: once", "-d", body, *words).stdout == first
    site.succeeded(json.loads(first)["item"]["job"])
    other = body.replace("srv1", "srv2")
    refused = json.loads(curl("-H", "Idempotency-Key: once", "-d", other, *words).stdout)
    assert (refused["status"], refused["code"]) == (422, "key-reused")


def test_a_group_is_one_thing_at_the_hub_and_at_the_node(site: Fleet) -> None:
    words = ("server", "power", "--filter", "site:two name:srv*", "off", "--yes", "--json")
    done = run(*words, "--wait", "--timeout", "60", "--data", site.hub)
    assert done.code == 0, done.err
    assert "3 servers: srv1 (two), srv2 (two), srv3 (two)" in done.err
    shown = json.loads(done.out)
    assert shown["schema"] == "rackmesh/group/1"
    group = shown["item"]
    assert (group["state"], group["total"], group["states"]) == (
        "succeeded", 3, {"succeeded": 3},
    )  # fmt: skip

    def known() -> Any:
        said = run("group", "show", group["id"], "--json", "--data", site.two)
        return said.code == 0 and json.loads(said.out)["item"]

    at_node = until("the node has the group", known)
    assert (at_node["state"], at_node["total"]) == ("succeeded", 3)
    jobs = json.loads(
        run("job", "list", "--filter", f"group:{group['id']}", "--json", "--data", site.two).out
    )
    assert {job["server_name"] for job in jobs["items"]} == {"srv1", "srv2", "srv3"}

    here = run("server", "power", "srv1", "srv2", "off", "--yes", "--data", site.two)
    assert here.code == 0, here.err
    own = here.out.split()[1].rstrip(":")
    over = until(
        "the node's own group is over",
        lambda: (g := site.get(site.two, f"/groups/{own}"))["over"] == g["total"] and g,
    )
    assert (over["state"], over["total"]) == ("succeeded", 2)
    none = run("group", "retry", own, "--data", site.two)
    assert (none.code, "none has failed" in none.sentence) == (7, True)


def test_the_installed_command_completes_words_in_a_shell() -> None:
    script = (
        "source <(rackmesh completion bash); COMP_WORDS=(rackmesh server de); COMP_CWORD=2;"
        ' _rackmesh_completion rackmesh; echo "${COMPREPLY[@]}"'
    )
    path = f"{RACKMESH.parent}:{os.environ['PATH']}"
    said = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert said.stdout.split() == ["deploy"], said.stderr


def on_a_terminal(*words: str | Path, **env: str) -> str:
    """Run a command on a terminal and return what it wrote there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [RACKMESH, *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=os.environ | {"TERM": "xterm-256color"} | env,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 4096):
                said += data
        except OSError:
            pass  # the terminal is closed with its last user
        assert process.wait(30) == 0
    os.close(ours)
    return said.decode()


def test_colours_and_weights_stay_away_when_they_are_not_wanted(site: Fleet) -> None:
    words = ("site", "list", "--data", site.hub)
    assert "\x1b[" in on_a_terminal(*words)
    plain = on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b[" not in plain
    assert "SITE" in plain
