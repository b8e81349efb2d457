"""Who of a site can open which secret: each node says so itself, by id, in rows of its own.

It knows ids and versions, never a plaintext. Rules: a row says what its author could open when
it last looked; a node that joined later has none until somebody sets the secret again, and so
gets no job that needs it.
"""

from collections.abc import Callable, Mapping

from mesh.proto import tables
from node.work.ports import Tx
from node.work.rows import SiteRows


class Keyring:
    """Tells the others what this node can open, and reads what they can."""

    def __init__(self, rows: SiteRows, readable: Callable[[], Mapping[str, int]]) -> None:
        self._rows = rows
        self._readable = readable

    async def publish(self) -> None:
        """Let our rows follow what we can open."""
        rows = self._rows.store.authored(self._rows.scope, tables.NODE_SECRET)
        told = {r.key: r.body.get("version") for r in rows if r.author == self._rows.node_id}
        opens = dict(self._readable())
        if told == opens:
            return

        def fn(tx: Tx) -> None:
            for secret in told.keys() - opens.keys():
                tx.drop(self._rows.scope, tables.NODE_SECRET, secret)
            for secret, version in opens.items():
                if told.get(secret) != version:
                    body = {"version": version}
                    tx.put(self._rows.scope, tables.NODE_SECRET, secret, body)

        await self._rows.store.write(fn)

    def holders(self) -> dict[str, frozenset[str]]:
        """Return, by secret, the active nodes of the site that say they can open it."""
        rows = self._rows.store.authored(self._rows.scope, tables.NODE_SECRET)
        nodes, found = set(self._rows.site_nodes()), dict[str, set[str]]()
        for row in rows:
            if row.author in nodes:
                found.setdefault(row.key, set()).add(row.author)
        return {secret: frozenset(names) for secret, names in found.items()}
