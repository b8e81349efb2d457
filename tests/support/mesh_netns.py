"""Sites in network namespaces with real daemons: routers, a NAT, thin links between the sites.

Hubs hang on the wide area network itself, sites behind a router each; the links of routers are
shaped by tbf. The last site's router lets TCP out and nothing in. Rules: daemons are told apart
by their data folders and asked over their api.sock; every wait is for a level, is bounded, and
says how long it took; all namespaces and processes end with the test.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from mesh.rest.client import ApiClient, ApiError, Target
from tests.support.forge import Forge
from tests.support.netns import Namespace, namespace, wire

SITES = ("fra", "ams", "lis", "nat")
NODES_PER_SITE = 3
BEHIND_NAT = "nat"
LIFE_S = 1200
RATE, BURST, LATENCY = "8mbit", "32kb", "300ms"
START_S, STOP_S, CONVERGE_S = 60.0, 20.0, 90.0
POLL_S = 0.1
NODE_TOML = """log_level = "info"
[boot]
enabled = false
[cache]
quota_gib = 1
"""
NAT_RULES = """
table ip door {
  chain out { type nat hook postrouting priority 100; oifname "up0" masquerade; }
  chain through {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan0" oifname "lan0" accept
    iifname "lan0" oifname "up0" ip protocol tcp accept
  }
  chain in { type filter hook input priority 0; iifname "up0" ct state new drop; }
}
"""


@dataclass
class Daemon:
    """One hub or node."""

    name: str
    data: Path
    space: Namespace
    address: str
    site: str = ""
    pid: int = 0
    flags: list[str] = field(default_factory=list)

    @property
    def net(self) -> str:
        return f"/proc/{self.space.process.pid}/ns/net"

    def get(self, path: str) -> Any:
        """Return a resource, None while nobody answers."""
        if not (self.data / "run" / "api.sock").exists():
            return None
        client = ApiClient(Target(socket=self.data / "run" / "api.sock"))
        try:
            answer = client.get(path)
        except ApiError:
            return None
        finally:
            client.close()
        return answer.get("item", answer.get("items"))

    def post(self, path: str, body: Any) -> Any:
        """Ask for something at this daemon."""
        client = ApiClient(Target(socket=self.data / "run" / "api.sock"))
        try:
            return client.post(path, body)["item"]
        finally:
            client.close()

    def state(self) -> dict[str, str] | None:
        """Return the digests of what it holds, by scope and of the register."""
        state = self.get("/holdings")
        return {"register": state["register"], **state["scopes"]} if state else None

    def peers(self) -> set[str]:
        """Return the ids that it has links with."""
        status = self.get("/status")
        return {peer.get("node") or peer["id"] for peer in status["peers"]} if status else set()

    def rows(self, scope: str, table: str) -> dict[tuple[str, str], Any]:
        """Return rows as they stand on its disk, by author and key; nothing is changed."""
        db = sqlite3.connect(f"file:{self.data}/state.db?mode=ro", uri=True)
        try:
            found = db.execute(
                "SELECT s.author, r.key, r.body FROM mesh_set s JOIN mesh_row r"
                " ON r.set_id = s.id WHERE s.scope = ? AND r.tab = ? AND r.body IS NOT NULL",
                (scope, table),
            )
            return {(author, key): msgpack.unpackb(body) for author, key, body in found}
        finally:
            db.close()


class Country:
    """The networks and the daemons on them."""

    def __init__(self, folder: Path, stack: ExitStack, forge: Forge) -> None:
        self.folder, self._stack, self.forge = folder, stack, forge
        self.wan = self._space()
        self.wan.run("ip", "link", "add", "wan0", "type", "bridge")
        self.wan.run("ip", "link", "set", "wan0", "up")
        self.routers = {site: self._router(number) for number, site in enumerate(SITES)}
        self.spaces: dict[str, tuple[Namespace, str]] = {}
        self.hubs: list[Daemon] = []
        self.nodes: dict[str, Daemon] = {}
        self.took: dict[str, float] = {}

    # -- networks ------------------------------------------------------------------------

    def _space(self) -> Namespace:
        return self._stack.enter_context(namespace(LIFE_S))

    def _uplink(self, space: Namespace, number: int, shaped: bool) -> str:
        """Wire a namespace to the wide area network; return its address there."""
        port, address = f"p{number}", f"10.200.0.{number}"
        wire(space, "up0", self.wan, port)
        self.wan.run("ip", "link", "set", port, "master", "wan0")
        space.run("ip", "address", "add", f"{address}/24", "dev", "up0")
        if shaped:
            tbf = ("root", "tbf", "rate", RATE, "burst", BURST, "latency", LATENCY)
            space.run("tc", "qdisc", "add", "dev", "up0", *tbf)
            self.wan.run("tc", "qdisc", "add", "dev", port, *tbf)
        for other, site in enumerate(SITES):
            if site != BEHIND_NAT and 11 + other != number:
                network, router = f"10.{101 + other}.0.0/24", f"10.200.0.{11 + other}"
                space.run("ip", "route", "add", network, "via", router)
        return address

    def _router(self, number: int) -> Namespace:
        space = self._space()
        self._uplink(space, 11 + number, shaped=True)
        space.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        space.run("ip", "link", "add", "lan0", "type", "bridge")
        space.run("ip", "address", "add", f"10.{101 + number}.0.1/24", "dev", "lan0")
        space.run("ip", "link", "set", "lan0", "up")
        if SITES[number] == BEHIND_NAT:
            rules = self.folder / "nat.nft"
            rules.write_text(NAT_RULES)
            space.run("nft", "-f", str(rules))
        return space

    def host(self, site: str, number: int) -> tuple[Namespace, str]:
        """Return a machine on a site's network and its address."""
        at, space, router = SITES.index(site), self._space(), self.routers[site]
        wire(space, "eth0", router, f"n{number}")
        router.run("ip", "link", "set", f"n{number}", "master", "lan0")
        address = f"10.{101 + at}.0.{10 + number}"
        space.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        space.run("ip", "route", "add", "default", "via", f"10.{101 + at}.0.1")
        return space, address

    def cut(self, site: str, off: bool = True) -> None:
        """Cut a site off the wide area network, or let it on again."""
        port = f"p{11 + SITES.index(site)}"
        self.wan.run("ip", "link", "set", port, "down" if off else "up")

    def readdress(self, node: Daemon, last: int) -> None:
        """Give a machine another address on its network."""
        prefix = node.address.rpartition(".")[0]
        node.space.run("ip", "address", "flush", "dev", "eth0")
        node.address = f"{prefix}.{last}"
        node.space.run("ip", "address", "add", f"{node.address}/24", "dev", "eth0")
        node.space.run("ip", "route", "add", "default", "via", f"{prefix}.1")

    # -- daemons -------------------------------------------------------------------------

    def command(self, at: Daemon, *words: str, timeout_s: float = START_S) -> None:
        """Run a command on a daemon's machine to its end."""
        log = self.folder / f"{at.name}.command"
        pid = self.forge.start(list(words), log, at.net)
        code = self.forge.wait(pid, timeout_s)
        assert code == 0, f"rackmesh {' '.join(words)}: {log.read_text()}"

    def add_hub(self, name: str) -> Daemon:
        """Make a machine for a hub."""
        number = 2 + len(self.hubs)
        space = self._space()
        hub = Daemon(name, self.folder / name, space, self._uplink(space, number, shaped=False))
        self.hubs.append(hub)
        return hub

    def add_node(self, site: str, number: int) -> Daemon:
        """Make a machine for a node."""
        name = f"{site}-{number}"
        node = Daemon(name, self.folder / name, *self.host(site, number), site)
        self.nodes[name] = node
        return node

    def join(self, node: Daemon, hub: Daemon) -> int:
        """Begin to join a node; return the process to wait for."""
        asked = {"site": node.site, "roles": ["node", "site-operator"], "ttl_s": 3600}
        token = self.folder / f"{node.name}.token"
        token.write_text(hub.post("/tokens", asked)["token"])
        words = ["node", "join", "--token-file", str(token), "--name", node.name]
        log = self.folder / f"{node.name}.log"
        return self.forge.start([*words, "--data", str(node.data)], log, node.net)

    def start(self, *daemons: Daemon) -> None:
        """Start daemons and wait until they answer."""
        for one in daemons:
            for left in ("api.sock", "ports.json"):  # what a killed one leaves says it runs
                (one.data / "run" / left).unlink(missing_ok=True)
            one.pid = self.forge.start(
                self._words(one), self.folder / f"{one.name}.log", one.net
            )
        for one in daemons:
            self.wait(f"{one.name} answers", lambda at=one: at.get("/version"), START_S)

    def _words(self, one: Daemon) -> list[str]:
        if one in self.hubs:
            words = ["hub", "up", "--data", str(one.data), "--advertise", one.address]
            words += ["--site", "", "--cache-gib", "1", "--name", one.name]
            return [*words, *one.flags]
        settings = self.folder / "node.toml"
        settings.write_text(NODE_TOML)
        return ["node", "run", "--data", str(one.data), "--config", str(settings), *one.flags]

    def end(self, *daemons: Daemon, number: int = 15) -> None:
        """End daemons by a signal and wait for them."""
        for one in daemons:
            os.kill(one.pid, number)
        for one in daemons:
            self.forge.wait(one.pid, STOP_S)

    # -- looking -------------------------------------------------------------------------

    @property
    def all(self) -> list[Daemon]:
        """Every daemon."""
        return [*self.hubs, *self.nodes.values()]

    def of(self, site: str) -> list[Daemon]:
        """Return the nodes of a site."""
        return [node for node in self.nodes.values() if node.site == site]

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float = CONVERGE_S) -> float:
        """Wait for a true answer; return after how many seconds it came."""
        began = time.monotonic()
        while not check():
            dead = [d.name for d in self.all if d.pid and not self.forge.alive(d.pid)]
            if time.monotonic() - began > timeout_s:
                raise AssertionError(
                    f"{what}: not within {timeout_s:.0f} s; not running: {dead};"
                    f" {json.dumps(self.differences(), indent=1)}"
                )
            time.sleep(POLL_S)
        return time.monotonic() - began

    def timed(
        self, name: str, check: Callable[[], Any], timeout_s: float = CONVERGE_S
    ) -> float:
        """Wait, and note how long it took under a name."""
        self.took[name] = round(self.wait(name, check, timeout_s), 1)
        return self.took[name]

    def differences(self, among: list[Daemon] | None = None) -> dict[str, dict[str, list[str]]]:
        """Return scope -> digest -> daemons, of what is not equal everywhere it is carried."""
        found: dict[str, dict[str, list[str]]] = {}
        for one in among or self.all:
            for scope, digest in (one.state() or {"": "no answer"}).items():
                found.setdefault(scope, {}).setdefault(digest, []).append(one.name)
        return {s: by for s, by in found.items() if len(by) > 1 or not s}

    def equal(self, among: list[Daemon] | None = None) -> bool:
        """Tell whether daemons hold the same."""
        return not self.differences(among)


@contextmanager
def country(folder: Path) -> Iterator[Country]:
    """Yield networks without daemons; everything ends with the block."""
    with ExitStack() as stack:
        forge = Forge()
        stack.callback(forge.close)
        yield Country(folder, stack, forge)
