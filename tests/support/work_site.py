"""A site with one node's work service on a real store, beside a server that behaves."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import trio

from drivers.errors import LoginRefused
from mesh import answers
from mesh.errors import Refused, StoreFull
from mesh.host.clock import SystemClock
from mesh.identity import Identity
from mesh.proto import tables
from mesh.proto.erase_record import sign_erase
from mesh.proto.ids import uuid7
from mesh.proto.order import DESTRUCTIVE, NORMAL, Order, open_order, sign_order
from mesh.proto.rendezvous import owner
from mesh.secrets import Readable, make_copies, read_secret
from mesh.store import MeshStore
from node.hooks.desk import HookTools
from node.proto.disc_config import MachineNetwork
from node.work.boot_desk import BootDesk
from node.work.discs import Places
from node.work.engine import Work
from node.work.ports import Limits
from tests.support.trust import Org, seed
from tests.support.work_machine import IP, MAC, SHA256, Cut, FakeBmc, Machine

ASSET = "b3:" + "ab" * 32
IMAGE_BYTES = 4 << 20
NET = MachineNetwork(address=IPv4Address(IP), prefix=24, router=IPv4Address("10.77.0.1"))
QUICK = Limits(
    rescan_s=0.5, coalesce_s=0.01, read_back_s=0.5, read_back_poll_s=0.01, receipt_s=0.2,
    settle_s=0.3,
)  # fmt: skip
_SERIAL = iter(range(1, 1 << 30))


@dataclass
class FakeManifest:
    size: int = IMAGE_BYTES
    sha256: str = SHA256


class FakeAssets:
    """The cache and the asset service in one: an image is one ``want`` away."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.refusing: str | None = None
        self.waiting: str | None = None

    def holds(self, asset: str, /) -> bool:
        return asset in self.held

    def manifest(self, asset: str, /) -> FakeManifest | None:
        return FakeManifest() if asset in self.held else None

    async def want(self, name: str, asset: str, progress: Any, /) -> None:
        await progress(1, 2)
        while self.refusing or self.waiting:
            await trio.sleep(0.01)
        self.held.add(asset)

    def trouble(self, name: str, /) -> str | None:
        return self.refusing

    def waits_for(self, name: str, /) -> str | None:
        return self.waiting


