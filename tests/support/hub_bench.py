"""Builders for tests of the hub: rows, members, and services with fakes behind the ports."""

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from hub.accounts import Accounts
from hub.api_tokens import ApiTokens
from hub.consoles import ConsoleDesk
from hub.desk import Desk
from hub.errors import NotFound
from hub.hooks import HookDesk
from hub.ingest import Ingest
from hub.limits import Limits
from hub.live import EventBus, Live
from hub.passwords import Passwords
from hub.ports import Declaration, Services
from hub.store import ReportStore
from hub.templates import TemplateDesk
from hub.trust_desk import TrustDesk
from mesh import answers
from mesh.answers import Answers
from mesh.host.clock import FixedClock
from mesh.hub_keys import load_or_make_hub_keys, make_joined_keys
from mesh.identity import load_or_make_identity
from mesh.membership import admit, found
from mesh.proto import tables
from mesh.register_store import RegisterStore
from mesh.rest.calls import Keep
from mesh.rest.types import (
    GroupAccepted,
    GroupVerb,
    OrderAccepted,
    Secret,
    Status,
    Token,
)
from mesh.rest.verdicts import meant
from tests.support.alike import FakeImports, fake_alike
from tests.support.console_stream import fake_stream
from tests.support.mesh_seen import SeenMesh, link
from tests.support.rows import RowStore, World

NODE_A = "a" * 32
NODE_B = "b" * 32
HUB = "h" * 32
API_TOKEN = "test-api-token"


@dataclass(frozen=True)
class Row:
    author: str
    table: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    node_id: str
    site: str = "fra1"
    roles: frozenset[str] = frozenset({"node"})
    status: str = "member"
    name: str = ""
    kem_epoch: int = 1
    capabilities: frozenset[str] = frozenset()


