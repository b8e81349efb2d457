"""The order desk: from a request to a signed order that the site will find in its rows.

It knows no job. Rules: the order's row and the memory of its idempotency key are written in one
transaction, so a request that is repeated, whatever happened to the first answer, gives the
same order; the same key with another request is refused.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hub.errors import BadRequest, Conflict, Denied, HubError, NotFound
from hub.store import ReportStore
from mesh.errors import CodecError
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.ids import uuid7
from mesh.proto.naming import open_name
from mesh.proto.order import CANCEL, RETRY, Order, sign_order
from mesh.proto.register import Register
from mesh.proto.sign import KeySigner
from mesh.rest.orders import NOT_AFTER_MS, Draft, Known, OrderProblem, draft
from mesh.rest.types import OrderAccepted
from mesh.store import MeshStore, Tx

KEY_CHARS_MAX: Final = 128
KEY_MS: Final = 24 * 3600 * 1000
"""How long an idempotency key is remembered."""
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS hub_idempotency (key TEXT PRIMARY KEY, request BLOB NOT NULL,"
    " order_id TEXT NOT NULL, job TEXT NOT NULL, site TEXT NOT NULL, server TEXT,"
    " at_ms INTEGER NOT NULL)",
)
_ERRORS: Final[Mapping[str, type[HubError]]] = {
    "bad-request": BadRequest, "not-found": NotFound, "conflict": Conflict, "denied": Denied,
}  # fmt: skip
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

    async def submit(self, request: Mapping[str, Any], author: str) -> OrderAccepted:
        """Resolve names, sign and store; returns once the order is durable here."""
        key = request.get("idempotency_key")
        if key is not None and (not isinstance(key, str) or not 0 < len(key) <= KEY_CHARS_MAX):
            raise BadRequest(f"idempotency_key must be text of 1 to {KEY_CHARS_MAX} characters")
        asked = {name: value for name, value in request.items() if name != "idempotency_key"}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()
        if key is not None:
            before = await self.store.write(lambda tx: _recall(tx, key, digest))
            if before is not None:
                return before
        now_ms = self.clock.now_ms()
        made = self._draft(asked, now_ms)
        order_id = uuid7(now_ms, os.urandom(10))
        signed = self._sign(made, order_id, author, now_ms)
        job = str(made.params["job"]) if made.kind in (CANCEL, RETRY) else order_id
        accepted = OrderAccepted(order=order_id, job=job, site=made.site, server=made.server)

        def write(tx: Tx) -> OrderAccepted:
            earlier = _recall(tx, key, digest) if key is not None else None
            if earlier is not None:
                return earlier
            body = {"signed": signed, "created_ms": now_ms}
            tx.put(tables.site_scope(made.site), tables.ORDER, order_id, body)
            if key is not None:
                _remember(tx, key, digest, accepted, now_ms)
            return accepted

        answer = await self.store.write(write)
        log.info(
            "order given", order=answer["order"], kind=made.kind, site=made.site, user=author
        )
        return answer

    def _draft(self, asked: Mapping[str, Any], now_ms: int) -> Draft:
        known = Known(
            servers=self.reports.documents("server"),
            pending=self.reports.documents("pending"),
            jobs=self.reports.jobs(),
            images=self._images(),
        )
        try:
            return draft(asked, known, uuid7(now_ms, os.urandom(10)))
        except OrderProblem as exc:
            raise _ERRORS.get(exc.code, Conflict)(str(exc)) from exc

    def _images(self) -> dict[str, str | None]:
        """Return every reference with the asset that the assets key names for it."""
        references = self.store.rows(tables.FLEET, tables.REFERENCE)
        images: dict[str, str | None] = {row.key: None for row in references}
        for row in self.store.rows(tables.FLEET, tables.NAME):
            try:
                named = open_name(row.body.get("signed") or b"", self.register)
            except CodecError:
                continue
            if named.name == row.key:
                images[row.key] = named.asset
        return images

    def _sign(self, made: Draft, order_id: str, author: str, now_ms: int) -> bytes:
        keys = self.register.order_keys(self.region)
        if keys is None or self.key.public not in keys.keys:
            raise Denied(f"this hub's key gives no orders for region {self.region} any more")
        order = Order(
            id=order_id,
            region=self.region,
            region_epoch=keys.epoch,
            site=made.site,
            kind=made.kind,
            params=made.params,
            author=f"{author}@{self.hub}",
            not_after_ms=now_ms + NOT_AFTER_MS,
            order_class=made.order_class,
        )
        return sign_order(order, self.key, self.register.root_fp)


def _recall(tx: Tx, key: str, digest: bytes) -> OrderAccepted | None:
    found = tx.execute(
        "SELECT request, order_id, job, site, server FROM hub_idempotency WHERE key = ?", (key,)
    ).fetchone()
    if found is None:
        return None
    if found[0] != digest:
        raise Conflict(f"the idempotency key {key[:40]!r} was used for another request")
    return OrderAccepted(order=found[1], job=found[2], site=found[3], server=found[4])


def _remember(tx: Tx, key: str, digest: bytes, accepted: OrderAccepted, now_ms: int) -> None:
    tx.execute("DELETE FROM hub_idempotency WHERE at_ms < ?", (now_ms - KEY_MS,))
    tx.execute(
        "INSERT INTO hub_idempotency VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, digest, accepted["order"], accepted["job"], accepted["site"],
         accepted["server"], now_ms),
    )  # fmt: skip
