"""The rows of the store as the snapshot that DHCP answers from, kept up as they change.

It knows no packets. Rule: only merged rows of the site and the NODE rows that members wrote
about themselves go in, plus which of them are gone; nothing of the node it runs on but the
subnet that its own wire is. What other tables do costs nothing; new bindings cost what they
are; anything else builds it anew, which for thousands of servers is done for a fifth of the
time at most, so that the snapshot is that much behind.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

import trio

from mesh.proto import tables
from mesh.proto.codec import unpack_map
from mesh.proto.sets import ROW_BYTES_MAX, Entry, SetId
from mesh.store import MeshStore
from node.proto.lease_snapshot import Snapshot, build, with_bindings

CHEAP_S: Final = 0.02
"""A build that takes less is done whenever rows have changed."""
REST: Final = 5
"""After a dearer one the next starts no sooner than after this many times its duration."""
ABSENT_EACH_S: Final = 0.1
CHANGED_MAX: Final = 2048
"""More bindings than that at once are no news: build."""

Bodies = list[tuple[str, Mapping[str, Any]]]


class SnapshotSource:
    """Hands out the current snapshot.

    ``absent()`` names members that shall own nothing now (suspended, revoked, or not reached);
    ``address`` is where this node serves machines: its subnet is that of clients without relay.
    """

    def __init__(
        self,
        store: MeshStore,
        site: str,
        address: IPv4Address,
        absent: Callable[[], frozenset[str]],
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self.version = 0
        """Version of the store that the current snapshot was built from."""
        self._store = store
        self._site = site
        self._address = address
        self._absent = absent
        self._now = now
        self._seen_absent: frozenset[str] = frozenset()
        self._last_absent: frozenset[str] = frozenset()
        self._ask_absent_at = 0.0
        self._not_before = 0.0
        self._snapshot: Snapshot | None = None
        self._points: dict[SetId, tuple[int, int]] = {}  # how far each set is in it
        self._site_scope = tables.site_scope(site)
        self._watched = {
            self._site_scope: {tables.SUBNET, tables.SERVER, tables.BINDING, tables.PORT_LOCK},
            tables.FLEET: {tables.NODE},
        }

    def current(self) -> Snapshot:
        """Return the snapshot of what is committed (see the module for how far behind)."""
        version, absent = self._store.version, self._gone()
        if self._snapshot is not None:
            if version == self.version and absent == self._seen_absent:
                return self._snapshot
            if self._now() < self._not_before:
                return self._snapshot
        began = self._now()
        kept = self._kept(self._snapshot) if absent == self._seen_absent else None
        self._snapshot = kept or self._build(absent)
        self.version, self._seen_absent = version, absent
        cost_s = self._now() - began
        if cost_s > CHEAP_S:
            self._not_before = began + REST * cost_s
        return self._snapshot

    def _gone(self) -> frozenset[str]:
        """Return who owns nothing now; asked ten times a second, not for every packet."""
        now = self._now()
        if now >= self._ask_absent_at:
            self._ask_absent_at = now + ABSENT_EACH_S
            self._last_absent = self._absent()
        return self._last_absent

    def _kept(self, snapshot: Snapshot | None) -> Snapshot | None:
        """Return the snapshot with what is new in it, None when it must be built anew."""
        if snapshot is None:
            return None
        news = self._news()
        if news is None:
            return None
        changed: Bodies = []
        for author, entry in news:
            body = self._shown(author, entry) if entry.table == tables.BINDING else None
            if body is None or len(changed) >= CHANGED_MAX:
                return None
            changed.append((entry.key, body))
        return with_bindings(snapshot, changed) if changed else snapshot

    def _shown(self, author: str, entry: Entry) -> Mapping[str, Any] | None:
        """Return what its key shows; our own rows overrule all that was here before them."""
        if author == self._store.author:
            return unpack_map(entry.body, ROW_BYTES_MAX) if entry.body else None
        row = self._store.get(self._site_scope, entry.table, entry.key)
        return row.body if row is not None else None

    def _news(self) -> list[tuple[str, Entry]] | None:
        """Return rows of our tables written since the snapshot's version, None: unknown."""
        changes = self._store.changes_since(self.version)
        if changes is None:
            return None
        found: list[tuple[str, Entry]] = []
        for set_id, signed in changes.items():
            watched = self._watched.get(set_id.scope)
            if watched is None:
                continue
            epoch, seq = self._points.get(set_id, (0, 0))
            if signed is None or (seq and signed.head.epoch != epoch) or signed.head.base > seq:
                return None  # rows may be gone without a word
            entries = self._store.entries_since(set_id, seq)
            found += [(set_id.author, entry) for entry in entries if entry.table in watched]
            self._points[set_id] = signed.head.point
        return found

    def _build(self, absent: frozenset[str]) -> Snapshot:
        self._points = {
            set_id: signed.head.point
            for set_id, signed in self._store.heads.items()
            if set_id.scope in self._watched
        }
        subnets = self._merged(tables.SUBNET)
        nodes = [
            (row.key, row.body)
            for row in self._store.authored(tables.FLEET, tables.NODE)
            if row.author == row.key
        ]
        return build(
            subnets=subnets,
            servers=self._merged(tables.SERVER),
            bindings=self._merged(tables.BINDING),
            nodes=nodes,
            locks=self._merged(tables.PORT_LOCK),
            site=self._site,
            direct=self._own_wire([key for key, _ in subnets]),
            absent=absent,
        )

    def _merged(self, table: str) -> Bodies:
        return [(row.key, row.body) for row in self._store.rows(self._site_scope, table)]

    def _own_wire(self, cidrs: list[str]) -> IPv4Network | None:
        for cidr in sorted(cidrs):
            try:
                network = IPv4Network(cidr)
            except ValueError:
                continue
            if self._address in network:
                return network
        return None
