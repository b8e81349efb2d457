"""A hub's desks over a real mesh store, report store and cache, without a network."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from cache.api import Cache
from hub.assets import AssetDesk, AssetParts
from hub.ingest import Ingest, MeshRows, order_reader
from hub.live import EventBus
from hub.orders import OrderDesk
from hub.ports import Declaration
from hub.store import ReportStore
from mesh import answers
from mesh.host.clock import FixedClock
from mesh.identity import Identity
from mesh.proto import tables
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.store import MeshStore, Tx
from tests.support.hub_bench import Level
from tests.support.trust import Org

SITE = tables.site_scope("lab")
SERVER = "01890000-0000-7000-8000-000000000001"
MAC = "52:54:00:00:00:01"


class FixedRegister(Level):
    def __init__(self, org: Org) -> None:
        super().__init__()
        self.register = org.register


def said(name: str, url: str | None, sha256: str | None, want: list[str]) -> Declaration:
    return Declaration(name=name, url=url, sha256=sha256, want=want)


@dataclass
class Office:
    org: Org
    hub: Identity
    store: MeshStore
    reports: ReportStore
    orders: OrderDesk
    assets: AssetDesk
    ingest: Ingest
    bus: EventBus
    cache: Cache

    async def put(self, scope: str, table: str, key: str, **body: Any) -> None:
        def write(tx: Tx) -> None:
            tx.put(scope, table, key, body)

        await self.store.write(write)
        await self.ingest.read_all()


@asynccontextmanager
async def office(folder: Path) -> AsyncGenerator[Office]:
    org, clock, bus = Org(), FixedClock(), EventBus("run1")
    hub = org.admit_hub()
    org.admit("node-a")
    store = MeshStore.open(
        folder / "state.db", author=hub.node_id, clock=clock,
        sign_head=lambda body: hub.sign(HEAD_KIND, HEAD_N, org.root_fp, body),
    )  # fmt: skip
    store.local_schema(answers.SCHEMA)
    reports = ReportStore.open(folder / "report.db")
    cache = Cache.open(folder / "cache", 1 << 30, clock)
    desk = OrderDesk(
        store=store, reports=reports, register=org.register, region=org.region, key=org.orders,
        clock=clock, hub="hub",
    )  # fmt: skip
    parts = AssetParts(
        store=store, cache=cache, register=org.register, key=org.assets, bus=bus, clock=clock,
        node_id=hub.node_id,
    )  # fmt: skip
    members = FixedRegister(org)
    reader = order_reader(org.register)
    ingest = Ingest(MeshRows(store), members, reports, bus, clock, reader)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        found = Office(org, hub, store, reports, desk, AssetDesk(parts), ingest, bus, cache)
        await found.put(tables.FLEET, tables.SITE, "lab", title="Lab")
        await found.put(
            SITE, tables.SERVER, SERVER, id=SERVER, name="web-1", site="lab", macs=[MAC],
            state="available", cleaned=True, bmc={"url": "http://10.0.0.9/"},
        )  # fmt: skip
        yield found
        nursery.cancel_scope.cancel()
    reports.close()
    cache.close()
    store.close()


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        await trio.lowlevel.checkpoint()
        yield content
