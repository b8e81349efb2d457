"""Assets as resources of ``/api/v1``: every reference, what it stands for, where it is.

Pure functions, one for hub and node. Rule as for all views: rows come from members and may lack
fields or hold odd types; a view never raises, it shows null.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.content import LIVE
from mesh.proto.references import in_force, kind_of, members_of, period_of, pinned_at
from mesh.proto.tables import CHECK, FLEET, NAME, PRESENCE, REFERENCE
from mesh.rest.row_fields import number_of, text_of, texts_of
from mesh.rest.types import Asset, AssetMember, Residency
from mesh.rest.views import Body, MemberLike, RowLike

_ORDER: Final = ("verified", "fetching", "wanted", "failed", "corrupt", "absent")

Said = list[tuple[str, Body]]


def assets(
    references: Iterable[RowLike],
    names: Iterable[RowLike],
    presence: Iterable[RowLike],
    members: Iterable[MemberLike],
    checks: Iterable[RowLike] = (),
) -> list[Asset]:
    """Show every REFERENCE with its NAME row and how it fares at the sites.

    Where a PRESENCE row counts is what the roster says of its author, never what the row says.
    Content that has a signed id is found by that: another name may have brought it here.
    """
    at = {m.node_id: m.site for m in members if m.status == "member" and m.site}
    by_key: dict[str, Said] = {}
    by_name: dict[str, Said] = {}
    for row in presence:
        if row.author in at:
            said = (at[row.author], row.body)
            by_key.setdefault(row.key, []).append(said)
            by_name.setdefault(text_of(row.body.get("name")) or "", []).append(said)
    signed = {row.key: row.body for row in names}
    checked: dict[str, Said] = {}
    for row in checks:
        if row.author in at:
            checked.setdefault(row.key, []).append((at[row.author], row.body))
    bodies = in_force(references)
    found: dict[str, Asset] = {}
    for key, body in bodies.items():
        name = signed.get(key, {}) if kind_of(body) != LIVE else {}
        asset_id = text_of(name.get("asset"))
        if asset_id is None:
            rows = by_name.get(key, [])
        else:
            rows = [*by_key.get(asset_id, []), *by_key.get(f"name:{key}", [])]
        found[key] = _asset(key, body, name, rows)
        _add_checks(found[key], checked.get(key, []))
    for item in found.values():
        if item["kind"] == LIVE:
            _sum_up(item, bodies[item["name"]], found)
    return list(found.values())


def assets_in(store: Any, register: Any) -> list[Asset]:
    """Show every asset that the rows of a store name."""
    return assets(
        store.rows(FLEET, REFERENCE),
        store.rows(FLEET, NAME),
        store.authored(FLEET, PRESENCE),
        register.members(),
        store.authored(FLEET, CHECK),
    )


def _asset(label: str, reference: Body, signed: Body, said: Said) -> Asset:
    wanted = set(texts_of(reference.get("want")))
    residencies: dict[str, Residency] = {site: _residency(site, True) for site in wanted}
    for site, body in said:
        here = residencies.setdefault(site, _residency(site, site in wanted))
        merge_residency(here, body)
    for site in pinned_at(reference):
        residencies.setdefault(site, _residency(site, site in wanted))["pinned"] = True
    return Asset(
        name=label,
        kind=kind_of(reference),
        url=text_of(reference.get("url")),
        asset=text_of(signed.get("asset")),
        size=number_of(signed.get("size")),
        sha256=text_of(signed.get("sha256")),
        declared_sha256=text_of(reference.get("sha256")),
        source_sha256=text_of(signed.get("source_sha256")),
        trust=text_of(signed.get("trust")),
        cmdline=text_of(reference.get("cmdline")),
        members=[],
        revalidate_s=_period_s(reference),
        created_ms=number_of(reference.get("created_ms")),
        sites=[residencies[site] for site in sorted(residencies)],
    )


def _period_s(reference: Body) -> int | None:
    if text_of(reference.get("url")) is None or kind_of(reference) == LIVE:
        return None
    return (period_of(reference) or 0) // 1000


def _add_checks(item: Asset, said: Said) -> None:
    """Say when each site last heard its origin, and what the last who asked found wrong.

    What was wrong with content that the name no longer stands for is over.
    """
    sites = {where["site"]: where for where in item["sites"]}
    for site, body in sorted(said, key=lambda one: number_of(one[1].get("at_ms")) or 0):
        where = sites.get(site)
        if where is not None and item["asset"] is not None:
            heard_ms = number_of(body.get("ok_ms"))
            if heard_ms is not None:
                where["checked_ms"] = max(where["checked_ms"] or 0, heard_ms)
            here = body.get("asset") == item["asset"]
            where["stale"] = text_of(body.get("stale")) if here else None


def _sum_up(item: Asset, reference: Body, found: Mapping[str, Asset]) -> None:
    """Fill in what a live system is by its members: it is where all of them are."""
    parts = [(member, found.get(member.name)) for member in members_of(reference)]
    item["members"] = [
        AssetMember(role=member.role, name=member.name, asset=part["asset"] if part else None)
        for member, part in parts
    ]
    sizes = [part["size"] if part else None for _, part in parts]
    known = [size for size in sizes if size is not None]
    item["size"] = sum(known) if sizes and len(known) == len(sizes) else None
    there = [
        {site["site"]: site for site in part["sites"]} if part else {} for _, part in parts
    ]
    wanted = {site["site"]: site["wanted"] for site in item["sites"]}
    pinned = {site["site"] for site in item["sites"] if site["pinned"]}
    names = sorted({*wanted, *(name for sites in there for name in sites)})
    item["sites"] = [_worst(name, wanted.get(name, False), there) for name in names]
    for where in item["sites"]:
        where["pinned"] = where["site"] in pinned


def _worst(name: str, wanted: bool, there: list[dict[str, Residency]]) -> Residency:
    """Return a site's residency of a live system: as far on as its least member."""
    whole = _residency(name, wanted)
    parts = [sites.get(name) or _residency(name, wanted) for sites in there]
    if not parts:
        return whole
    least = max(parts, key=lambda part: _rank(part["state"]))
    whole["state"], whole["error"] = least["state"], least["error"]
    for part in parts:
        whole["have"] += part["have"]
        whole["of"] += part["of"]
        whole["origin_bytes"] += part["origin_bytes"]
        whole["peer_bytes"] += part["peer_bytes"]
        whole["near_bytes"] += part["near_bytes"]
    times = [part["updated_ms"] for part in parts if part["updated_ms"] is not None]
    whole["updated_ms"] = max(times, default=None)
    heard = [part["checked_ms"] for part in parts if part["checked_ms"] is not None]
    whole["checked_ms"] = min(heard, default=None)
    whole["stale"] = next((part["stale"] for part in parts if part["stale"]), None)
    return whole


def _residency(site: str, wanted: bool) -> Residency:
    return Residency(
        site=site,
        wanted=wanted,
        pinned=False,
        state="wanted" if wanted else "absent",
        have=0,
        of=0,
        origin_bytes=0,
        peer_bytes=0,
        near_bytes=0,
        error=None,
        updated_ms=None,
        checked_ms=None,
        stale=None,
    )


def merge_residency(into: Residency, body: Body) -> None:
    """Add one node's PRESENCE row to its site's residency."""
    state = text_of(body.get("state")) or "absent"
    have, of = number_of(body.get("have")) or 0, number_of(body.get("of")) or 0
    better = _rank(state) < _rank(into["state"]) or into["updated_ms"] is None
    if better or (state == into["state"] and have > into["have"]):
        into["state"], into["have"], into["of"] = state, have, of
        into["error"] = text_of(body.get("error"))
    into["origin_bytes"] += number_of(body.get("origin_bytes")) or 0
    into["peer_bytes"] += number_of(body.get("peer_bytes")) or 0
    into["near_bytes"] += number_of(body.get("near_bytes")) or 0
    into["updated_ms"] = max(into["updated_ms"] or 0, number_of(body.get("updated_ms")) or 0)


def _rank(state: str) -> int:
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)
