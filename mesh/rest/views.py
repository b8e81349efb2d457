"""From replicated rows to the resources of ``/api/v1``: pure functions, one per resource.

Hub and node use the same ones, so the two APIs cannot drift apart. Rule: rows come from members
and may lack fields or hold odd types; a view never raises, it shows null.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.proto.order import Order
from mesh.rest.types import Asset, Job, Pending, Residency, Server, Step

Body = Mapping[str, Any]
_ORDER = ("verified", "fetching", "wanted", "failed", "corrupt", "absent")


def server(body: Body) -> Server:
    """Show a SERVER row."""
    state = _text(body.get("state")) or "unknown"
    cleaned = body.get("cleaned") is True
    bmc = body.get("bmc")
    never = state == "available" and not cleaned
    return Server(
        id=_text(body.get("id")) or "",
        name=_text(body.get("name")) or "",
        site=_text(body.get("site")) or "",
        state=state,
        state_text=state + (" (never cleaned)" if never else ""),
        cleaned=cleaned,
        hold=body.get("hold") is True,
        macs=_texts(body.get("macs")),
        ip=_text(body.get("ip")),
        bmc=_text(bmc.get("url")) if isinstance(bmc, Mapping) else None,
        image=_text(body.get("image")),
        hostname=_text(body.get("hostname")),
        job=_text(body.get("job")),
        error=_text(body.get("error")),
        summary=_text(body.get("summary")),
        changed_ms=_number(body.get("changed_ms")),
    )


def job(body: Body) -> Job:
    """Show a JOB row."""
    steps = body.get("steps")
    return Job(
        id=_text(body.get("id")) or "",
        kind=_text(body.get("kind")) or "",
        site=_text(body.get("site")) or "",
        server=_text(body.get("server")),
        server_name=_text(body.get("server_name")),
        state=_text(body.get("state")) or "unknown",
        waits_for=_text(body.get("waits_for")),
        author=_text(body.get("author")),
        runner=_text(body.get("runner")),
        attempt=_number(body.get("attempt")) or 1,
        created_ms=_number(body.get("created_ms")),
        started_ms=_number(body.get("started_ms")),
        ended_ms=_number(body.get("ended_ms")),
        error=_text(body.get("error")),
        steps=[_step(item) for item in steps if isinstance(item, Mapping)]
        if isinstance(steps, list)
        else [],
    )


def waiting_order(order: Order, server_name: str | None, created_ms: int | None) -> Job:
    """Show an order that no node of its site has made a job of yet."""
    return job(
        {
            "id": order.id,
            "kind": order.kind,
            "site": order.site,
            "server": order.params.get("server"),
            "server_name": server_name or order.params.get("name"),
            "state": "queued",
            "waits_for": f"waits for a node of site {order.site} to take it up",
            "author": order.author,
            "created_ms": created_ms,
        }
    )


def _step(body: Body) -> Step:
    evidence = body.get("evidence")
    return Step(
        name=_text(body.get("name")) or "",
        kind=_text(body.get("kind")) or "",
        state=_text(body.get("state")) or "unknown",
        done=_number(body.get("done")),
        total=_number(body.get("total")),
        unit=_text(body.get("unit")),
        started_ms=_number(body.get("started_ms")),
        ended_ms=_number(body.get("ended_ms")),
        solo=body.get("solo") is True,
        error=_text(body.get("error")),
        evidence=dict(evidence) if isinstance(evidence, Mapping) else {},
    )


def pending(
    site: str, sightings: Iterable[tuple[str, Body]], servers: Iterable[Body]
) -> list[Pending]:
    """Show the machines of a site that were seen and not accepted, newest first.

    ``sightings`` are pairs of author and SIGHTING body; several authors of one MAC become one.
    """
    taken = {mac for body in servers for mac in _texts(body.get("macs"))}
    found: dict[str, Pending] = {}
    for author, body in sightings:
        mac = _text(body.get("mac"))
        if mac is None or mac in taken or taken.intersection(_texts(body.get("macs"))):
            continue
        first, last = _number(body.get("first_ms")) or 0, _number(body.get("last_ms")) or 0
        have = found.get(mac)
        if have is None:
            have = found[mac] = _seen(site, mac, body, first, last)
        have["first_ms"] = min(have["first_ms"], first)
        have["summary"] = _text(body.get("summary")) or have["summary"]
        if last >= have["last_ms"]:
            have["last_ms"], have["ip"] = last, _text(body.get("ip")) or have["ip"]
            have["where"] = _text(body.get("where")) or have["where"]
        have["seen_by"] = sorted({*have["seen_by"], author})
    return sorted(found.values(), key=lambda item: (-item["last_ms"], item["mac"]))


def _seen(site: str, mac: str, body: Body, first_ms: int, last_ms: int) -> Pending:
    return Pending(
        mac=mac,
        site=site,
        ip=_text(body.get("ip")),
        arch=_text(body.get("arch")),
        uuid=_text(body.get("uuid")),
        summary=_text(body.get("summary")),
        where=_text(body.get("where")) or "unknown",
        first_ms=first_ms,
        last_ms=last_ms,
        seen_by=[],
    )


def asset(reference: Body, name: Body | None, presence: Iterable[Body]) -> Asset:
    """Show a REFERENCE with its NAME row and everybody's PRESENCE rows of that asset."""
    signed = name or {}
    wanted = set(_texts(reference.get("want")))
    sites: dict[str, Residency] = {
        site: _residency(site, site in wanted) for site in sorted(wanted)
    }
    label = _text(reference.get("name")) or ""
    for body in presence:
        site = _text(body.get("site"))
        if site is None or _text(body.get("name")) != label:
            continue
        merge_residency(sites.setdefault(site, _residency(site, site in wanted)), body)
    return Asset(
        name=label,
        url=_text(reference.get("url")),
        asset=_text(signed.get("asset")),
        size=_number(signed.get("size")),
        sha256=_text(signed.get("sha256")) or _text(reference.get("sha256")),
        sites=[sites[site] for site in sorted(sites)],
    )


def _residency(site: str, wanted: bool) -> Residency:
    return Residency(
        site=site,
        wanted=wanted,
        state="wanted" if wanted else "absent",
        have=0,
        of=0,
        origin_bytes=0,
        peer_bytes=0,
        error=None,
        updated_ms=None,
    )


def merge_residency(into: Residency, body: Body) -> None:
    """Add one node's PRESENCE row to its site's residency."""
    state = _text(body.get("state")) or "absent"
    have, of = _number(body.get("have")) or 0, _number(body.get("of")) or 0
    better = _rank(state) < _rank(into["state"]) or into["updated_ms"] is None
    if better or (state == into["state"] and have > into["have"]):
        into["state"], into["have"], into["of"] = state, have, of
        into["error"] = _text(body.get("error"))
    into["origin_bytes"] += _number(body.get("origin_bytes")) or 0
    into["peer_bytes"] += _number(body.get("peer_bytes")) or 0
    into["updated_ms"] = max(into["updated_ms"] or 0, _number(body.get("updated_ms")) or 0)


def _rank(state: str) -> int:
    return _ORDER.index(state) if state in _ORDER else len(_ORDER)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
