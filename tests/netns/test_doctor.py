"""The doctor on real wires: a real foreign DHCP server, our own node, a listener far away."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns.test_boot_wire import on_a_wire
from tests.support.netns import Namespace, namespace, wire

REPOSITORY = Path(__file__).resolve().parents[2]
RACKMESH = [sys.executable, "-m", "rackmesh"]
COMMAND_S = 60.0

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
]
needs_dnsmasq = pytest.mark.skipif(
    shutil.which("dnsmasq") is None, reason="dnsmasq is not installed (Debian: dnsmasq-base)"
)


@pytest.fixture
def wired() -> Iterator[tuple[Namespace, Namespace]]:
    """The node's machine and another one on its provisioning network."""
    with namespace() as here, namespace() as there:
        wire(here, "prov0", there, "far0")
        here.run("ip", "address", "add", "10.77.0.1/24", "dev", "prov0")
        there.run("ip", "address", "add", "10.77.0.66/24", "dev", "far0")
        yield here, there


def examine(where: Namespace, *words: str | Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor; return its exit code and its findings by check."""
    argv = where.argv(*RACKMESH, "node", "doctor", "--json", *map(str, words))
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=COMMAND_S, cwd=REPOSITORY, check=False
    )
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)["item"]["findings"]
    return done.returncode, {finding["check"]: finding for finding in findings}


@contextmanager
def running(where: Namespace, *argv: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program in a namespace, to be ended."""
    process = subprocess.Popen(
        where.argv(*argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=REPOSITORY,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=COMMAND_S)


def udp_is_open(where: Namespace, port: int) -> None:
    """Wait until somebody holds a UDP port there."""
    end = time.monotonic() + COMMAND_S
    while f":{port:04X} " not in where.run("cat", "/proc/net/udp"):
        assert time.monotonic() < end, f"UDP port {port} is not open"


@needs_dnsmasq
def test_a_foreign_dhcp_server_is_found_by_its_addresses(wired, tmp_path):
    here, there = wired
    words = ["--interface", "prov0", "--data", tmp_path]
    code, found = examine(here, *words)
    assert found["rogue DHCP"]["state"] == "ok", found["rogue DHCP"]
    argv = ["dnsmasq", "--no-daemon", "--port=0", "--interface=far0", "--no-ping",
            "--conf-file=/dev/null", f"--dhcp-leasefile={tmp_path}/leases", "--user=root",
            "--dhcp-range=10.77.0.200,10.77.0.210,60"]  # fmt: skip
    with running(there, *argv):
        udp_is_open(there, 67)
        code, found = examine(here, *words)
    mac = json.loads(there.run("ip", "-j", "link", "show", "far0"))[0]["address"]
    assert code == 3
    assert found["rogue DHCP"]["state"] == "fail"
    assert f"10.77.0.66 ({mac}) offers 10.77.0.2" in found["rogue DHCP"]["says"]
    assert not (tmp_path / "leases").read_text(), "the probe takes no lease"


async def test_our_own_node_does_not_answer_the_probe_and_learns_no_machine(tmp_path):
    import trio

    async with on_a_wire(tmp_path) as (node, _server, client):
        client.run("ip", "address", "add", "10.77.0.9/24", "dev", "cli0")
        _, found = await trio.to_thread.run_sync(
            examine, client, "--interface", "cli0", "--data", tmp_path / "none"
        )
        counts = node.boot.statistics()["dhcp"]
    assert found["rogue DHCP"]["state"] == "ok", found["rogue DHCP"]
    assert counts["doctor"] == 3
    assert not any(word in counts for word in ("offer", "claim", "noted"))


@contextmanager
def listener(where: Namespace) -> Iterator[tuple[dict[str, int], str, "subprocess.Popen[str]"]]:
    """Run ``doctor listen`` on free ports; yield them, its fingerprint and the process."""
    ports = ["--tls-port", "0", "--tcp-port", "0", "--udp-port", "0"]
    with running(where, *RACKMESH, "node", "doctor", "listen", "--json", *ports) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        yield first["listening"], first["tls_sha256"], process


def test_the_far_side_is_reached_on_all_ports_and_a_closed_one_is_said(wired, tmp_path):
    here, there = wired
    base = ["--no-probe", "--data", tmp_path]
    with listener(there) as (ports, fingerprint, process):
        far = [word for kind, port in ports.items()
               for word in ("--far", f"10.77.0.66:{port}/{kind}")]  # fmt: skip
        _, found = examine(here, *base, *far, "--far-sha256", fingerprint)
        for kind, port in ports.items():
            assert found[f"way to 10.77.0.66:{port}/{kind}"]["state"] == "ok"
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in ports]
        assert {line["carrier"] for line in told} == {"tls", "tcp", "udp"}
        assert all(line["peer"].startswith("10.77.0.1:") for line in told)

        _, found = examine(here, *base, *far[:2], "--far-sha256", "00" * 32)
        (wrong,) = [f for check, f in found.items() if check.startswith("way to")]
        assert (wrong["state"], "fingerprint" in wrong["says"]) == ("fail", True)
    _, found = examine(here, *base, "--far", f"10.77.0.66:{ports['tcp']}/tcp")
    assert found[f"way to 10.77.0.66:{ports['tcp']}/tcp"]["state"] == "fail"


def test_garbage_at_the_listener_is_not_answered_and_does_not_end_it(wired, tmp_path):
    here, there = wired
    with listener(there) as (ports, _, process):
        script = (
            "import os, socket, sys\n"
            "tls, tcp, udp = map(int, sys.argv[1:])\n"
            "for port in (tls, tcp) * 20:\n"
            "    with socket.create_connection(('10.77.0.66', port)) as sock:\n"
            "        sock.settimeout(5)\n"
            "        sock.sendall(os.urandom(128))\n"
            "        sock.shutdown(socket.SHUT_WR)\n"
            "        try: answer = sock.recv(100)\n"
            "        except OSError: answer = b''\n"
            "        assert not answer.startswith(b'rackmesh'), answer\n"
            "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
            "    for size in range(0, 1400, 7):\n"
            "        sock.sendto(os.urandom(size), ('10.77.0.66', udp))\n"
        )
        here.run(sys.executable, "-c", script, *(str(ports[k]) for k in ("tls", "tcp", "udp")))
        far = [word for kind, port in ports.items()
               for word in ("--far", f"10.77.0.66:{port}/{kind}")]  # fmt: skip
        _, found = examine(here, "--no-probe", "--data", tmp_path, *far)
        assert process.poll() is None
    states = [f["state"] for check, f in found.items() if check.startswith("way to")]
    assert states == ["ok", "ok", "ok"]


@needs_dnsmasq
def test_a_port_that_another_holds_is_found_with_its_holder(wired, tmp_path):
    here, _ = wired
    argv = ["dnsmasq", "--no-daemon", "--port=0", "--interface=prov0", "--conf-file=/dev/null",
            f"--dhcp-leasefile={tmp_path}/leases", "--user=root",
            "--dhcp-range=10.77.0.200,10.77.0.210,60"]  # fmt: skip
    with running(here, *argv) as process:
        udp_is_open(here, 67)
        _, found = examine(here, "--interface", "prov0", "--no-probe", "--data", tmp_path)
        assert process.poll() is None
    assert found["port 67"]["state"] == "fail"
    assert "dnsmasq" in found["port 67"]["says"]


def test_an_ordinary_user_is_told_which_ports_he_may_not_have(wired, tmp_path):
    here, _ = wired
    done = subprocess.run(
        here.argv("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if int(done.stdout) <= 67:
        here.run("sysctl", "-q", "-w", "net.ipv4.ip_unprivileged_port_start=1024")
    from node.doctor import facts

    child = os.fork()
    if child == 0:  # a user without rights, in the namespace; it must not come back
        try:
            with here.entered():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                found = facts.port("dhcp", "udp", 67, "0.0.0.0", None, ours=False)
                os._exit(0 if found.refused == "Permission denied" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
