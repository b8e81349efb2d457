"""Idle cost: a hub and two sites, every node in a network namespace of its own.

Each site is a bridge behind a router; routers and hub stand on one wire, the WAN. After a time
to settle, bytes are counted at the interfaces (Ethernet headers included, both directions):

* ``wan_bytes_per_s_per_link``: what crosses the routers, by the TCP connections that do so;
* ``lan_bytes_per_s_per_node``: what goes in and out of the nodes' interfaces less what is on
  its way to or from the WAN, by nodes; a packet counts where it leaves and where it arrives;
* ``node_rss_mib``: resident memory of the largest node, its child processes included.

What it consists of is taken from the frames on one router's and one node's interface.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench_footprint import rss_mib
from demo_processes import RACKMESH, Processes, rackmesh, say, wait_for

from tests.support.netns import Namespace, namespace, wire

HUB_HOST: Final = "10.90.0.1"
START_S: Final = 300.0
ETH_ALL: Final = 3
MESH_PORT: Final = 4770


@dataclass
class Site:
    """A router and the nodes behind it."""

    name: str
    number: int
    router: Namespace
    nodes: list[Namespace] = field(default_factory=list[Namespace])

    @property
    def lan(self) -> str:
        return f"10.91.{self.number}"


def build(
    stack: ExitStack, seconds: int, sizes: dict[str, int]
) -> tuple[Namespace, list[Site]]:
    """Make the hub's namespace and the sites, wired and routed."""
    hub = stack.enter_context(namespace(seconds))
    bridge(hub, f"{HUB_HOST}/24")
    sites: list[Site] = []
    for number, (name, size) in enumerate(sizes.items(), 1):
        site = Site(name, number, stack.enter_context(namespace(seconds)))
        plug(hub, site.router, f"port{number}", "wan0", f"10.90.0.{10 + number}/24")
        site.router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        bridge(site.router, f"{site.lan}.1/24")
        for one in range(size):
            node = stack.enter_context(namespace(seconds))
            plug(site.router, node, f"port{one}", "lan0", f"{site.lan}.{10 + one}/24")
            node.run("ip", "route", "add", "default", "via", f"{site.lan}.1")
            site.nodes.append(node)
        sites.append(site)
    for site in sites:
        via = ("via", f"10.90.0.{10 + site.number}")
        for where in [hub, *(other.router for other in sites if other is not site)]:
            where.run("ip", "route", "add", f"{site.lan}.0/24", *via)
    return hub, sites


def bridge(where: Namespace, address: str) -> None:
    where.run("ip", "link", "add", "br0", "type", "bridge")
    where.run("ip", "link", "set", "br0", "up")
    where.run("ip", "address", "add", address, "dev", "br0")


def plug(switch: Namespace, device: Namespace, port: str, name: str, address: str) -> None:
    """Put a device on the bridge of a switch."""
    wire(switch, port, device, name)
    switch.run("ip", "link", "set", port, "master", "br0")
    device.run("ip", "address", "add", address, "dev", name)


def interface_bytes(where: Namespace, name: str) -> int:
    """Return the bytes in and out of an interface."""
    for line in where.run("cat", "/proc/net/dev").splitlines():
        if line.strip().startswith(f"{name}:"):
            fields = line.split(":")[1].split()
            return int(fields[0]) + int(fields[8])
    raise LookupError(name)


def wan_links(sites: list[Site]) -> int:
    """Return the TCP connections of nodes that cross a router, each once at each site."""
    count = 0
    for site in sites:
        for node in site.nodes:
            peers = node.run("ss", "-Htn", "state", "established").splitlines()
            count += sum(1 for line in peers if not line.split()[3].startswith(site.lan))
    return count


class Capture:
    """The frames on one interface, by kind."""

    def __init__(self, where: Namespace, name: str) -> None:
        with where.entered():
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL)
            )
        self._socket.bind((name, 0))
        self._socket.setblocking(False)
        self.bytes: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()

    def read(self) -> None:
        """Take what has arrived since."""
        while True:
            try:
                frame = self._socket.recv(65_536)
            except BlockingIOError:
                return
            kind = kind_of(frame)
            self.bytes[kind] += len(frame)
            self.frames[kind] += 1

    def clear(self) -> None:
        self.read()
        self.bytes.clear()
        self.frames.clear()

    def lines(self, seconds: float) -> list[str]:
        return [
            f"    {kind:24} {size / seconds:8.1f} B/s, {self.frames[kind] / seconds:.2f} frames"
            for kind, size in self.bytes.most_common()
        ]