class Level:
    def __init__(self) -> None:
        self.version = 0
        self._changed = trio.Event()

    def bump(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()

    async def wait_past(self, version: int) -> int:
        while self.version <= version:
            await self._changed.wait()
        return self.version


class FakeRows(Level):
    """Rows by scope; every change moves the head of its author."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[tuple[str, str, str, str], Row] = {}
        self._heads: dict[str, dict[str, tuple[int, int]]] = {}

    def put(self, scope: str, table: str, key: str, author: str = NODE_A, **body: Any) -> None:
        self._rows[scope, table, key, author] = Row(author, table, key, body)
        self._moved(scope, author)

    def drop(self, scope: str, table: str, key: str, author: str = NODE_A) -> None:
        del self._rows[scope, table, key, author]
        self._moved(scope, author)

    def _moved(self, scope: str, author: str) -> None:
        heads = self._heads.setdefault(scope, {})
        heads[author] = (1, heads.get(author, (1, 0))[1] + 1)
        self.bump()

    def rows(self, scope: str, table: str) -> list[Row]:
        return [r for (s, t, _, _), r in self._rows.items() if (s, t) == (scope, table)]

    authored = rows

    def heads(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        return self._heads


class FakeMembers(Level):
    def __init__(self, *members: Member) -> None:
        super().__init__()
        self.found = list(members)

    @property
    def register(self) -> "FakeMembers":
        return self

    def members(self) -> list[Member]:
        return self.found


class FakePeers(Level):
    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.streams: dict[str, Any] = {}

    def connected(self) -> dict[str, Any]:
        return dict(self.links)

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append((node_id, method, body))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer(body) if callable(answer) else answer

    def stream(self, node: str, name: str, body: Any, timeout_s: float = 15.0) -> Any:
        return fake_stream(self.streams.get(name), node, body, HUB)


@dataclass
class FakeDesk(FakeImports):
    """Orders, tokens, secrets and assets that only remember what they were told."""

    orders: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    tokens: dict[str, Token] = field(default_factory=dict)
    secrets: dict[str, Secret] = field(default_factory=dict)
    declared: list[tuple[Any, ...]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    trouble: str | None = None
    refusal: Exception | None = None

    async def submit(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> OrderAccepted:
        await trio.lowlevel.checkpoint()
        if self.refusal is not None:
            raise self.refusal
        self.orders.append((dict(asked), author))
        return OrderAccepted(order="o1", job="o1", site="fra1", server=None)

    async def submit_group(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> GroupAccepted:
        await trio.lowlevel.checkpoint()
        self.orders.append((dict(asked), author))
        return GroupAccepted(
            group="g1", kind=asked["kind"], destructive=0, orders=[], refused=[]
        )

    async def tell_group(
        self, group: str, kind: str, author: str, keep: Keep | None = None
    ) -> GroupVerb:
        await trio.lowlevel.checkpoint()
        self.orders.append(({"group": group, "kind": kind}, author))
        return GroupVerb(group=group, kind=kind, jobs=[])

    async def declare(self, asked: Declaration) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((asked.name, asked.url, asked.sha256, list(asked.want)))

    async def want(self, name: str, site: str) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((name, site))

    async def unwant(self, name: str, site: str) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((name, f"not {site}"))

    async def pin(self, name: str, site: str) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((name, f"stays at {site}"))

    async def unpin(self, name: str, site: str) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((name, f"leaves {site}"))

    async def open(self, name: str) -> Any:
        await trio.lowlevel.checkpoint()
        raise NotFound(f"there is no asset {name!r}")

    async def read(self, export: Any, offset: int) -> AsyncGenerator[bytes]:
        yield b""

    async def clone(self, old: str, new: str, want: list[str], cmdline: str | None) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((new, f"as {old}", want, cmdline))

    async def remove(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.declared.append((name, "gone"))

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        self.uploads[name] = b"".join([piece async for piece in chunks])

    def status(self) -> Status:
        return Status(
            role="hub", name="hub", node=HUB, site=None, healthy=not self.problems,
            sentence="hub hub answers for 1 site", problems=list(self.problems), build="0.1.0",
            started_ms=0, root_fingerprint="00" * 20, peers=[],
            services={"root_key": "wrapped"},
        )  # fmt: skip


class LocalTables:
    """The local tables of a mesh store, in memory."""

    def __init__(self, clock: FixedClock) -> None:
        self._db = sqlite3.connect(":memory:")
        self._clock = clock
        for statement in answers.SCHEMA:
            self._db.execute(statement)

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()

    def execute(self, sql: str, args: Any = ()) -> Any:
        return self._db.execute(sql, args)

    async def write(self, fn: Any) -> Any:
        await trio.lowlevel.checkpoint()
        with self._db:
            return fn(self)


@dataclass
class FakeVerdicts:
    """Verdicts that stand in the bench's rows at once."""

    rows: FakeRows
    store: ReportStore
    clock: Any

    async def give(self, machine: str, site: str | None, rejected: bool, by: str) -> Any:
        await trio.lowlevel.checkpoint()
        found: Any = self.store.find("pending", machine)
        seen = meant(found, machine, site)
        self.rows.put(
            tables.site_scope(site or seen["site"]), tables.VERDICT, machine, HUB, mac=machine,
            rejected=rejected, by=by, at_ms=self.clock.now_ms(),
        )  # fmt: skip
        return {**seen, "rejected": rejected}


class FakeTokens:
    def __init__(self, clock: Any, bus: EventBus) -> None:
        self.clock = clock
        self.bus = bus
        self.made: dict[str, Token] = {}

    async def create(self, site: str, roles: list[str], ttl_s: int) -> tuple[Token, str]:
        await trio.lowlevel.checkpoint()
        now = self.clock.now_ms()
        token = Token(
            id=f"t{len(self.made)}", site=site, roles=roles, state="open", created_ms=now,
            expires_ms=now + ttl_s * 1000, used_by=None, used_ms=None, contacted_ms=None,
            refused=None, refused_ms=None,
        )  # fmt: skip
        self.made[token["id"]] = token
        self.bus.publish("token", id=token["id"])
        return token, "rm1.secret"

    def list(self) -> list[Token]:
        return list(self.made.values())

    async def revoke(self, token_id: str) -> Token:
        await trio.lowlevel.checkpoint()
        if token_id not in self.made:
            raise NotFound(f"there is no token {token_id!r}")
        self.made[token_id]["state"] = "revoked"
        return self.made[token_id]


class FakeSecrets:
    def __init__(self) -> None:
        self.made: dict[str, Secret] = {}

    async def set(self, secret_id: str, site: str, kind: str, value: str) -> Secret:
        await trio.lowlevel.checkpoint()
        secret = Secret(
            id=secret_id,
            kind=kind,
            site=site,
            version=1,
            released=[NODE_A],
            changed_ms=0,
            retired_ms=None,
        )
        self.made[secret_id] = secret
        return secret

    def list(self) -> list[Secret]:
        return list(self.made.values())


class NoUpkeep:
    """A hub that was never restored, and whose backup is a few bytes."""

    async def stream(self) -> AsyncGenerator[bytes]:
        await trio.lowlevel.checkpoint()
        return self._pieces()

    async def _pieces(self) -> AsyncGenerator[bytes]:
        yield b"all of it"

    def report(self) -> Any:
        raise NotFound("this hub was not restored")

    def dismiss(self) -> None:
        raise NotFound("this hub was not restored")


@dataclass
class Bench:
    services: Services
    rows: FakeRows
    members: FakeMembers
    peers: FakePeers
    fake: FakeDesk
    ingest: Ingest
    clock: FixedClock
    trust: TrustDesk


def founded(folder: Path) -> TrustDesk:
    """A hub's trust desk over a new organisation in a folder."""
    keys = load_or_make_hub_keys(folder / "keys", "main")
    identity = load_or_make_identity(folder / "identity")
    register = RegisterStore.open(folder / "register", keys.root_fp)
    found(keys, identity, register, urls=["https://127.0.0.1:8443"], name="hub")
    store: Any = RowStore(World(), identity.node_id)
    return TrustDesk(store=store, register=register, keys=keys, identity=identity)


async def second_hub(trust: TrustDesk, folder: Path, region: str = "eu") -> TrustDesk:
    """Let another hub join, as it is before the root names its keys; it shares all rows."""
    root_fp, register = trust.keys.root_fp, trust.register
    identity = load_or_make_identity(folder / "identity")
    document = register.register.record("trust", "")
    assert document is not None
    keys = make_joined_keys(folder / "keys", region, root_fp, document)
    admit(
        trust.keys, register, identity.public, site="", roles=frozenset({"hub"}), name="second"
    )
    shared: Any = trust.store
    store: Any = RowStore(shared.world, identity.node_id)
    joined = TrustDesk(store=store, register=register, keys=keys, identity=identity)
    await store.write(joined.write_own)
    return joined


@asynccontextmanager
async def hub_bench(folder: Path, *members: Member, clock: Any = None) -> AsyncGenerator[Bench]:
    """Yield services over a real reporting store and a real desk, with fakes behind."""
    clock, bus = clock or FixedClock(), EventBus("run1")
    store, shared = ReportStore.open(folder / "report.db"), RowStore(World(), HUB)
    accounts = Accounts(shared, Passwords(), clock)
    desk = Desk.open(folder / "hub.db", accounts)
    rows, peers, fake = FakeRows(), FakePeers(), FakeDesk()
    roster = FakeMembers(*(members or (Member(NODE_A), Member(NODE_B))))
    ingest = Ingest(rows, roster, store, bus, clock)
    trust = founded(folder)
    memory: Any = RowStore(World(), HUB)
    services = Services(
        store=store, live=Live(peers, store, bus, clock), bus=bus, desk=desk, clock=clock,
        orders=fake, tokens=FakeTokens(clock, bus), verdicts=FakeVerdicts(rows, store, clock),
        mesh=SeenMesh(HUB, "hub", lambda: [link(n, n[:8]) for n in peers.links]),
        secrets=FakeSecrets(), templates=TemplateDesk(memory, store, clock), assets=fake,
        hooks=HookDesk(memory), exports=fake, status=fake,
        backups=NoUpkeep(), restored=NoUpkeep(), settle=ingest.settle, trust=trust,
        alike=fake_alike(HUB), consoles=ConsoleDesk(peers, lambda site: [NODE_A, NODE_B]),
        not_ready=lambda: fake.trouble, answers=Answers(LocalTables(clock).write, clock),
        accounts=accounts, limits=Limits(),
        api_tokens=ApiTokens(shared, desk, API_TOKEN, clock), hub_name="demo hub",
        region="main", node_id=HUB, build="0.1.0",
    )  # fmt: skip
    try:
        yield Bench(services, rows, roster, peers, fake, ingest, clock, trust)
    finally:
        store.close()
        desk.close()


def fill(bench: Bench) -> None:
    """Rows of a small but busy organisation, for pages and screenshots."""
    now, rows = bench.clock.now_ms(), bench.rows
    bench.peers.links = {NODE_A: None}
    for node, name in ((NODE_A, "fra1-a"), (NODE_B, "fra1-b")):
        rows.put(
            tables.FLEET, tables.NODE, node, node, name=name, site="fra1", build="0.1.0",
            services=["dhcp", "tftp", "http", "cache", "bmc", "jobs"],
            boot_url="http://10.0.0.1:8470",
        )  # fmt: skip
    bench.services.store.touch({NODE_B: now - 190_000})
    rows.put(tables.FLEET, tables.SITE, "fra1", HUB, title="Frankfurt", region="main")
    rows.put(tables.FLEET, tables.SITE, "ams1", HUB, title="Amsterdam", region="main")
    rows.put(
        tables.FLEET, tables.REFERENCE, "debian-12", HUB, name="debian-12",
        url="https://example.net/debian-12.raw", want=["fra1", "ams1"],
    )  # fmt: skip
    rows.put(
        tables.FLEET, tables.NAME, "debian-12", HUB, name="debian-12", size=2_147_483_648,
        asset="b3:" + "0" * 64, sha256="1" * 64,
    )  # fmt: skip
    rows.put(
        tables.FLEET, tables.PRESENCE, "b3:" + "0" * 64, NODE_A, name="debian-12", site="fra1",
        state="verified", have=2048, of=2048, origin_bytes=2_147_483_648, peer_bytes=0,
        updated_ms=now - 60_000,
    )  # fmt: skip
    rows.put(
        tables.FLEET, tables.PRESENCE, "b3:" + "0" * 64, NODE_B, name="debian-12", site="ams1",
        state="fetching", have=871, of=2048, origin_bytes=0, peer_bytes=913_309_696,
        updated_ms=now - 1_000,
    )  # fmt: skip
    rows.put(tables.FLEET, tables.REFERENCE, "rescue", HUB, name="rescue", url=None, want=[])
    _fill_site(rows, now)


def _fill_site(rows: FakeRows, now: int) -> None:
    scope = tables.site_scope("fra1")
    servers = (
        ("s1", "web-1", "active", None), ("s2", "web-2", "deploying", None),
        ("s3", "db-1", "available", None),
        ("s4", "db-2", "deploying failed", "the image is larger than the disk (480 GB)"),
    )  # fmt: skip
    for number, (key, name, state, error) in enumerate(servers):
        rows.put(
            scope, tables.SERVER, key, id=key, name=name, site="fra1", state=state, error=error,
            cleaned=False, macs=[f"52:54:00:00:00:0{number}"], ip=f"10.0.0.1{number}",
            summary="QEMU Standard PC, 8 cores, 32 GB, 480 GB NVMe", changed_ms=now - 4_000_000,
            image="debian-12" if state == "active" else None,
        )  # fmt: skip
    steps = [
        {"name": "fetch image", "kind": "keyed", "state": "done"},
        {"name": "boot from network", "kind": "set", "state": "done"},
        {
            "name": "write image", "kind": "set", "state": "running", "done": 1_300_000_000,
            "total": 2_147_483_648, "unit": "bytes",
        },
        {"name": "first-boot data", "kind": "set", "state": "waiting"},
        {"name": "phone-in", "kind": "observe", "state": "waiting"},
    ]  # fmt: skip
    rows.put(
        scope, tables.JOB, "j2", kind="server.deploy", server="s2", server_name="web-2",
        state="running", runner=NODE_A, steps=steps, created_ms=now - 95_000,
        started_ms=now - 90_000,
    )  # fmt: skip
    rows.put(
        scope, tables.JOB, "j3", kind="server.power", server="s3", server_name="db-1",
        state="blocked", waits_for="power it on by hand: the server has no BMC", runner=NODE_A,
        steps=[], created_ms=now - 20_000,
    )  # fmt: skip
    rows.put(
        scope, tables.JOB, "j1", kind="server.deploy", server="s4", server_name="db-2",
        state="failed", error="the image is larger than the disk (480 GB)", runner=NODE_A,
        steps=[], created_ms=now - 400_000, started_ms=now - 390_000, ended_ms=now - 300_000,
    )  # fmt: skip
    for number in range(2):
        rows.put(
            scope, tables.SIGHTING, f"52:54:00:aa:00:0{number}", mac="x", where="dhcp",
            ip=f"10.0.0.9{number}", first_ms=now - 50_000, last_ms=now - 5_000,
            summary="Supermicro X11, serial S4471, 64 GB" if number else "",
        )  # fmt: skip
