"""The units under a real systemd: no root, ready when ready, watched, started again."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd import Manager, systemd, why_not

REPOSITORY = Path(__file__).resolve().parents[2]
RACKMESH = REPOSITORY / ".venv/bin/rackmesh"
DATA = Path("/var/lib/rackmesh")
NODE, HUB = "rackmesh-node.service", "rackmesh-hub.service"
PORTS_AND_RAW = (1 << 10) | (1 << 13)  # CAP_NET_BIND_SERVICE, CAP_NET_RAW
START_S = 60.0
WATCHDOG_S = 3

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A machine with systemd, a hub and a joined node, made by the README's commands."""
    folder = tmp_path_factory.mktemp("systemd")
    places = [Path(sys.base_prefix), REPOSITORY]
    with systemd(folder, readable=places) as made:
        made.run("ip", "link", "add", "prov0", "type", "veth", "peer", "name", "rack0")
        made.run("ip", "address", "add", "10.77.0.1/24", "dev", "prov0")
        made.run("ip", "link", "set", "prov0", "up")
        _write(
            made, "/etc/rackmesh-hub.toml", 'listen = "127.0.0.1"\nadvertise = ["127.0.0.1"]\n'
        )
        _write(made, "/etc/rackmesh-node.toml",
               '[interfaces]\nprovisioning = "prov0"\n[subnet]\ncidr = "10.77.0.0/24"\n'
               '[mesh]\nlisten = "127.0.0.1"\n')  # fmt: skip
        for role in ("hub", "node"):
            _write(
                made,
                f"/etc/systemd/system/rackmesh-{role}.service.d/test.conf",
                _drop_in(made.log_file(role)),
            )
        made.run(RACKMESH, "service", "install", "hub", "--config", "/etc/rackmesh-hub.toml",
                 "--now")  # fmt: skip
        token = made.run(RACKMESH, "token", "create", "--site", "lab")
        made.run(RACKMESH, "service", "install", "node", "--config", "/etc/rackmesh-node.toml")
        made.run(RACKMESH, "node", "join", "--token-file", "-", stdin=token)
        made.run("systemctl", "start", NODE)
        yield made


def _drop_in(log: Path) -> str:
    """Let a failure show soon, and the program be seen where the unit hides its folder."""
    hidden = [REPOSITORY] if REPOSITORY.is_relative_to("/tmp") else []
    lines = [f"StandardError=append:{log}", f"StandardOutput=append:{log}"]
    lines += [f"WatchdogSec={WATCHDOG_S}", "TimeoutAbortSec=2", "RestartSec=200ms"]
    lines += [f"BindReadOnlyPaths={path}" for path in hidden]
    return "[Service]\n" + "\n".join(lines) + "\n"


def _write(manager: Manager, path: str, text: str) -> None:
    script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
    manager.run("sh", "-c", script, "sh", path, stdin=text)


def _status(manager: Manager, pid: str) -> dict[str, str]:
    """Return /proc/PID/status of a process of the machine."""
    lines = manager.run("cat", f"/proc/{pid}/status").splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: value.strip() for name, value in pairs}


@pytest.mark.parametrize("unit", [HUB, NODE])
def test_a_service_is_active_only_when_it_serves_and_says_how_it_fares(manager, unit):
    shown = manager.show(unit)
    assert (shown["ActiveState"], shown["SubState"], shown["Type"]) == (
        "active",
        "running",
        "notify",
    )
    assert int(shown["NRestarts"]) == 0
    said = manager.wait("a status", lambda: manager.show(unit)["StatusText"], START_S)
    assert said.startswith(("hub serves", "node "))
    data = DATA / ("hub" if unit == HUB else "node")
    answer = json.loads(manager.run(RACKMESH, "status", "--json", "--data", data, check=False))
    assert answer["item"]["sentence"]


def test_the_node_serves_ports_67_and_69_as_an_ordinary_user(manager):
    found = _status(manager, manager.show(NODE)["MainPID"])
    assert found["Uid"].split()[0] != "0"
    for kind in ("CapEff", "CapBnd", "CapAmb"):
        assert int(found[kind], 16) == PORTS_AND_RAW
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    ports = json.loads(manager.run("cat", DATA / "node/run/ports.json"))
    assert (ports["dhcp"], ports["tftp"]) == (67, 69)
    assert ports["address"] == "10.77.0.1"
    listening = manager.run("cat", "/proc/net/udp")
    assert ":0043 " in listening


def test_a_join_by_root_leaves_files_that_the_service_can_use(manager):
    owners = manager.run("find", DATA / "node", DATA / "hub", "-user", "root")
    assert owners == ""


def test_a_node_that_stands_still_is_started_again(manager):
    before = manager.show(NODE)
    manager.run("kill", "-STOP", before["MainPID"])
    manager.wait("a restart", lambda: int(manager.show(NODE)["NRestarts"]) > 0, START_S)
    manager.wait("it is active", lambda: manager.show(NODE)["ActiveState"] == "active", START_S)
    after = manager.show(NODE)
    assert after["MainPID"] != before["MainPID"]


def test_a_killed_hub_comes_back_and_a_stopped_one_ended_cleanly(manager):
    before = manager.show(HUB)
    manager.run("kill", "-KILL", before["MainPID"])
    manager.wait("a restart", lambda: int(manager.show(HUB)["NRestarts"]) > 0, START_S)
    manager.wait("it is active", lambda: manager.show(HUB)["ActiveState"] == "active", START_S)
    manager.run("systemctl", "stop", HUB)
    ended = manager.show(HUB)
    assert (ended["ActiveState"], ended["Result"]) == ("inactive", "success")
    assert json.loads(manager.log("hub").splitlines()[-1])["msg"] == "stopped"
    manager.run("systemctl", "start", HUB)


@pytest.mark.parametrize("role", ["node", "hub"])
def test_the_unit_is_sound_and_little_exposed(manager, role):
    unit = f"/etc/systemd/system/rackmesh-{role}.service"
    manager.run("systemd-analyze", "verify", unit)
    score = manager.run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    overall = next(line for line in score.splitlines() if "Overall exposure" in line)
    assert float(overall.split(":")[1].split()[0]) < 3.0, overall


def test_a_program_that_the_user_cannot_run_is_refused_with_a_sentence(manager):
    script = (
        "mkdir -m 700 -p /run/own && ln -sf $1 /run/own/rackmesh"
        " && $2 /run/own/rackmesh service install node"
    )
    argv = ["sh", "-c", script, "sh", RACKMESH, REPOSITORY / ".venv/bin/python"]
    with pytest.raises(RuntimeError, match="cannot run /run/own/rackmesh: put it where"):
        manager.run(*argv)


def test_uninstalling_keeps_the_data(manager):
    manager.run(RACKMESH, "service", "uninstall", "hub")
    assert manager.run("ls", DATA / "hub/keys")
    assert "rackmesh-hub.service\n" not in manager.run("ls", "/etc/systemd/system")
