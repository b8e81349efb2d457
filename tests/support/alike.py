"""Handlers of what hub and node do alike, with nothing behind them."""

from typing import Any

import trio

from mesh.errors import Refused
from mesh.rest.calls import Call
from mesh.rest.trust_types import KeyRotated, MemberChanged, StatePiece, StateTaken
from mesh.rest.types import Holdings

STATUS = {"revokeNode": "revoked", "suspendNode": "suspended", "resumeNode": "member"}


def fake_alike(node: str) -> dict[str, Any]:
    """Return handlers that remember nothing."""

    def change(operation: str) -> Any:
        async def handler(call: Call) -> MemberChanged:
            await trio.lowlevel.checkpoint()
            if call.parts["node"] == node:
                raise Refused("nobody changes its own membership")
            return MemberChanged(
                id=call.parts["node"], name="n", site="fra1", status=STATUS[operation],
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
        return StatePiece(piece="AAAA", next=None, done=0, of=0)

    async def take(_call: Call) -> StateTaken:
        await trio.lowlevel.checkpoint()
        return StateTaken(records=1, sets=0, known=0, refused={})

    changes = {operation: change(operation) for operation in STATUS}
    rest = {"rotateKey": rotate, "exportState": give, "importState": take, "getHoldings": hold}
    return {**changes, **rest}
