"""The DHCP servers of ``scripts/bench/dhcp``, each in a network namespace behind one relay.

    load (perfdhcp, 10.128.0.2) -- relay (10.128.0.1) -- node, kea, dnsmasq (10.20N.0.2)

perfdhcp cannot write option 82 that differs by client, so a small relay in C adds it, for all
servers alike; replies are routed to giaddr, which is perfdhcp. The node is the product's own
process; what an operator would have accepted (servers) is written to its store before it runs.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

import trio

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts" / "lib")]

from demo_processes import end  # noqa: E402

from mesh.host.clock import SystemClock  # noqa: E402
from mesh.identity import load_or_make_identity  # noqa: E402
from mesh.proto.sets import HEAD_KIND, HEAD_N  # noqa: E402
from mesh.proto.tables import SERVER, site_scope  # noqa: E402
from mesh.register_store import RegisterStore  # noqa: E402
from mesh.store import MeshStore, Tx  # noqa: E402
from node.joining import KEYS, REGISTER  # noqa: E402
from tests.support.fleet import Fleet  # noqa: E402
from tests.support.netns import Namespace, entered, namespace, wire  # noqa: E402

SUBNET: Final = IPv4Network("10.128.0.0/12")
RELAY, LOAD = "10.128.0.1", "10.128.0.2"
FIXED: Final = int(IPv4Address("10.129.0.0"))
POOL: Final = "10.130.0.0", "10.143.255.254"
MAC_BASE: Final = 0x000C01000000
ROWS_AT_ONCE: Final = 500
HOLD_S: Final = 7200
"""A namespace lives so long at most, whatever becomes of us."""


def mac_of(number: int) -> str:
    """Return the MAC of the machine of a number, as perfdhcp counts them."""
    return (MAC_BASE + number).to_bytes(6, "big").hex(":")


def address_of(number: int) -> str:
    """Return the fixed address of a known machine."""
    return str(IPv4Address(FIXED + number))


@dataclass
class Server:
    """A server under test: its address, the relay's port for it, how it is started anew."""

    name: str
    number: int
    version: str
    command: str
    space: Namespace
    start: Callable[[], Callable[[], None]]
    """Start with an empty lease store; returns what stops it."""
    stop: Callable[[], None] | None = None
    found: dict[str, list[float]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"10.20{self.number}.0.2"

    @property
    def relay_port(self) -> int:
        """The port on which the relay takes packets for it."""
        return 6700 + self.number

    def restart(self) -> None:
        """Stop it when it runs, and start it with an empty lease store."""
        self.end()
        self.stop = self.start()

    def end(self) -> None:
        """Stop it when it runs."""
        if self.stop is not None:
            self.stop()
            self.stop = None


class Wires:
    """The namespaces: load generator, relay, and one for each server."""

    def __init__(self, stack: ExitStack, folder: Path, ports: int) -> None:
        self._stack, self._ports = stack, ports
        self.load, self._relay = (stack.enter_context(namespace(HOLD_S)) for _ in range(2))
        wire(self._relay, "clients", self.load, "relay")
        self._relay.run("ip", "address", "add", f"{RELAY}/12", "dev", "clients")
        self._relay.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.load.run("ip", "address", "add", f"{LOAD}/12", "dev", "relay")
        self.load.run("ip", "route", "add", "default", "via", RELAY)
        self._program = folder / "dhcp_relay"
        source = Path(__file__).with_name("dhcp_relay.c")
        subprocess.run(["gcc", "-O2", "-o", str(self._program), str(source)], check=True)

    def server(self, number: int) -> Namespace:
        """Return a new namespace for a server, with the relay running before it."""
        space = self._stack.enter_context(namespace(HOLD_S))
        wire(self._relay, f"s{number}", space, "srv0")
        net = f"10.20{number}.0"
        self._relay.run("ip", "address", "add", f"{net}.1/24", "dev", f"s{number}")
        space.run("ip", "address", "add", f"{net}.2/24", "dev", "srv0")
        space.run("ip", "route", "add", "default", "via", f"{net}.1")
        words = [str(self._program), RELAY, str(6700 + number), f"{net}.2", str(self._ports)]
        process = subprocess.Popen(self._relay.argv(*words))
        self._stack.callback(end, process)
        return space


# -- the node ------------------------------------------------------------------------------


class Node:
    """A node of the product in a namespace; known machines are servers of its site.

    Its hub, which is another machine anywhere else, is away while it is measured.
    """

    def __init__(self, folder: Path, space: Namespace, known: int) -> None:
        self.fleet = Fleet(folder, servers=0, image_mib=1)
        self.fleet.processes.prefix = tuple(space.argv())
        self._space, self._known, self._count = space, known, 0

    def _entered(self) -> Any:
        return entered(f"/proc/{self._space.process.pid}/ns/net")

    def close(self) -> None:
        """End hub and node."""
        self.fleet.processes.stop_all()

    def start(self) -> Callable[[], None]:
        """Join a new node and run it; its site is new too, so it knows no bindings."""
        self._count += 1
        site, data = f"run{self._count}", self.fleet.folder / f"node{self._count}"
        with self._entered():
            self.fleet.start_hub()
            self.fleet.join(site, data)
            self.fleet.processes.stop("hub")
            write_servers(data, site, self._known)
            self.fleet.run_node(
                data, "--interface", "srv0", "--dhcp-port", "67", "--subnet", str(SUBNET),
                "--no-mdns", "--log-level", "warning",
            )  # fmt: skip
        return partial(self.fleet.processes.stop, data.name)

    def settings(self, data: Path) -> Path:
        """Return the node's configuration file."""
        return self.fleet.folder / f"{data.name}.toml"


def write_servers(data: Path, site: str, count: int, first: int = FIXED) -> None:
    """Write SERVER rows into the store of a node that does not run.

    ``first``: the fixed address of the first one.
    """
    identity = load_or_make_identity(data / KEYS)
    register = RegisterStore.open(data / REGISTER)
    root_fp = register.register.root_fp
    store = MeshStore.open(
        data / "state.db", author=identity.node_id, clock=SystemClock(), hub=False,
        sign_head=lambda body: identity.sign(HEAD_KIND, HEAD_N, root_fp, body),
    )  # fmt: skip

    def put(numbers: Iterable[int], tx: Tx) -> None:
        for number in numbers:
            row = {
                "id": f"server-{number}", "name": f"srv{number}", "site": site,
                "macs": [mac_of(number)], "ip": str(IPv4Address(first + number)),
                "state": "available",
                "accepted_ms": number + 1,
            }  # fmt: skip
            tx.put(site_scope(site), SERVER, f"server-{number}", row)

    async def write() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            for at in range(0, count, ROWS_AT_ONCE):
                await store.write(partial(put, range(at, min(at + ROWS_AT_ONCE, count))))
            nursery.cancel_scope.cancel()

    with store:
        trio.run(write)


def node_server(
    stack: ExitStack, folder: Path, wires: Wires, number: int, known: int
) -> Server:
    """Return the node as a server under test."""
    space = wires.server(number)
    node = Node(folder / f"fleet{number}", space, known)
    stack.callback(node.close)
    command = f"rackmesh node run --interface srv0 --subnet {SUBNET}"
    return Server("node", number, "this tree", command, space, node.start)


# -- Kea -----------------------------------------------------------------------------------


def kea_server(stack: ExitStack, folder: Path, wires: Wires, number: int, known: int) -> Server:
    """Return Kea with memfile leases (on disk, as packaged) and reservations by MAC."""
    space, home = wires.server(number), folder / "kea"
    home.mkdir()
    config, leases = home / "kea.json", home / "leases.csv"
    config.write_text(json.dumps(kea_config(leases, known)))
    env = {"KEA_PIDFILE_DIR": str(home), "KEA_LOCKFILE_DIR": str(home), "PATH": "/usr/bin"}

    def start() -> Callable[[], None]:
        for file in home.glob("leases.csv*"):
            file.unlink()
        with (home / "kea.log").open("ab") as log:
            process = subprocess.Popen(
                space.argv("kea-dhcp4", "-c", str(config)), stdout=log, stderr=log,
                env=env | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )  # fmt: skip
        wait_listening(space, process)
        return partial(end, process)

    said = subprocess.run(["kea-dhcp4", "-v"], capture_output=True, text=True, check=True)
    command = "kea-dhcp4 -c kea.json (memfile, persist, udp sockets, one thread)"
    return Server("kea", number, f"kea {said.stdout.strip()}", command, space, start)


def kea_config(leases: Path, known: int) -> dict[str, Any]:
    """Return Kea's configuration."""
    reservations = [
        {"hw-address": mac_of(n), "ip-address": address_of(n), "hostname": f"srv{n}"}
        for n in range(known)
    ]
    subnet = {
        "subnet": str(SUBNET),
        "pools": [{"pool": " - ".join(POOL)}],
        "reservations": reservations,
    }
    return {
        "Dhcp4": {
            "interfaces-config": {"interfaces": ["srv0"], "dhcp-socket-type": "udp"},
            "lease-database": {"type": "memfile", "persist": True, "name": str(leases)},
            "valid-lifetime": 600,
            "host-reservation-identifiers": ["hw-address"],
            "subnet4": [subnet],
            "loggers": [
                {
                    "name": "kea-dhcp4",
                    "severity": "ERROR",
                    "output_options": [{"output": "stderr"}],
                }
            ],
        }
    }


# -- dnsmasq -------------------------------------------------------------------------------


def dnsmasq_server(
    stack: ExitStack, folder: Path, wires: Wires, number: int, known: int
) -> Server:
    """Return dnsmasq, without its ping before an offer."""
    space, home = wires.server(number), folder / "dnsmasq"
    home.mkdir()
    hosts, leases = home / "hosts", home / "leases"
    hosts.write_text("".join(f"{mac_of(n)},{address_of(n)}\n" for n in range(known)))
    words = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping",
        f"--dhcp-range={POOL[0]},{POOL[1]},{SUBNET.netmask},600",
        f"--dhcp-hostsfile={hosts}", f"--dhcp-leasefile={leases}", "--user=root",
        "--dhcp-lease-max=1000000", "--dhcp-authoritative", "--quiet-dhcp", "--pid-file=",
        "--log-facility=/dev/null",
    ]  # fmt: skip

    def start() -> Callable[[], None]:
        leases.unlink(missing_ok=True)
        process = subprocess.Popen(space.argv(*words), stderr=subprocess.DEVNULL)
        wait_listening(space, process)
        return partial(end, process)

    said = subprocess.run(["dnsmasq", "-v"], capture_output=True, text=True, check=True)
    command = " ".join(words).replace(str(home), "FOLDER")
    return Server("dnsmasq", number, said.stdout.split(" Copy")[0], command, space, start)


def wait_listening(space: Namespace, process: subprocess.Popen[bytes]) -> None:
    """Return when something listens on port 67 of a namespace."""
    for _ in range(600):
        if ":67 " in space.run("ss", "-lunH"):
            time.sleep(0.5)
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} does not listen")


def missing() -> list[str]:
    """Return the programs that are not installed."""
    names = ("perfdhcp", "kea-dhcp4", "dnsmasq", "gcc", "ip", "ss", "unshare", "nsenter")
    return [name for name in names if shutil.which(name) is None]
