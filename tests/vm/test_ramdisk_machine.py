"""The ramdisk on a virtual machine that is reset in the middle of its work.

The test's own peer and dnsmasq stand for a node; test_real_machine.py has the real one.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import REPOSITORY
from tests.vm.lab import MIB, Host, Lab, Machine

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

NODE = "10.77.0.1"
URL = f"http://{NODE}:8470"
FIRST = {"first": True}
UP_S = 90
WORK_S = 120
PEER_S = 20


def start_node(host: Host, config: dict[str, Any]) -> Path:
    """Start dnsmasq and the peer; return the peer's log of events."""
    host.popen(
        ["dnsmasq", "-d", "-C", "/dev/null", "--no-ping", "--bind-interfaces", "-p", "0",
         "--interface=eth0", "--dhcp-range=10.77.0.100,10.77.0.200,600", "--leasefile-ro"],
        "dnsmasq.log",
    )  # fmt: skip
    return start_peer(host, config)


def start_peer(host: Host, config: dict[str, Any]) -> Path:
    """Start the peer alone; return its log of events."""
    argv = [sys.executable, "-m", "tests.support.agent_peer", json.dumps(config)]
    host.popen(["env", f"PYTHONPATH={REPOSITORY}", *argv], "peer.log")
    log = host.lab.folder / "peer.log"
    wait_event(log, "listening", 1, PEER_S)
    return log


def events(log: Path, name: str) -> list[Any]:
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    return [one["value"] for one in map(json.loads, lines) if one["event"] == name]


def wait_event(log: Path, name: str, count: int, timeout_s: float) -> list[Any]:
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if len(found := events(log, name)) >= count:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"no {count} x {name} within {timeout_s} s: {log.read_text()[-800:]}")


def start_ramdisk(machine: Machine, ramdisk: Path, capability: str) -> None:
    """Boot the ramdisk directly: what the node's iPXE script would do."""
    line = f"console=ttyS0 quiet rackmesh.url={URL} rackmesh.mac={machine.mac}"
    machine.start(
        "network",
        ["-kernel", str(ramdisk / "vmlinuz"), "-initrd", str(ramdisk / "initrd"),
         "-append", f"{line} rackmesh.cap={capability}"],
    )  # fmt: skip


def test_a_machine_that_is_reset_while_it_is_written_goes_on_where_it_stopped(
    ramdisk, image, tmp_path
):
    if not shutil.which("dnsmasq"):
        pytest.skip("dnsmasq is missing: apt-get install dnsmasq-base")
    plan = [{"do": "write_image", "disk": FIRST}, {"do": "poweroff"}]
    with Lab("reset", tmp_path / "lab") as lab:
        config = {"listen": [NODE, 8470], "url": URL, "image": str(image), "plan": plan}
        log = start_node(lab.host("node", NODE), config | {"piece_delay_s": 0.02})
        machine = lab.machine("srv1", 128 * MIB)
        start_ramdisk(machine, ramdisk, "capability-1")
        told = wait_event(log, "progress", 1, UP_S)[0]
        machine.stop()
        assert 0 < told["done"] < image.stat().st_size

        start_ramdisk(machine, ramdisk, "capability-2")
        machine.wait_off(UP_S + WORK_S)
        written = wait_event(log, "done", 1, PEER_S)[0]
        assert written["error"] is None
        evidence = written["evidence"]
        assert evidence["resumed_from"] >= told["done"]
        assert 0 < evidence["fetched_bytes"] < image.stat().st_size - told["done"] + MIB
        with machine.disk.open("rb") as disk:
            assert disk.read(image.stat().st_size) == image.read_bytes()


def test_an_nvme_format_is_really_done_and_proved(ramdisk, tmp_path):
    if not shutil.which("dnsmasq"):
        pytest.skip("dnsmasq is missing: apt-get install dnsmasq-base")
    with Lab("format", tmp_path / "lab") as lab:
        machine = lab.machine("srv1", 64 * MIB, disk="nvme")
        machine.disk.write_bytes(b"old data" * (8 * MIB))
        erase = {
            "do": "erase", "disk": FIRST, "serial": machine.disk_serial, "bytes": 64 * MIB,
            "methods": ["nvme-sanitize-crypto", "nvme-format-user-data"], "samples": 64,
            "seed": "5a" * 32,
        }  # fmt: skip
        config = {"listen": [NODE, 8470], "url": URL, "plan": [erase, {"do": "poweroff"}]}
        log = start_node(lab.host("node", NODE), config)
        start_ramdisk(machine, ramdisk, "capability-1")
        machine.wait_off(UP_S + WORK_S)
        done = wait_event(log, "done", 1, PEER_S)[0]
        assert done["error"] is None
        seen = done["evidence"]
        assert (seen["method"], seen["serial"]) == (
            "nvme-format-user-data",
            machine.disk_serial,
        )
        assert seen["attempts"][0]["method"] == "nvme-sanitize-crypto"
        assert (seen["samples"], seen["kept"], seen["pattern"]) == (64, 0, "zeros")
        assert (seen["direct"], seen["said"]["status"]) == (True, 0)
        assert machine.disk_is_empty()
        told = wait_event(log, "hello", 1, PEER_S)[0]["inventory"]["disks"][0]["erase"]
        assert "nvme-format-user-data" in told["methods"]
