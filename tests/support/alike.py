"""Handlers of what hub and node do alike, with nothing behind them."""

from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import trio

from mesh.errors import Refused
from mesh.proto.courier import make_piece
from mesh.proto.erase_record import record_id, sign_erase
from mesh.proto.sync_wire import Records
from mesh.rest.calls import Call
from mesh.rest.erase_alike import EraseAlike
from mesh.rest.import_types import Imported
from mesh.rest.shelf_types import AssetChecked, AssetsFreed, BundleSealed, FreedAsset
from mesh.rest.trust_types import KeyRotated, MemberChanged, StatePiece, StateTaken
from mesh.rest.types import Holdings
from tests.support.trust import Org, identity

ORG = Org("erased")
ORG.register.merge(ORG.roster(identity("eraser"), "fra1"))
ERASED: dict[str, Any] = {
    "id": record_id("j1", "wipe.1.1.0"), "site": "fra1", "server": "s1", "server_name": "web-1",
    "job": "j1", "author": "ann@hub", "command": "wipe.1.1.0", "attempt": 1,
    "disk": {"model": "M", "serial": "D1", "bytes": 1 << 30}, "method": "overwrite",
    "level": "clear", "wanted": "clear", "fallback": False, "attempts": [], "said": {},
    "samples": 256, "markers": 129, "telling": 1032, "pattern": "zeros", "seed": "ab" * 32,
    "verified_bytes": 1 << 30, "direct": True, "proved": True, "started_ms": 1, "ended_ms": 2,
    "session_key": "00" * 32, "machine": {"uuid": "u", "serial": "x"}, "ramdisk": "",
    "policy": {}, "on_hardware": "", "node": identity("eraser").node_id,
}  # fmt: skip
SIGNED = sign_erase(identity("eraser").signer, ORG.root_fp, ERASED)
EMPTY = b64encode(make_piece(Records(0, (), False))).decode()
STATUS = {
    "revokeNode": "revoked", "suspendNode": "suspended", "resumeNode": "member",
    "allowRelay": "member", "denyRelay": "member",
}  # fmt: skip


class OneRecord:
    """A store with one server, one erase record, and policies that are kept."""

    def __init__(self) -> None:
        self.bodies: dict[tuple[str, str], dict[str, Any]] = {
            ("server", "s1"): {"name": "web-1"},
            ("erase_record", ERASED["id"]): {"signed": SIGNED},
        }

    def get(self, _scope: str, table: str, key: str) -> Any:
        body = self.bodies.get((table, key))
        return None if body is None else SimpleNamespace(key=key, body=body)

    def rows(self, scope: str, table: str) -> list[Any]:
        return [self.get(scope, table, key) for of, key in self.bodies if of == table]

    async def write(self, fn: Any) -> None:
        def put(_scope: str, table: str, key: str, body: dict[str, Any]) -> None:
            self.bodies[table, key] = body

        await trio.lowlevel.checkpoint()
        fn(SimpleNamespace(put=put, now_ms=5))


def fake_alike(node: str) -> dict[str, Any]:
    """Return handlers that remember nothing."""

    def change(operation: str) -> Any:
        async def handler(call: Call) -> MemberChanged:
            await trio.lowlevel.checkpoint()
            if call.parts["node"] == node:
                raise Refused("nobody changes its own membership")
            return MemberChanged(
                id=call.parts["node"], name="n", site="fra1", status=STATUS[operation],
                relays=operation == "allowRelay",
                secrets=["bmc-1"] if operation == "revokeNode" else [],
            )  # fmt: skip

        return handler

    async def rotate(_call: Call) -> KeyRotated:
        await trio.lowlevel.checkpoint()
        return KeyRotated(node=node, epoch=2)

    async def hold(_call: Call) -> Holdings:
        await trio.lowlevel.checkpoint()
        return Holdings(register="00", scopes={"fleet": "00"})

    async def give(_call: Call) -> StatePiece:
        await trio.lowlevel.checkpoint()
        return StatePiece(piece=EMPTY, next=None, done=0, of=0)

    async def take(_call: Call) -> StateTaken:
        await trio.lowlevel.checkpoint()
        return StateTaken(records=1, sets=0, known=0, refused={})

    async def verify(call: Call) -> AssetChecked:
        await trio.lowlevel.checkpoint()
        name, first = call.parts["name"], call.query.first
        return AssetChecked(
            name=name, asset=f"b3:{'0' * 64}", checked=2, damaged=0, of=4,
            next=2 if first == 0 else None,
        )  # fmt: skip

    async def collect(call: Call) -> AssetsFreed:
        await trio.lowlevel.checkpoint()
        freed = FreedAsset(asset=f"b3:{'0' * 64}", names=["old"], bytes=1 << 20)
        return AssetsFreed(dry_run=bool(call.body.dry_run), bytes=1 << 20, assets=[freed])

    async def seal(_call: Call) -> BundleSealed:
        await trio.lowlevel.checkpoint()
        return BundleSealed(node=node, seal="AAAA")

    erases = EraseAlike(OneRecord(), ORG.register, lambda: ["fra1"]).handlers()
    changes = {operation: change(operation) for operation in STATUS}
    rest = {"rotateKey": rotate, "exportState": give, "importState": take, "getHoldings": hold}
    shelf = {"verifyAsset": verify, "collectAssets": collect, "sealBundle": seal}
    return {**changes, **rest, **shelf, **erases}


class FakeImports:
    """Takes files of servers and makes nothing of them."""

    orders: list[tuple[dict[str, Any], str]]

    async def submit_import(self, asked: Any, author: str, keep: Any = None) -> Imported:
        await trio.lowlevel.checkpoint()
        self.orders.append(({"kind": "import", "format": asked.format}, author))
        return Imported(
            dry_run=asked.dry_run is True, rows=0, faults=[], faults_more=0, servers=[],
            groups=[],
        )  # fmt: skip
