"""A member on a local network, for tests with namespaces: links, address book and mDNS alone.

``python -m tests.support.lan_member LABEL PEER SITE HOST`` prints ``linked`` when there is a
link to PEER; nobody tells it an address.
"""

import sys

import trio

from mesh.addresses import AddressBook
from mesh.link.peers import Peers
from mesh.mdns import Mdns, site_tag
from tests.io.test_addresses import NodeRows
from tests.support.link_mesh import Roster, StepClock
from tests.support.trust import Org, identity


async def say_linked(peers: Peers, node: str) -> None:
    await peers.wait_live(node)
    print("linked", flush=True)


async def main(label: str, peer: str, site: str, host: str) -> None:
    org = Org()
    for name in (label, peer):
        org.admit(name)
    own, roster = identity(label), Roster(org)
    book = AddressBook(own.node_id, NodeRows(), roster, StepClock())
    peers = Peers(
        own, roster, listen=("0.0.0.0", 0), hub_link=True, services={}, rpc={}, streams={},
        addresses=book, clock=StepClock(),
    )  # fmt: skip
    mdns = Mdns(
        own.node_id, site_tag(org.root_fp, site), lambda: peers.port, lambda: [host], book.found
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run, peers)
        await nursery.start(peers.run)
        nursery.start_soon(mdns.run)
        print("runs", flush=True)
        nursery.start_soon(say_linked, peers, identity(peer).node_id)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
