"""From replicated rows to the documents of the reporting store, and what changed in them.

It knows neither database nor clock. Rule: documents are a pure function of the *set* of rows of
a scope, whatever their order, so reading the same rows again changes nothing, and a row that is
gone takes its document with it. Rows come from members and may hold anything: nothing raises.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto import tables
from mesh.proto.order import Order
from mesh.rest import asset_view, views
from mesh.rest.bmc_view import bmcs
from mesh.rest.row_fields import text_of

PLAIN_DEPTH_MAX: Final = 16
"""Deepest nesting of a row that is shown; what lies deeper becomes null."""
INT_MAX: Final = 1 << 53
"""Larger integers are shown as text: JSON readers keep only 53 bits."""
SITE_TABLES: Final = (
    tables.SERVER, tables.SIGHTING, tables.INVENTORY, tables.JOB, tables.ORDER,
    tables.VERDICT, tables.BMC_SIGHTING,
)  # fmt: skip
FLEET_TABLES: Final = (
    tables.NODE, tables.SITE, tables.REFERENCE, tables.NAME, tables.PRESENCE,
    tables.CHECK,
)  # fmt: skip


class RowLike(views.RowLike, Protocol):
    """A row that says which table it is of."""

    @property
    def table(self) -> str: ...  # noqa: D102


MemberLike = views.MemberLike
ReadOrder = Callable[[RowLike], Order | None]


@dataclass(frozen=True, slots=True)
class Document:
    """One resource as the API shows it; (kind, id) is unique within a scope."""

    kind: str
    id: str
    site: str
    name: str
    state: str
    text: str  # canonical JSON
    digest: bytes
    group: str = ""  # of a job, "" for none


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes the stored documents of a scope equal to the wanted ones."""

    put: list[Document]
    drop: list[tuple[str, str]]


def site_documents(
    site: str, rows: Iterable[RowLike], read_order: ReadOrder = lambda _row: None
) -> list[Document]:
    """Return servers, their inventories, jobs and pending machines of one site.

    An order that the site has not made a job of yet stands as a queued job, so that who gave it
    finds it at once; ``read_order`` opens an ORDER row, None for what is no order.
    """
    by_table = _by_table(rows)
    documents: list[Document] = []
    for row in by_table[tables.SERVER]:
        body = {**row.body, "id": row.key, "site": site}
        server = views.server(body)
        documents.append(
            _document("server", row.key, site, server["name"], server["state"], server)
        )
    for row in by_table[tables.JOB]:
        job = views.job({**row.body, "id": row.key, "site": site})
        documents.append(
            _document("job", row.key, site, job["server_name"] or "", job["state"], job)
        )
    waiting = views.waiting_orders(
        site, by_table[tables.ORDER], by_table[tables.JOB], by_table[tables.SERVER], read_order
    )
    for job in waiting:
        name = job["server_name"] or ""
        documents.append(_document("job", job["id"], site, name, job["state"], job))
    for mac, found in views.inventories(by_table[tables.INVENTORY], by_table[tables.SERVER]):
        documents.append(_document("inventory", mac, site, found["server"] or "", "", found))
    sightings = [
        (row.author, {**row.body, "mac": row.key}) for row in by_table[tables.SIGHTING]
    ]
    servers = [row.body for row in by_table[tables.SERVER]]
    shown = views.pending(
        site, sightings, servers, by_table[tables.INVENTORY], by_table[tables.VERDICT]
    )
    for seen in shown:
        state = "rejected" if seen["rejected"] else "waiting"
        documents.append(_document("pending", seen["mac"], site, seen["mac"], state, seen))
    found_bmcs = [
        (row.author, {**row.body, "url": row.key}) for row in by_table[tables.BMC_SIGHTING]
    ]
    for bmc in bmcs(site, found_bmcs, servers):
        state = "known" if bmc["servers"] else "waiting"
        documents.append(_document("bmc", bmc["url"], site, bmc["ip"], state, bmc))
    return documents


def fleet_documents(rows: Iterable[RowLike], members: Iterable[MemberLike]) -> list[Document]:
    """Return nodes, sites and assets; members come from the register, not from rows."""
    by_table = _by_table(rows)
    known = sorted(members, key=lambda member: member.node_id)
    said = {row.author: row.body for row in by_table[tables.NODE] if row.key == row.author}
    documents: list[Document] = []
    sites: dict[str, dict[str, Any]] = {
        row.key: {"name": row.key, "region": text_of(row.body.get("region"))}
        for row in by_table[tables.SITE]
    }
    for member in known:
        node = views.node(member, said.get(member.node_id, {}), None, None)
        documents.append(
            _document("node", node["id"], node["site"], node["name"], node["status"], node)
        )
        if member.site and "node" in member.roles:
            sites.setdefault(member.site, {"name": member.site, "region": None})
    documents += [_document("site", n, n, n, "", sites[n]) for n in sorted(sites)]
    shown = asset_view.assets(
        by_table[tables.REFERENCE],
        by_table[tables.NAME],
        by_table[tables.PRESENCE],
        known,
        by_table[tables.CHECK],
    )
    for asset in shown:
        documents.append(_document("asset", asset["name"], "", asset["name"], "", asset))
    return documents


def changes(have: Mapping[tuple[str, str], bytes], want: Iterable[Document]) -> Changes:
    """Compare digests of stored documents, by (kind, id), with the wanted documents."""
    wanted = {(document.kind, document.id): document for document in want}
    put = [document for key, document in wanted.items() if have.get(key) != document.digest]
    return Changes(put, sorted(key for key in have if key not in wanted))


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON holds it: bytes as hexadecimal, no odd numbers, bounded depth."""
    if depth > PLAIN_DEPTH_MAX:
        return None
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -INT_MAX < value < INT_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    return None


def _by_table(rows: Iterable[RowLike]) -> dict[str, list[RowLike]]:
    found: dict[str, list[RowLike]] = {name: [] for name in (*SITE_TABLES, *FLEET_TABLES)}
    for row in rows:
        if row.table in found:
            found[row.table].append(row)
    for items in found.values():
        items.sort(key=lambda row: (row.key, row.author))
    return found


def _document(
    kind: str, key: str, site: str, name: str, state: str, body: Mapping[str, Any]
) -> Document:
    text = json.dumps(plain(body), sort_keys=True, separators=(",", ":"), allow_nan=False)
    group = (text_of(body.get("group")) if kind == "job" else None) or ""
    digest = digest_of(kind, key, site, name, state, text, group)
    return Document(kind, key, site, name, state, text, digest, group)


def digest_of(*parts: str) -> bytes:
    """Return what a document (kind, id, site, name, state, text, group) is known by."""
    whole = json.dumps(parts, separators=(",", ":")).encode()
    return hashlib.blake2b(whole, digest_size=16).digest()
