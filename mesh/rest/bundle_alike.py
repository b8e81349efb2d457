"""What hub and node do alike about bundles: sign what was put into one.

It knows no file. Rule: the signature says who made a bundle and nothing else; names in it count
by their own.
"""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from mesh.host.clock import Clock
from mesh.proto.bundle import make_seal
from mesh.proto.ids import node_id
from mesh.proto.sign import Signer
from mesh.rest.calls import Call
from mesh.rest.shelf_types import BundleSealed

Handler = Callable[[Call], Awaitable[Any]]


def seal_handlers(signer: Signer, root_fp: bytes, clock: Clock) -> dict[str, Handler]:
    """Return the handlers by operation."""

    async def seal(call: Call) -> BundleSealed:
        await trio.lowlevel.checkpoint()
        digest = bytes.fromhex(call.body.index)
        made = make_seal(signer, root_fp, digest, clock.now_ms())
        return BundleSealed(node=node_id(signer.public), seal=base64.b64encode(made).decode())

    return {"sealBundle": seal}