class FakePeers:
    """Links to the nodes in ``nodes``: node id -> rpc handlers."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.receipts: list[tuple[str, int, int]] = []
        self.witness: str | None = None
        self.before_receipt: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    def connected(self) -> Mapping[str, Any]:
        return dict.fromkeys(self.nodes)

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float, /) -> Any:
        if method == "tenure.renew" and method not in self.nodes.get(node_id, {}):
            return {}
        return await self.nodes[node_id][method](node_id, body)

    async def wait_receipt(
        self, scope: str, epoch: int, seq: int, timeout_s: float, /
    ) -> str | None:
        self.receipts.append((scope, epoch, seq))
        await self.before_receipt()
        return self.witness


class Secrets:
    def current(self) -> tuple[int, bytes] | None:
        return 1, seed("site")

    def secret(self, epoch: int, /) -> bytes | None:
        return seed("site") if epoch == 1 else None


class CutStore:
    """The real store, with a boundary before and after each write, and a disk to fill."""

    def __init__(self, store: MeshStore, cut: Cut, schema: bool = True) -> None:
        self._store, self._cut, self._schema = store, cut, schema

    def local_schema(self, statements: Any, /) -> None:
        if self._schema:
            self._store.local_schema(statements)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def full(self) -> bool:
        return self._cut.full and self._cut.refused > 0

    async def write(self, fn: Any, /) -> Any:
        if self._cut.full:
            self._cut.refused += 1
            await trio.lowlevel.checkpoint()
            raise StoreFull("the disk is full")
        self._cut.boundary()
        value = await self._store.write(fn)
        self._cut.boundary()
        return value


class WorkSite:
    """One node of the site ``lab`` with work, desk, BMC and machine."""

    def __init__(self, path: Path, limits: Limits = QUICK, per_hour: int = 5) -> None:
        self.org = Org()
        self.node: Identity = self.org.admit("node1", roles=("node", "site-operator"))
        self.clock = SystemClock()
        self.path, self.limits, self.per_hour = path / "state.db", limits, per_hour
        self.cut = Cut()
        self.bmc = FakeBmc(cut=self.cut)
        self.machine = Machine(self.bmc, self)
        self.assets, self.peers = FakeAssets(), FakePeers()
        self.opens: dict[str, dict[str, int]] = {}
        """Node id -> secrets that it can open; ``bmc1`` for those not named."""
        self.hook_secrets: dict[str, bytes] = {}
        self.playbooks: dict[str, bytes] = {}
        self.hooks = path / "hooks"
        self.desk: BootDesk | None = None
        self.calls: set[trio.CancelScope] = set()
        self.server = self.new_id()
        self.scope = tables.site_scope("lab")
        self.store: MeshStore
        self.work: Work

    def need_desk(self) -> BootDesk:
        assert self.desk is not None
        return self.desk

    def is_bound(self, mac: str, address: str) -> bool:
        return (mac, address) == (MAC, IP)

    def new_id(self) -> str:
        return uuid7(self.clock.now_ms(), next(_SERIAL).to_bytes(10, "big"))

    def _copy(self, node: str, secret: str) -> dict[str, Any]:
        if secret not in self.opens.get(self.node.node_id, {"bmc1": 1}):
            raise Refused(f"this node has no secret {secret!r}")
        return {"id": secret, "version": 1, "for": node}

    @asynccontextmanager
    async def _bmc(
        self, url: str, credentials: Mapping[str, object], may_send: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        assert may_send()
        assert (url, credentials["username"]) == (self.bmc.url, "admin")
        if self.bmc.password not in (None, credentials["password"]):
            raise LoginRefused(f"{url}: the user name or password was refused")
        yield self.bmc

    def _login(self, store: Any, node: Identity, secret: str) -> Mapping[str, object]:
        """Return what nodes sealed to this one; else a login named like its secret."""
        try:
            return dict(json.loads(read_secret(store, self.org.register, node, secret)))
        except Refused:
            if secret not in self.opens.get(node.node_id, {"bmc1": 1}):
                raise
            return {"username": "admin", "password": secret}

    def build(self, store: Any, node: Identity) -> Work:
        return Work(
            node_id=node.node_id,
            site="lab",
            store=store,
            members=self.org.register,
            peers=self.peers,
            receipts=self.peers,
            open_order=lambda data, now_ms: open_order(
                data, self.org.register, now_ms, site="lab"
            ),
            open_bmc=self._bmc,
            credentials=lambda secret: self._login(store, node, secret),
            assets=self.assets,
            cache=self.assets,
            secrets=Secrets(),
            readable=lambda: {
                **self.opens.get(node.node_id, {"bmc1": 1}),
                **Readable(store, self.org.register, node).versions(),
            },
            copy_for=self._copy,
            make_copies=partial(make_copies, self.org.register, "lab"),
            sign_erase=partial(sign_erase, node, self.org.root_fp),
            clock=self.clock,
            destructive_per_hour=self.per_hour,
            limits=self.limits,
            places=Places(
                lambda: "http://10.77.0.1:8470", lambda mac: NET if mac == MAC else None
            ),
            hooks=HookTools(secret=self._hook_secret, folder=self.hooks, asset=self._playbook),
        )

    def _hook_secret(self, secret: str) -> bytes:
        if secret not in self.hook_secrets:
            raise Refused(f"this node has no secret {secret!r}")
        return self.hook_secrets[secret]

    async def _playbook(self, asset: str, most: int) -> bytes | None:
        return self.playbooks.get(asset, b"")[:most] if self.assets.holds(asset) else None

    @asynccontextmanager
    async def running(self, machine: bool = True) -> AsyncIterator["WorkSite"]:
        """Open the store, run the node and, beside it, the machine."""
        store = MeshStore.open(
            self.path,
            author=self.node.node_id,
            sign_head=lambda body: self.node.sign("head", 1, self.org.root_fp, body),
            clock=self.clock,
        )
        store.local_schema(answers.SCHEMA)
        with contextlib.closing(store):
            self.store = store
            self.work = self.build(CutStore(store, self.cut), self.node)
            async with trio.open_nursery() as nursery:
                self.cut.dead, self.cut.node = False, nursery.cancel_scope
                await nursery.start(store.run)
                body = {
                    "site": "lab",
                    "boot_url": "http://10.77.0.1:8470",
                    "services": ["jobs"],
                }
                await store.write(
                    lambda tx: tx.put(tables.FLEET, tables.NODE, self.node.node_id, body)
                )
                self.desk = BootDesk(self.work, self.is_bound)
                try:
                    if machine:
                        nursery.start_soon(self.machine.run)
                    await nursery.start(self.work.run)
                    yield self
                finally:
                    self.desk = None
                    with trio.CancelScope(shield=True):
                        while self.calls:
                            for scope in self.calls:
                                scope.cancel()
                            await trio.sleep(0)
                    nursery.cancel_scope.cancel()

    # -- orders ----------------------------------------------------------------------------

    def order(self, kind: str, params: Mapping[str, Any], **changes: Any) -> bytes:
        normal = kind not in ("server.deploy", "server.release")
        values: dict[str, Any] = {
            "id": self.new_id(), "region": "eu", "region_epoch": 1, "site": "lab",
            "kind": kind, "params": params, "author": "ann@hub",
            "not_after_ms": self.clock.now_ms() + 3_600_000,
            "order_class": NORMAL if normal else DESTRUCTIVE,
        }  # fmt: skip
        return sign_order(Order(**{**values, **changes}), self.org.orders, self.org.root_fp)

    async def give(self, kind: str, params: Mapping[str, Any], **changes: Any) -> str:
        return (await self.work.submit(self.order(kind, params, **changes)))[0]

    def accept_params(self, bmc: bool, **more: Any) -> dict[str, Any]:
        params: dict[str, Any] = {"machine": MAC, "name": "srv1", "server": self.server}
        return params | {
            "bmc": {"url": self.bmc.url, "secret": "bmc1", **more} if bmc else None
        }

    async def accept(self, bmc: bool = True, **more: Any) -> None:
        """Accept the machine; its inventory is there after one boot of its ramdisk."""
        job = await self.give("server.accept", self.accept_params(bmc, **more))
        if self.bmc.power == "off":
            self.bmc.switch("on")
        assert (await self.end(job))["state"] == "succeeded"

    async def power(self, on: bool) -> str:
        return await self.give("server.power", {"server": self.server, "on": on})

    def deploy_params(self) -> dict[str, Any]:
        return {
            "server": self.server, "image": "demo", "asset": ASSET, "hostname": "web1",
            "ssh_keys": ["ssh-ed25519 AAAA ann"],
        }  # fmt: skip

    async def deploy(self, **more: Any) -> str:
        return await self.give("server.deploy", {**self.deploy_params(), **more})

    async def mine(self, kind: str, params: Mapping[str, Any], **changes: Any) -> str:
        """Give an order whose rendezvous owner is this node."""
        return await self.give(kind, params, id=self.mine_id(), **changes)

    def mine_id(self) -> str:
        """Return the id of an order whose rendezvous owner is this node."""
        nodes = [member.node_id for member in self.org.register.members()]
        while owner(nodes, order_id := self.new_id()) != self.node.node_id:
            pass
        return order_id

    # -- levels ----------------------------------------------------------------------------

    def job(self, job_id: str) -> dict[str, Any]:
        row = self.store.get(self.scope, tables.JOB, job_id)
        return {} if row is None else dict(row.body)

    def server_row(self) -> dict[str, Any]:
        row = self.store.get(self.scope, tables.SERVER, self.server)
        return {} if row is None else dict(row.body)

    async def until(self, seen: Any, seconds: float = 20) -> None:
        """Wait until ``seen()`` is true."""
        with trio.move_on_after(seconds) as scope:
            while not seen():
                with trio.move_on_after(0.1):
                    await self.store.wait_past(self.store.version)
        if scope.cancelled_caught:
            shown = {row.key: row.body for row in self.store.rows(self.scope, tables.JOB)}
            raise AssertionError(f"not seen within {seconds} s: {json.dumps(shown, indent=1)}")

    async def end(self, job_id: str) -> dict[str, Any]:
        """Return the job's row once it has ended or parked."""
        over = {"succeeded", "failed", "cancelled", "parked"}
        await self.until(lambda: self.job(job_id).get("state") in over)
        return self.job(job_id)


def step(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a step of a job's row, empty when it has none of this id."""
    return next((s for s in row.get("steps") or [] if s["id"] == name), {})
