"""The command line as scripts and people meet it: help, codes, shapes, hints."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from demo_processes import RACKMESH, ROOT, wait_for

from rackmesh import TABLE, cli
from tests.support.fleet import IMAGE, Fleet, fleet, one_sentence, run

LISTS = ("site", "node", "server", "job", "asset", "token", "secret")


def commands(table: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, (target, _) in table.items():
        yield (*before, name)
        if isinstance(target, dict):
            yield from commands(target, (*before, name))


@pytest.mark.parametrize("words", [(), *commands(TABLE)], ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        said = CliRunner().invoke(cli, [*words, flag])
        assert said.exit_code == 0, said.output
        assert "Usage:" in said.output
        assert len(said.output.splitlines()) > 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("servr", "list"), "'server'"),
        (("server", "depoy"), "'deploy'"),
        (("tokens",), "'token'"),
        (("server", "list", "--jsn"), "--json"),
    ],
)
def test_a_mistyped_word_names_the_nearest(words: tuple[str, ...], hint: str) -> None:
    said = run(*words)
    assert (said.code, hint in said.err) == (2, True), said.err
    assert "Traceback" not in said.err


def test_without_a_daemon_one_is_told_where_it_was_looked_for(tmp_path: Path) -> None:
    said = run("server", "list", "--data", tmp_path)
    sentence = one_sentence(said)
    assert (said.code, str(tmp_path) in sentence, "--data" in sentence) == (5, True, True)
    said = run("server", "list", "--hub", "https://127.0.0.1:1")
    assert (said.code, "--api-token-file" in one_sentence(said)) == (2, True)
    token = tmp_path / "token"
    token.write_text("x\n")
    said = run("server", "list", "--hub", "https://127.0.0.1:1", "--api-token-file", token)
    assert (said.code, "127.0.0.1:1" in one_sentence(said)) == (5, True)


def test_a_wrong_api_token_is_denied_and_a_right_one_answers(
    site: Fleet, tmp_path: Path
) -> None:
    hub = f"https://127.0.0.1:{site.hub_port}"
    fingerprint = next(
        line.split()[-1] for line in site.log("hub").splitlines() if "TLS SHA-256" in line
    )
    wrong = tmp_path / "token"
    wrong.write_text("x" * 43)
    words = ("site", "list", "--json", "--hub", hub, "--tls-sha256", fingerprint)
    said = run(*words, "--api-token-file", wrong)
    assert (said.code, one_sentence(said).startswith("rackmesh: ")) == (6, True)
    said = run(*words, "--api-token-file", site.hub / "api-token")
    assert (said.code, json.loads(said.out)["schema"]) == (0, "rackmesh/sites/1")
    said = run(*words[:-1], "0" * 64, "--api-token-file", site.hub / "api-token")
    assert (said.code, "fingerprint" in one_sentence(said)) == (6, True), said.err


@pytest.mark.parametrize("noun", LISTS)
def test_every_list_has_a_schema_and_a_table(site: Fleet, noun: str) -> None:
    datas = [site.hub] if noun in ("token", "secret") else [site.hub, site.two]
    for data in datas:
        answer = json.loads(run(noun, "list", "--json", "--data", data).out)
        assert answer["schema"] == f"rackmesh/{noun}s/1"
        assert isinstance(answer["as_of_ms"], int)
        assert isinstance(answer["items"], list)
        table = run(noun, "list", "--data", data)
        assert table.code == 0
        assert table.out.split()[0].isupper() or noun == "token", table.out


def test_hub_and_node_show_the_same_shapes(site: Fleet) -> None:
    for path in ("/servers/srv1", f"/assets/{IMAGE}"):
        here, there = site.get(site.two, path), site.get(site.hub, path)
        assert here.keys() == there.keys()
    for words in (("server", "show", "srv1"), ("asset", "show", IMAGE), ("status",)):
        for data in (site.hub, site.two):
            said = json.loads(run(*words, "--json", "--data", data).out)
            assert said["schema"] == f"rackmesh/{words[0]}/1"
            assert said["item"]


def test_exit_codes_tell_what_happened(site: Fleet, tmp_path: Path) -> None:
    hub = ("--data", site.hub)
    mac = site.machines()[0]["mac"]
    done = site.order("server", "power", "srv3", "on")
    site.succeeded(done)
    expected: list[tuple[int, tuple[str | Path, ...]]] = [
        (0, ("version",)),
        (0, ("status", "--data", site.two)),
        (4, ("server", "deploy", "srv1", "--image", "absent", *hub)),
        (1, ("job", "retry", done, "--wait", *hub)),
        (2, ("server", "deploy", *hub)),
        (2, ("server", "deploy", "srv1", "--image", IMAGE, "--ssh-key", "@/absent", *hub)),
        (4, ("server", "show", "nobody", *hub)),
        (4, ("job", "logs", "00000000-0000-7000-8000-000000000000", *hub)),
        (5, ("status", "--data", tmp_path)),
        (4, ("server", "accept", "02:00:00:00:00:01", "srv9", *hub)),
        (7, ("server", "accept", mac, "srv9", *hub)),
        (0, ("asset", "add", "never-had", "http://127.0.0.1:1/x", *hub)),
        (7, ("server", "deploy", "srv1", "--image", "never-had", *hub)),
        (8, ("status", "--wait", "0.1", "--data", tmp_path)),
    ]
    for code, words in expected:
        said = run(*words)
        assert said.code == code, (words, said)
        assert "Traceback" not in said.err


def test_waiting_ends_after_the_timeout_and_the_job_goes_on(site: Fleet) -> None:
    site.make_available("srv3")
    said = run(
        "server", "deploy", "srv3", "--image", IMAGE, "--wait", "--timeout", "0.5",
        "--data", site.hub,
    )  # fmt: skip
    assert said.code == 8, said.err
    assert "still" in said.sentence
    job = said.sentence.split()[2]
    site.succeeded(job)
    follow = run("job", "logs", "-f", job, "--data", site.hub)
    assert (follow.code, "phone-in: done" in follow.out) == (0, True), follow.out


def test_an_interrupt_ends_the_watching_alone(site: Fleet) -> None:
    site.make_available("srv3")
    site.pause("rack")
    job = site.deploy_order("srv3")
    words = ["env", "--default-signal=INT"]  # whoever runs the tests may ignore it
    words += [str(RACKMESH), "job", "logs", "-f", job, "--data", str(site.two)]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline(), "it follows"
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
    site.go_on("rack")
    assert follower.returncode == 130, err
    assert "Traceback" not in err
    site.succeeded(job)


def test_lists_with_nothing_in_them_say_what_to_do(tmp_path: Path) -> None:
    with fleet(tmp_path / "new", image_mib=1) as new:
        new.start_hub()
        wait_for("the hub answers", lambda: new.status(new.hub), 20, new.processes)
        told = {noun: run(noun, "list", "--data", new.hub) for noun in LISTS}
    for noun, said in told.items():
        assert said.code == 0, (noun, said.err)
        assert "Traceback" not in said.err
    assert "server pending" in told["server"].err
    assert "asset add" in told["asset"].err
