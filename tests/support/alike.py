"""Handlers of what hub and node do alike, with nothing behind them."""

from base64 import b64encode
from typing import Any

import trio

from mesh.errors import Refused
from mesh.proto.courier import make_piece
from mesh.proto.sync_wire import Records
from mesh.rest.calls import Call
from mesh.rest.shelf_types import AssetChecked, AssetsFreed, BundleSealed, FreedAsset
from mesh.rest.trust_types import KeyRotated, MemberChanged, StatePiece, StateTaken
from mesh.rest.types import Holdings

EMPTY = b64encode(make_piece(Records(0, (), False))).decode()
STATUS = {
    "revokeNode": "revoked", "suspendNode": "suspended", "resumeNode": "member",
    "allowRelay": "member", "denyRelay": "member",
}  # fmt: skip


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

    changes = {operation: change(operation) for operation in STATUS}
    rest = {"rotateKey": rotate, "exportState": give, "importState": take, "getHoldings": hold}
    shelf = {"verifyAsset": verify, "collectAssets": collect, "sealBundle": seal}
    return {**changes, **rest, **shelf}
