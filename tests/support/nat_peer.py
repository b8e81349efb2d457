"""One member as a process of its own, for tests that put members behind NAT boxes.

``python nat_peer.py LABEL [HUB-ADDRESS]``: a node of the test organisation that knows only the
hub's address (or the hub itself, without one). Every line read is a member's label: it is
called, and the answer says which path the link took.
"""

import json
import sys

import trio

from mesh.errors import MeshError
from tests.support.link_mesh import Place
from tests.support.trust import Org

PORT = 4770
LABELS = ("a", "b")


def make(label: str, hub: str | None) -> tuple[Place, dict[str, str]]:
    org = Org()
    ids = {name: org.admit(name).node_id for name in LABELS}
    ids["hub"] = org.admit_hub("hub").node_id

    async def echo(peer: str, body: object) -> object:
        return body

    place = Place(org, label, rpc={"echo": echo})
    place.peers._listen = ("0.0.0.0", PORT)
    if hub:
        place.addresses[ids["hub"]] = [(hub, PORT)]
    return place, ids


async def main(label: str, hub: str | None = None) -> None:
    place, ids = make(label, hub)
    async with trio.open_nursery() as nursery:
        await nursery.start(place.peers.run)
        print(json.dumps({"udp": place.peers.udp.port}), flush=True)
        lines = trio.wrap_file(sys.stdin)
        async for line in lines:
            print(json.dumps(await call(place, ids[line.strip()])), flush=True)
        nursery.cancel_scope.cancel()


async def call(place: Place, node: str) -> dict[str, object]:
    """Call a member, and tell over which path."""
    data = "x" * 100_000
    try:
        echoed = await place.peers.rpc(node, "echo", data, 10)
    except MeshError as exc:
        return {"error": str(exc)}
    info = place.peers.connected().get(node)
    return {"path": info.path.split()[0] if info else None, "same": echoed == data}


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
