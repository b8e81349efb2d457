"""One member of the mesh for benchmarks: register, store, links, address book, detector.

It is a node without boot services, jobs and API, made of the same parts as node/main.py. All
members of a bench are in the register from the start. Lines on stdin tell it what to do, JSON
lines on stdout tell what it sees: ``listens``, ``knows`` (everybody's row, with addresses),
``linked`` (a link to every other member), ``event`` and ``gone``.
"""

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


from mesh.addresses import AddressBook
from mesh.detection import Detection
from mesh.host.clock import SteadyClock
from mesh.host.log import configure
from mesh.link.peers import Peers
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.tables import FLEET, NODE, PRESENCE
from mesh.register_store import RegisterStore
from mesh.store import MeshStore
from mesh.sync import Replication
from mesh.topology import Topology
from tests.support.trust import Org, identity

SITE = "lab"


def say(kind: str, **fields: Any) -> None:
    print(json.dumps({"said": kind, **fields}), flush=True)


class Member:
    """The parts of one member."""

    def __init__(self, number: int, count: int, folder: Path) -> None:
        org = Org()
        self.everybody = [org.admit(f"member-{one}").node_id for one in range(count)]
        self.own = identity(f"member-{number}")
        self.others = set(self.everybody) - {self.own.node_id}
        clock = SteadyClock()
        self.register = RegisterStore.open(folder / "register", org.root_fp)
        self.register.merge_all(org.register.records())
        self.store = MeshStore.open(
            folder / "state.db",
            author=self.own.node_id,
            sign_head=partial(self.own.sign, HEAD_KIND, HEAD_N, org.root_fp),
            clock=clock,
        )
        self.topology = Topology(self.own.node_id, SITE, self.register)
        self.replication = Replication(self.store, self.register, place=self.topology)
        self.book = AddressBook(
            self.own.node_id, self.store, self.register, clock, file=folder / "addresses.json"
        )
        self.detection = Detection(
            self.own.node_id,
            org.root_fp + SITE.encode(),
            self.register,
            lambda: self.everybody,
            self.book,
            clock,
        )
        self.peers = Peers(
            self.own,
            self.register,
            listen=("127.0.0.1", 0),
            hub_link=True,
            services={**self.replication.services(), "detect": self.detection.service},
            rpc={},
            addresses=self.book,
            wanted=self.topology.wanted,
            clock=clock,
        )
        self.detection.use_udp(self.peers.udp)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.store.run)
            await nursery.start(self.replication.run)
            await nursery.start(self.book.run, self.peers)
            await nursery.start(self.detection.run)
            await nursery.start(self.peers.run)
            await nursery.start(self.topology.run, self.peers, self.detection)
            body = {
                "name": self.own.node_id, "site": SITE,
                "addresses": [["127.0.0.1", self.peers.port, self.peers.udp.port]],
            }  # fmt: skip
            await self.store.write(lambda tx: tx.put(FLEET, NODE, self.own.node_id, body))
            nursery.start_soon(self._tell_known)
            nursery.start_soon(self._tell_linked)
            nursery.start_soon(self._tell_events)
            nursery.start_soon(self._tell_gone)
            say("listens", port=self.peers.port, pid=os.getpid())
            await self._obey()
            nursery.cancel_scope.cancel()

    async def _obey(self) -> None:
        async for line in trio.wrap_file(sys.stdin):
            word, _, rest = line.strip().partition(" ")
            if word == "seed":
                self.book.add_seed(rest)
            elif word == "event":
                put = partial(_put_event, key=rest)
                await self.store.write(put)

    async def _tell_known(self) -> None:
        while True:
            version = self.store.version
            authors = {row.author for row in self.store.authored(FLEET, NODE)}
            if self.others <= authors:
                break
            await self.store.wait_past(version)
        say("knows")

    async def _tell_linked(self) -> None:
        while True:
            version = self.peers.version
            if self.others <= self.peers.connected().keys():
                break
            await self.peers.wait_past(version)
        say("linked")

    async def _tell_events(self) -> None:
        known: set[str] = set()
        while True:
            version = self.store.version
            keys = {row.key for row in self.store.authored(FLEET, PRESENCE)}
            for key in keys - known:
                say("event", key=key)
            known |= keys
            await self.store.wait_past(version)

    async def _tell_gone(self) -> None:
        told: set[str] = set()
        while True:
            version = self.detection.version
            gone = set(self.detection.unreachable())
            for node in gone - told:
                say("gone", key=node)
            told = gone
            await self.detection.wait_past(version)


def _put_event(tx: Any, key: str) -> None:
    tx.put(FLEET, PRESENCE, key, {"n": 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    configure("warning")
    options.folder.mkdir(parents=True, exist_ok=True)
    trio.run(Member(options.number, options.count, options.folder).run)


if __name__ == "__main__":
    main()
