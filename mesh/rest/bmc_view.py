"""From BMC_SIGHTING rows to the list of BMCs that were found: a pure function for hub and node.

Rule: rows come from members and may lack fields or hold odd types; a view never raises.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mesh.rest.bmc_types import FoundBmc
from mesh.rest.row_fields import number_of, text_of, texts_of

Body = Mapping[str, Any]


def bmcs(
    site: str, sightings: Iterable[tuple[str, Body]], servers: Iterable[Body]
) -> list[FoundBmc]:
    """Show the BMCs of a site, those of no server first, then the newest.

    ``sightings`` are pairs of author and BMC_SIGHTING body; several authors of one URL become
    one, and what is known by its Redfish URL is not shown by its IPMI URL again.
    """
    owners: dict[str, list[str]] = {}
    for body in servers:
        bmc = body.get("bmc")
        url = text_of(bmc.get("url")) if isinstance(bmc, Mapping) else None
        if url:
            owners.setdefault(_origin(url), []).append(text_of(body.get("name")) or "")
    found: dict[str, FoundBmc] = {}
    for author, body in sorted(sightings, key=lambda pair: (_last(pair[1]), pair[0])):
        url = text_of(body.get("url"))
        if url is not None:
            before = found.get(url)
            found[url] = _shown(site, url, author, body, before, owners)
    known = {bmc["ip"] for bmc in found.values() if bmc["redfish"]}
    kept = [bmc for bmc in found.values() if bmc["redfish"] or bmc["ip"] not in known]
    return sorted(kept, key=lambda bmc: (bool(bmc["servers"]), -bmc["last_ms"], bmc["url"]))


def _shown(
    site: str,
    url: str,
    author: str,
    body: Body,
    before: FoundBmc | None,
    owners: Mapping[str, list[str]],
) -> FoundBmc:
    redfish, ipmi = text_of(body.get("redfish")), text_of(body.get("ipmi"))
    places = {_origin(place) for place in (url, redfish, ipmi) if place}
    names = sorted({name for place in places for name in owners.get(place, ())})
    first = number_of(body.get("first_ms")) or 0
    seen_by = texts_of(before["seen_by"]) if before is not None else []
    return FoundBmc(
        url=url,
        site=site,
        ip=text_of(body.get("ip")) or "",
        redfish=redfish,
        ipmi=ipmi,
        ipmi_version=text_of(body.get("ipmi_version")) or None,
        vendor=text_of(body.get("vendor")) or None,
        product=text_of(body.get("product")) or None,
        uuid=text_of(body.get("uuid")) or None,
        version=text_of(body.get("version")) or None,
        tls_sha256=text_of(body.get("tls_sha256")),
        servers=names,
        first_ms=min(first, before["first_ms"]) if before is not None else first,
        last_ms=_last(body),
        seen_by=sorted({*seen_by, author}),
    )


def _last(body: Body) -> int:
    return number_of(body.get("last_ms")) or 0


def _origin(url: str) -> str:
    """Return scheme, host and port of a BMC's URL, so that its systems are the same place."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80, "ipmi": 623}.get(parts.scheme, 0)
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.hostname}:{port}"
