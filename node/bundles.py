"""The node's part in bundles: takes in what was carried to its machine.

It binds ``cache/carrying.py`` to the API and decides nothing. Rule: only who may use the node's
own socket can name a file, and the node reads it as its own user.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cache.api import CacheError, Carrier, NoSpace
from mesh.courier import Courier
from mesh.rest.bundle_alike import seal_handlers
from mesh.rest.calls import Call
from mesh.rest.problems import RequestProblem
from mesh.rest.shelf_types import BundleTaken

if TYPE_CHECKING:
    from node.main import Node

Handler = Callable[[Call], Awaitable[Any]]
ABSOLUTE: Final = "give the file's whole path, from / on"


def bundle_handlers(node: "Node") -> dict[str, Handler]:
    """Return what a node does about bundles, by operation."""
    register = node.register.register
    carrier = Carrier(
        cache=node.cache,
        root_fp=register.root_fp,
        take_state=Courier(node.store, node.register).take,
        asset_of=node.assets.asset_of,
        is_member=lambda member: node.site_of(member) is not None,
    )
    seal = seal_handlers(node.identity.signer, register.root_fp, node.clock)
    return seal | import_handlers(carrier)


def import_handlers(carrier: Carrier) -> dict[str, Handler]:
    """Return the handlers by operation."""

    async def take(call: Call) -> BundleTaken:
        path = Path(call.body.file)
        if not path.is_absolute():
            raise RequestProblem("bad-request", f"{call.body.file[:60]!r}: {ABSOLUTE}")
        try:
            found = await carrier.take(path, call.body.at or 0)
        except NoSpace as exc:
            raise RequestProblem("full", str(exc)) from exc
        except CacheError as exc:
            raise RequestProblem("conflict", str(exc)) from exc
        return BundleTaken(
            file=str(path), signed_by=found.signed_by, names=list(found.names),
            done=found.done, of=found.of, next=found.next,
        )  # fmt: skip

    return {"importBundle": take}
