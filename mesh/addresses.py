"""The address book of a running member: fed by rows, links, seeds and the local network.

It knows no handshake; mesh/proto/address_book.py decides what is kept, in which order. Rules:
what worked survives a restart in one small file, written beside and renamed; a file that is
damaged is an empty one; nothing that stands here is trusted, it is only dialled.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from mesh.host.clock import Clock
from mesh.host.files import write_json
from mesh.host.log import get_log
from mesh.link.peers import Peers
from mesh.proto.address_book import AddressBookCore, Place, listed_places, parse_seed
from mesh.proto.tables import FLEET, NODE

FILE_BYTES_MAX: Final = 1 << 20
SAVE_S: Final = 60.0
"""At most so often the file is written."""
STRANGERS_MAX: Final = 64
"""Members for whom a seed without an id is tried."""

_LOG = get_log("addresses")
_WRITER: Final = trio.CapacityLimiter(1)


class Rows(Protocol):
    """What the book asks of mesh.store.MeshStore."""

    @property
    def version(self) -> int:
        """Grows with every commit."""
        ...

    async def wait_past(self, version: int) -> int:
        """Wait for a commit."""
        ...

    def changes_since(self, version: int) -> Mapping[Any, Any] | None:
        """Return the sets that changed, None when it is too long ago."""
        ...

    def authored(self, scope: str, table: str, key: str | None = None) -> Sequence[Any]:
        """Return the authors' own rows."""
        ...


class AddressBook:
    """Where to dial whom; ``book()`` is what Peers wants as ``addresses``."""

    def __init__(
        self,
        own: str,
        store: Rows,
        register: Any,
        clock: Clock,
        *,
        file: Path | None = None,
        seeds: Sequence[str] = (),
    ) -> None:
        """``register``: RegisterStore; ``seeds``: as ``parse_seed`` reads them."""
        self._own = own
        self._store = store
        self._register = register
        self._clock = clock
        self._file = file
        self._core = AddressBookCore(own)
        self._noted: set[tuple[str, int]] = set()  # links seen: peer, since
        self._saved: dict[str, Any] = {}
        self._peers: Peers | None = None
        for seed in seeds:
            self._core.add_seed(parse_seed(seed))

    def __call__(self) -> Mapping[str, Sequence[Place]]:
        """Return the addresses of all peers, best first."""
        return self._core.table

    def add_seed(self, text: str) -> None:
        """Take one more address while running; raises ValueError."""
        self._core.add_seed(parse_seed(text))
        self._look_for_strangers()
        self._changed()

    def found(self, node: str, places: Sequence[Place]) -> None:
        """Take what is said on the local network; empty: it is no longer said."""
        if not places or self._register.register.active(node):
            self._core.set_found(node, places)
            self._changed()

    async def run(
        self, peers: Peers, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the book until cancelled; started once file and rows are read."""
        self._peers = peers
        self._load()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch_rows)
            nursery.start_soon(self._watch_links, peers)
            nursery.start_soon(self._watch_members)
            if self._file is not None:
                nursery.start_soon(self._keep_file, self._file)
            task_status.started()

    def _changed(self) -> None:
        if self._peers is not None:
            self._peers.look_again()

    # -- within: sources ---------------------------------------------------------------------

    async def _watch_rows(self, *, task_status: trio.TaskStatus[None]) -> None:
        version = self._store.version
        for row in self._store.authored(FLEET, NODE):
            self._take_row(row)
        task_status.started()
        while True:
            before, version = version, await self._store.wait_past(version)
            changes = self._store.changes_since(before)
            if changes is None:
                rows = list(self._store.authored(FLEET, NODE))
            else:
                authors = {one.author for one in changes if one.scope == FLEET}
                rows = [
                    row
                    for author in authors
                    for row in self._store.authored(FLEET, NODE, author)
                ]
            for row in rows:
                self._take_row(row)

    def _take_row(self, row: Any) -> None:
        if row.author == row.key:
            before = self._core.table.get(row.author)
            self._core.set_rows(row.author, listed_places(row.body))
            if self._core.table.get(row.author) != before:
                self._changed()

    async def _watch_links(self, peers: Peers) -> None:
        version = -1
        while True:
            version = await peers.wait_past(version)
            links = peers.connected()
            for node, info in links.items():
                if info.path == "tcp" and (node, info.since_ms) not in self._noted:
                    self._note(node, info.address, dialled=info.dialled)
            self._noted = {(node, info.since_ms) for node, info in links.items()}
            self._look_for_strangers()

    def _note(self, node: str, address: str, *, dialled: bool) -> None:
        try:
            host, port = parse_seed(address).place
        except ValueError:
            return  # the peer went before its address was asked
        if dialled:
            self._core.worked(node, (host, port), self._clock.now_ms())
        else:
            self._core.seen(node, host)

    async def _watch_members(self) -> None:
        while True:
            version = self._register.version
            self._look_for_strangers()
            await self._register.wait_past(version)

    def _look_for_strangers(self) -> None:
        """Say for whom seeds without an id are tried: members that have no link."""
        if not self._core.has_strange_seeds or self._peers is None:
            return
        links = self._peers.connected()
        far = (
            one.node_id
            for one in self._register.register.members()
            if one.status == "member" and one.node_id not in links
        )
        if self._core.set_strangers(islice(far, STRANGERS_MAX)):
            self._changed()

    # -- within: the file --------------------------------------------------------------------

    def _load(self) -> None:
        if self._file is None:
            return
        try:
            with self._file.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            memory = json.loads(data) if len(data) <= FILE_BYTES_MAX else None
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as exc:
            _LOG.warning("known addresses not read", path=self._file, error=str(exc))
            return
        self._core.remember(memory)
        self._saved = self._core.memory()

    async def _keep_file(self, file: Path) -> None:
        try:
            while True:
                await trio.sleep(SAVE_S)
                await self._save(file)
        finally:
            with trio.CancelScope(shield=True):
                await self._save(file)

    async def _save(self, file: Path) -> None:
        memory = self._core.memory()
        if memory == self._saved:
            return
        try:
            await trio.to_thread.run_sync(write_json, file, memory, limiter=_WRITER)
            self._saved = memory
        except OSError as exc:  # a full disk; the next round tries again
            _LOG.warning("known addresses not written", path=file, error=exc.strerror)
