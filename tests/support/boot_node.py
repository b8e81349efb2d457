"""A node's boot services alone: a real store, real sockets, decisions that a test sets."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from mesh.host.clock import FixedClock
from mesh.proto import tables
from mesh.store import MeshStore
from node.boot.files import BootFiles
from node.boot.ports import AssetReader, Refusal
from node.boot.service import BootConfig, BootServices
from tests.support.members import sign_head

SCOPE = tables.site_scope("lab")
SCRIPT = "#!ipxe\necho hello\n"
GUARD_S = 30.0


@dataclass
class Decisions:
    """Says the same to everyone and remembers who asked."""

    script: str | Refusal = SCRIPT
    medium: str | Refusal | None = None
    config: str = "set timeout=0\n"
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    script_asked: trio.Event = field(default_factory=trio.Event)

    async def script_for(self, mac: str, client_ip: str) -> str | Refusal:
        self.asked.append(("script", mac, client_ip))
        self.script_asked.set()
        return self.script

    async def agent(
        self, path: str, body: bytes, headers: Mapping[str, str], client_ip: str
    ) -> tuple[int, dict[str, Any]]:
        self.asked.append(("agent", path, body, headers.get("x-rackmesh-session"), client_ip))
        return 200, {"session": "s"}

    async def media(
        self, capability: str, name: str, asked_bytes: int, client_ip: str
    ) -> str | Refusal | None:
        self.asked.append(("media", capability, name, asked_bytes, client_ip))
        return self.medium

    async def disc(self, capability: str, client_ip: str) -> str | Refusal:
        self.asked.append(("disc", capability, client_ip))
        return self.config if capability == "good" else Refusal("revoked")

    async def phone_in(
        self, capability: str, fields: Mapping[str, str], client_ip: str
    ) -> tuple[int, dict[str, Any]]:
        self.asked.append(("phone", capability, dict(fields), client_ip))
        return 200, {}


class NoAssets:
    """A cache that holds nothing."""

    def manifest(self, asset: str) -> None:
        return None

    def reader(self, asset: str) -> AssetReader | None:
        return None


@dataclass
class Node:
    store: MeshStore
    boot: BootServices
    decisions: Decisions
    clock: FixedClock


@asynccontextmanager
async def boot_node(
    folder: Path,
    config: BootConfig,
    *,
    subnet: Mapping[str, Any],
    files: BootFiles | None = None,
    assets: Any = None,
    servers: Mapping[str, Mapping[str, Any]] | None = None,
    author: str = "a",
    near: Callable[[], Collection[str]] = frozenset,
    guard_s: float = GUARD_S,
) -> AsyncIterator[Node]:
    """Run the services of one node that has published where it serves machines."""
    clock = FixedClock()
    store = MeshStore.open(
        folder / "state.db", author=author, sign_head=sign_head(author), clock=clock
    )
    decisions = Decisions()
    with store, trio.fail_after(guard_s):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            boot = BootServices(
                config, store, decisions, assets or NoAssets(), files or BootFiles(), clock,
                near=near,
            )  # fmt: skip
            async with trio.open_nursery() as services:
                await services.start(boot.run)
                row = {
                    "site": "lab",
                    "boot_url": boot.boot_url,
                    "services": ["dhcp", "tftp", "http"],
                }

                def publish(tx: Any) -> None:
                    tx.put(tables.FLEET, tables.NODE, author, row)
                    tx.put(SCOPE, tables.SUBNET, subnet["cidr"], subnet)
                    for key, body in (servers or {}).items():
                        tx.put(SCOPE, tables.SERVER, key, body)

                await store.write(publish)
                yield Node(store, boot, decisions, clock)
                services.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
