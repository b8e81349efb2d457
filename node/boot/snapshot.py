"""The rows of the store as the snapshot that DHCP answers from, built again when they change.

It knows no packets. Rule: only merged rows of the site and the NODE rows that members wrote
about themselves go in, plus which of them are gone; nothing of the node it runs on but the
subnet that its own wire is. A snapshot that is expensive to build (thousands of servers) is
built for a fifth of the time at most and is that much behind; a small one never is.
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

import trio

from mesh.proto import tables
from mesh.store import MeshStore
from node.proto.lease_snapshot import Snapshot, build

CHEAP_S: Final = 0.02
"""A build that takes less is done whenever rows have changed."""
REST: Final = 5
"""After a dearer one the next starts no sooner than after this many times its duration."""


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
        self._not_before = 0.0
        self._snapshot: Snapshot | None = None

    def current(self) -> Snapshot:
        """Return the snapshot of what is committed (see the module for how far behind)."""
        version, absent = self._store.version, self._absent()
        if self._snapshot is not None:
            if version == self.version and absent == self._seen_absent:
                return self._snapshot
            if self._now() < self._not_before:
                return self._snapshot
        began = self._now()
        self._snapshot = self._build(absent)
        self.version, self._seen_absent = version, absent
        cost_s = self._now() - began
        if cost_s > CHEAP_S:
            self._not_before = began + REST * cost_s
        return self._snapshot

    def _build(self, absent: frozenset[str]) -> Snapshot:
        scope = tables.site_scope(self._site)
        subnets = self._merged(scope, tables.SUBNET)
        nodes = [
            (row.key, row.body)
            for row in self._store.authored(tables.FLEET, tables.NODE)
            if row.author == row.key
        ]
        return build(
            subnets=subnets,
            servers=self._merged(scope, tables.SERVER),
            bindings=self._merged(scope, tables.BINDING),
            nodes=nodes,
            locks=self._merged(scope, tables.PORT_LOCK),
            site=self._site,
            direct=self._own_wire([key for key, _ in subnets]),
            absent=absent,
        )

    def _merged(self, scope: str, table: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(row.key, row.body) for row in self._store.rows(scope, table)]

    def _own_wire(self, cidrs: list[str]) -> IPv4Network | None:
        for cidr in sorted(cidrs):
            try:
                network = IPv4Network(cidr)
            except ValueError:
                continue
            if self._address in network:
                return network
        return None