def kind_of(frame: bytes) -> str:
    """Return what a frame belongs to, by its ports."""
    [ether] = struct.unpack_from(">H", frame, 12)
    if ether == 0x0806:
        return "ARP"
    if ether == 0x86DD:
        return "IPv6 (neighbours, mDNS)"
    if ether != 0x0800:
        return f"ethertype {ether:04x}"
    start = 14 + (frame[14] & 15) * 4
    protocol = frame[23]
    if protocol not in (6, 17):
        return f"IP protocol {protocol}"
    ports = set(struct.unpack_from(">HH", frame, start))
    word = "TCP" if protocol == 6 else "UDP"
    if protocol == 6:
        length = struct.unpack_from(">H", frame, 16)[0] - (start - 14)
        if length == (frame[start + 12] >> 4) * 4:
            word = "TCP acknowledgement"
    names = {8443: "hub", MESH_PORT: "mesh", 5353: "mDNS"}
    about = next((name for port, name in names.items() if port in ports), str(min(ports)))
    return f"{word} {about}"


def start(processes: Processes, folder: Path, hub: Namespace, sites: list[Site]) -> list[int]:
    """Run hub and nodes; return the process ids of the nodes."""
    data = folder / "hub"
    up = [
        str(RACKMESH),
        "hub",
        "up",
        "--data",
        str(data),
        "--advertise",
        HUB_HOST,
        "--site",
        "",
    ]
    processes.start("hub", *hub.argv(*up))
    words = ("api", "GET", "/version", "--data", str(data))
    wait_for("the hub is up", lambda: answers(*words), START_S, processes)
    pids: list[int] = []
    for site in sites:
        for number, node in enumerate(site.nodes):
            name = f"{site.name}-{number}"
            token = rackmesh(
                "token", "create", "--site", site.name, "--role", "node", "--data", data
            )
            home = folder / name
            prefix = tuple(node.argv())
            rackmesh(
                "node", "join", "--token-file", "-", "--name", name, "--data", home,
                stdin=token, prefix=prefix,
            )  # fmt: skip
            run = [str(RACKMESH), "node", "run", "--data", str(home)]
            pids.append(processes.start(name, *node.argv(*run)).pid)
    for site in sites:
        for number in range(len(site.nodes)):
            name = f"{site.name}-{number}"
            ports = folder / name / "run" / "ports.json"
            wait_for(f"{name} runs", ports.exists, START_S, processes)
    return pids


def answers(*words: str) -> bool:
    """Tell whether a command succeeds."""
    done = subprocess.run([RACKMESH, *words], capture_output=True, check=False)
    return done.returncode == 0


def measure(folder: Path, sizes: dict[str, int], settle_s: float, seconds: float) -> Any:
    """Build, settle, count; return the figures."""
    lease_s = int(START_S * 4 + settle_s + seconds)
    with ExitStack() as stack:
        hub, sites = build(stack, lease_s, sizes)
        processes = Processes(folder)
        stack.callback(processes.stop_all)
        pids = start(processes, folder, hub, sites)
        say(f"all run; settling for {settle_s:g} s, then counting for {seconds:g} s")
        wan = Capture(sites[0].router, "wan0")
        lan = Capture(sites[0].nodes[-1], "lan0")
        wait(settle_s, wan, lan)
        wan.clear()
        lan.clear()
        before, began = counters(sites), time.monotonic()
        wait(seconds, wan, lan)
        after, took_s = counters(sites), time.monotonic() - began
        processes.check()
        nodes = sum(sizes.values())
        links = wan_links(sites)
        wan_bytes = after[0] - before[0]
        lan_bytes = after[1] - before[1] - wan_bytes
        resident = [round(rss_mib(pid), 1) for pid in pids]
        print(f"WAN of site {sites[0].name}, {took_s:.0f} s:", *wan.lines(took_s), sep="\n")
        print("One node's interface:", *lan.lines(took_s), sep="\n")
        print(f"RSS of the nodes, MiB: {resident}")
        return {
            "wan_bytes_per_s_per_link": round(wan_bytes / took_s / max(1, links), 1),
            "lan_bytes_per_s_per_node": round(lan_bytes / took_s / nodes, 1),
            "node_rss_mib": max(resident),
            "wan_links": links, "sites": sizes, "seconds": round(took_s), "settle_s": settle_s,
        }  # fmt: skip


def counters(sites: list[Site]) -> tuple[int, int]:
    """Return the bytes at the routers' WAN side, and at the nodes."""
    wan = sum(interface_bytes(site.router, "wan0") for site in sites)
    nodes = sum(interface_bytes(node, "lan0") for site in sites for node in site.nodes)
    return wan, nodes


def wait(seconds: float, *captures: Capture) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
        for capture in captures:
            capture.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=6, help="nodes of the first site")
    parser.add_argument("--settle-s", type=float, default=120.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ss") is None:
        sys.exit("this makes network namespaces: it needs root, unshare and iproute2")
    sizes = {"one": options.nodes, "two": 2}
    with tempfile.TemporaryDirectory(prefix="rackmesh-idle-") as name:
        figures = measure(Path(name), sizes, options.settle_s, options.seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
