"""The order desk: from a request to signed orders that the sites will find in their rows.

It knows no job. Rule: the rows of a request's orders and the memory of its idempotency key are
written in one transaction, so a request that is repeated, whatever happened to the first
answer, gives the same orders.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from hub.errors import Denied, NotFound
from hub.hooks import hooks_of
from hub.known import HubKnown
from hub.store import Json, ReportStore
from hub.templates import templates_of
from mesh.errors import CodecError
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.ids import uuid7
from mesh.proto.naming import open_name
from mesh.proto.order import DESTRUCTIVE, JOB_VERBS, Order, sign_order
from mesh.proto.register import Register
from mesh.proto.sign import KeySigner
from mesh.rest import groups
from mesh.rest.asset_view import assets
from mesh.rest.calls import Keep
from mesh.rest.import_types import Imported, ImportRequest
from mesh.rest.imports import plan_import
from mesh.rest.lists import plan
from mesh.rest.orders import Draft, draft, not_after_ms
from mesh.rest.requests import GROUP_MAX, LIMIT_MAX, ListQuery
from mesh.rest.types import GroupAccepted, GroupVerb, OrderAccepted
from mesh.secrets import set_secret
from mesh.store import MeshStore, Row, Tx

log = get_log("orders")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderDesk:
    """Takes orders for every site of the organisation."""

    store: MeshStore
    reports: ReportStore
    register: Register
    region: str
    key: KeySigner
    clock: Clock
    hub: str

    async def submit(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> OrderAccepted:
        """Resolve names, sign and store; returns once the order is durable here.

        ``keep`` remembers the answer in the transaction that writes the order.
        """
        made = draft(asked, self._known(), self._new_id())
        order = self._order(made, author, asked)
        job = str(made.params["job"]) if made.kind in JOB_VERBS else order.id
        answer = OrderAccepted(order=order.id, job=job, site=made.site, server=made.server)
        await self._write([order], answer, keep)
        log.info("order given", order=order.id, kind=made.kind, site=made.site, user=author)
        return answer

    async def submit_group(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> GroupAccepted:
        """Give the same order for many servers; all orders are durable, or none."""
        known = self._known()
        servers = groups.chosen(asked, known, self._filtered)
        params = asked.get("params") or {}
        made, refused = groups.drafts(str(asked["kind"]), params, servers, known)
        names = {server["id"]: str(server["name"]) for server in servers}
        group = self._new_id()
        orders = [self._order(one, author, asked, group) for one in made]
        answer = GroupAccepted(
            group=group,
            kind=str(asked["kind"]),
            destructive=sum(one.order_class == DESTRUCTIVE for one in made),
            orders=[
                groups.ordered(order.id, one, names)
                for order, one in zip(orders, made, strict=True)
            ],
            refused=refused,
        )
        await self._write(orders, answer, keep)
        log.info(
            "group ordered", order=group, kind=answer["kind"], count=len(orders), user=author
        )
        return answer

    async def submit_import(
        self, asked: ImportRequest, author: str, keep: Keep | None = None
    ) -> Imported:
        """Make servers of a file: all orders and secrets are durable, or none."""
        index = self.store.rows(tables.HUBS, tables.SECRET_INDEX)
        known, secrets = self._known(), {row.key for row in index}
        found = plan_import(asked, known, self._new_id, site=asked.site, secrets=secrets)
        dry = asked.dry_run is True
        if found.faults or dry:
            return found.answer(dry, (), ())
        kinds = {one.draft.kind for one in found.servers}
        groups = {kind: self._new_id() for kind in sorted(kinds)}
        orders = [
            self._order(one.draft, author, {}, groups[one.draft.kind]) for one in found.servers
        ]
        answer = found.answer(False, [order.id for order in orders], list(groups.values()))

        def seal(tx: Tx) -> None:
            for one in found.servers:
                if one.sealed is not None:
                    value, site = one.sealed.value.encode(), one.sealed.site
                    set_secret(tx, self.register, one.sealed.id, "bmc", value, site=site)

        await self._write(orders, answer, keep, seal)
        log.info("servers imported", count=len(orders), user=author)
        return answer

    async def tell_group(
        self, group: str, kind: str, author: str, keep: Keep | None = None
    ) -> GroupVerb:
        """Cancel or retry (``kind``) every job of a group that can take it."""
        jobs = self.reports.grouped(group)
        if not jobs:
            raise NotFound(f"there is no group {group[:100]!r}")
        made = groups.to_do(group, kind, jobs)
        answer = GroupVerb(
            group=group, kind=kind, jobs=[str(one.params["job"]) for one in made]
        )
        await self._write([self._order(one, author, {}) for one in made], answer, keep)
        log.info("group told", order=group, kind=kind, count=len(made), user=author)
        return answer

    def _filtered(self, text: str) -> list[Mapping[str, Any]]:
        """Return the servers that pass a filter, one more than a group may have."""
        assert GROUP_MAX < LIMIT_MAX
        asked = plan("servers", ListQuery(filter=text, limit=GROUP_MAX + 1))
        return list(self.reports.page("server", asked).items)

    async def _write(
        self,
        orders: Sequence[Order],
        answer: Any,
        keep: Keep | None,
        also: Callable[[Tx], None] = lambda _tx: None,
    ) -> None:
        now_ms, signed = self.clock.now_ms(), list[bytes]()
        for order in orders:
            signed.append(sign_order(order, self.key, self.register.root_fp))
            await trio.lowlevel.checkpoint()

        def write(tx: Tx) -> None:
            for order, data in zip(orders, signed, strict=True):
                body = {"signed": data, "created_ms": now_ms}
                tx.put(tables.site_scope(order.site), tables.ORDER, order.id, body)
            also(tx)
            if keep is not None:
                keep(tx, answer)

        await self.store.write(write)

    def _known(self) -> HubKnown:
        return HubKnown(
            self.reports, self._images(), templates_of(self.store), hooks_of(self.store)
        )

    def _new_id(self) -> str:
        return uuid7(self.clock.now_ms(), os.urandom(10))

    def _images(self) -> dict[str, Json]:
        """Return every asset with the ids that the assets key names."""
        names: list[Row] = []
        for row in self.store.rows(tables.FLEET, tables.NAME):
            try:
                named = open_name(row.body.get("signed") or b"", self.register)
            except CodecError:
                continue
            if named.name == row.key:
                names.append(replace(row, body={**row.body, "asset": named.asset}))
        references = self.store.rows(tables.FLEET, tables.REFERENCE)
        return {item["name"]: {**item} for item in assets(references, names, (), ())}

    def _order(
        self, made: Draft, author: str, asked: Mapping[str, Any], group: str | None = None
    ) -> Order:
        keys = self.register.order_keys(self.region)
        if keys is None or self.key.public not in keys.keys:
            raise Denied(f"this hub's key gives no orders for region {self.region} any more")
        return Order(
            id=self._new_id(),
            region=self.region,
            region_epoch=keys.epoch,
            site=made.site,
            kind=made.kind,
            params=made.params,
            author=f"{author}@{self.hub}",
            not_after_ms=not_after_ms(asked, self.clock.now_ms()),
            order_class=made.order_class,
            group=group,
        )
