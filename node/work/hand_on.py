"""The order ``secret.release``: a node that can open secrets seals them to another one.

It knows rows and a function that seals, never a plaintext. Rules: only for an active node of
this site; one of the nodes that can open the most of what is asked for does it, in one
transaction with the job's row; what it cannot open is named, and what it could is done.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.errors import Refused
from mesh.proto import tables
from mesh.proto.order import Order
from mesh.secrets import copy_key
from node.proto.job import SENTENCE_CHARS_MAX
from node.work.orders import Orders
from node.work.ports import Tx
from node.work.rows import SiteRows

CopyFor = Callable[[str, str], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class HandOn:
    """Carries such orders out at this node."""

    rows: SiteRows
    orders: Orders
    holders: Callable[[], Mapping[str, Collection[str]]]
    """By secret, the nodes of the site that can open it."""
    copy_for: CopyFor
    """Seals a secret (second) to a node (first); raises Refused with one sentence."""

    def able(self, order: Order) -> list[str]:
        """Return the nodes that can open the most of what is asked for; empty: nobody can."""
        target, wanted = str(order.params["node"]), order.params.get("secrets")
        counts: dict[str, int] = {}
        for secret, nodes in self.holders().items():
            if wanted and secret not in wanted:
                continue
            for node in nodes:
                if node != target:
                    counts[node] = counts.get(node, 0) + 1
        most = max(counts.values(), default=0)
        return sorted(node for node, count in counts.items() if count == most)

    async def carry_out(self, order: Order) -> dict[str, Any]:
        """Seal what can be sealed; return the job's row, succeeded or failed."""
        copies, error = self._copies(order)
        row = {"server": None, "server_name": order.params["name"]}

        def fn(tx: Tx) -> dict[str, Any]:
            known = tx.get(self.rows.scope, tables.JOB, order.id)
            if known is not None:
                return dict(known.body)
            for secret, body in copies.items():
                key = copy_key(str(order.params["node"]), secret)
                tx.put(self.rows.scope, tables.SECRET_COPY, key, body)
            job = self.orders.verb_job(order, row, error, tx.now_ms)
            job["params"] = {**job["params"], "secrets": sorted(copies)}
            tx.put(self.rows.scope, tables.JOB, order.id, job)
            return job

        return dict(await self.rows.store.write(fn))

    def _copies(self, order: Order) -> tuple[dict[str, Mapping[str, Any]], str | None]:
        """Return the copies by secret, and what could not be done."""
        node, name, site = str(order.params["node"]), order.params["name"], self.rows.site
        if node not in self.rows.site_nodes():
            return {}, f"{name} is no active node of site {site}"
        held = self.holders()
        able = [secret for secret, nodes in held.items() if self.rows.node_id in nodes]
        wanted = order.params.get("secrets") or able
        copies: dict[str, Mapping[str, Any]] = {}
        missing: list[str] = []
        for secret in sorted(set(wanted)):
            if secret not in able:
                others = "only others can open it" if held.get(secret) else "nobody can open it"
                missing.append(f"{secret} ({others})")
                continue
            try:
                copies[secret] = self.copy_for(node, secret)
            except Refused as exc:
                missing.append(f"{secret} ({exc})")
        if missing:
            return copies, f"not released: {', '.join(missing)}"[:SENTENCE_CHARS_MAX]
        if not copies:
            return {}, (
                f"no other node of site {site} can open a secret: set them again on a hub"
                f" (rackmesh secret set ID --site {site} --username NAME)"
            )
        return copies, None
