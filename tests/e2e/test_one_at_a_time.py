"""What only one process can have: a data folder, a port; what only root can have: port 67."""

import json
import os
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from demo_processes import RACKMESH, wait_for

from tests.support.fleet import Fleet, fleet, one_sentence, run

FAILED = 1
NOBODY = 65534


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A hub and a node."""
    with fleet(tmp_path_factory.mktemp("one"), image_mib=1) as made:
        made.start_hub()
        made.join("one", made.one)
        made.run_node(made.one, "--subnet", "127.93.0.0/24")
        made.wait_linked(made.one)
        yield made


@pytest.fixture(scope="module")
def idle(small: Fleet) -> Path:
    """The data folder of a node that has joined and does not run."""
    small.join("two", small.two)
    return small.two


@pytest.fixture
def taken() -> Generator[tuple[int, int]]:
    """A TCP port and a UDP port that somebody else has."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        yield tcp.getsockname()[1], udp.getsockname()[1]


def run_node(small: Fleet, data: Path, *flags: str) -> tuple[int, str]:
    words = small.node_words(data, *flags)[1:]
    said = run(*words, timeout_s=30)
    return said.code, one_sentence(said)


def test_a_second_node_on_one_data_folder_is_refused(small: Fleet) -> None:
    before = small.status(small.one)
    ports = (small.one / "run" / "ports.json").read_text()
    settings = small.folder / "again.toml"
    settings.write_text("")
    said = run(
        "node", "run", "--data", small.one, "--boot-listen", "127.0.0.1", "--dhcp-port", "0",
        "--tftp-port", "0", "--http-port", "0", "--mesh-port", "0",
    )  # fmt: skip
    sentence = one_sentence(said)
    assert (said.code, str(small.one) in sentence) == (FAILED, True), sentence
    assert f"process {small.processes.running[small.one.name].pid}" in sentence
    assert small.status(small.one)["started_ms"] == before["started_ms"], "the first runs on"
    assert (small.one / "run" / "ports.json").read_text() == ports
    small.processes.check()


def test_a_second_hub_on_one_data_folder_is_refused(small: Fleet) -> None:
    before = small.status(small.hub)
    said = run("hub", "up", "--data", small.hub, "--listen", "127.0.0.1", "--port", "0")
    sentence = one_sentence(said)
    assert (said.code, str(small.hub) in sentence) == (FAILED, True), sentence
    assert f"process {small.processes.running['hub'].pid}" in sentence
    assert small.status(small.hub)["started_ms"] == before["started_ms"], "the first runs on"
    small.wait_linked(small.one)


def test_a_second_rack_on_one_data_folder_is_refused(small: Fleet) -> None:
    small.start_rack(small.one)
    wait_for("the rack runs", lambda: "BMC user" in small.log("rack"), 20, small.processes)
    said = run("rack", "simulate", "1", "--node-data", small.one, "--data", small.rack)
    assert (said.code, str(small.rack) in one_sentence(said)) == (FAILED, True)
    small.processes.check()
    small.processes.stop("rack")


@pytest.mark.parametrize("flag", ["--mesh-port", "--http-port"])
def test_a_taken_tcp_port_is_named(
    small: Fleet, idle: Path, taken: tuple[int, int], flag: str
) -> None:
    code, sentence = run_node(small, idle, flag, str(taken[0]))
    assert (code, str(taken[0]) in sentence) == (FAILED, True), sentence
    assert "stop" in sentence


@pytest.mark.parametrize("flag", ["--dhcp-port", "--tftp-port"])
def test_a_taken_udp_port_is_named(
    small: Fleet, idle: Path, taken: tuple[int, int], flag: str
) -> None:
    code, sentence = run_node(small, idle, flag, str(taken[1]))
    assert (code, str(taken[1]) in sentence) == (FAILED, True), sentence
    assert f"process {os.getpid()}" in sentence
    assert "stop" in sentence


def test_a_taken_hub_port_is_named(tmp_path: Path, taken: tuple[int, int]) -> None:
    data = tmp_path / "hub"
    words = ("hub", "up", "--data", data, "--listen", "127.0.0.1", "--port", str(taken[0]))
    said = run(*words)
    sentence = one_sentence(said)
    assert (said.code, str(taken[0]) in sentence) == (FAILED, True), sentence
    assert "--port" in sentence
    assert not (data / "state.db").exists(), "nothing was made"


def test_a_taken_bmc_port_of_a_rack_is_named(small: Fleet, taken: tuple[int, int]) -> None:
    said = run(
        "rack", "simulate", "1", "--node-data", small.one, "--data", small.folder / "rack-2",
        "--bmc-port", str(taken[0]),
    )  # fmt: skip
    sentence = one_sentence(said)
    assert (said.code, str(taken[0]) in sentence) == (FAILED, True), sentence


@pytest.mark.parametrize(("flag", "port"), [("--dhcp-port", "67"), ("--tftp-port", "69")])
def test_without_permission_for_a_low_port_one_is_told_what_to_do(
    small: Fleet, idle: Path, flag: str, port: str
) -> None:
    words = [*small.node_words(idle, flag, port)]
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set=-net_bind_service,-net_admin",
                 "--inh-caps=-all", *words]  # fmt: skip
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == FAILED, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert f"port {port}" in lines[0]
    assert "root" in lines[0] or "CAP_NET_BIND_SERVICE" in lines[0], lines[0]
    assert flag.removeprefix("--").replace("-", "_") in lines[0], "the setting's name"


def test_a_refused_start_leaves_a_folder_that_starts(small: Fleet, idle: Path) -> None:
    small.run_node(idle, "--subnet", "127.94.0.0/24")
    small.wait_linked(idle)
    small.processes.stop(idle.name)
    assert not (idle / "run" / "api.sock").exists()
    small.no_traceback()


def test_a_file_of_settings_with_a_wrong_key_names_the_right_one(
    small: Fleet, idle: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "node.toml"
    settings.write_text("[boot]\nhttp_prot = 1\n")
    said = run("node", "run", "--data", idle, "--config", settings)
    assert (said.code, "http_port" in one_sentence(said)) == (2, True)
    settings.write_text("[boot\n")
    said = run("node", "run", "--data", idle, "--config", settings)
    assert (said.code, str(settings) in one_sentence(said)) == (2, True)
    assert RACKMESH.exists()
    assert json.loads((idle / "node.json").read_text())["site"] == "two"
