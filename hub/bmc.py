"""Live words of a server's BMC, by way of a node of its site.

It knows no HTTP and keeps nothing. Rule: whichever node can ask is asked, and what it answers
is checked before it counts.
"""

from typing import Any, Final, cast

from hub.errors import Conflict, NotFound, Unavailable
from hub.live import Connected
from hub.store import ReportStore
from mesh.errors import RemoteRefused, Unreachable
from mesh.rest.health_types import BmcCertificate
from mesh.rest.health_view import CALL_S, LOOK, METHOD, Asked, checked, checked_certificate

Json = dict[str, Any]
NODES_MAX: Final = 3
"""Nodes of a site that are asked one after the other."""


async def certificate(
    peers: Connected, store: ReportStore, site: str, url: str
) -> BmcCertificate:
    """Return what a BMC's address shows to a node of a site; raises as `read_bmc` does."""
    linked = peers.connected()
    nodes = [node for node in store.documents("node") if node["site"] == site]
    if not nodes:
        raise NotFound(f"there is no node of a site {site[:40]!r}, so nobody can look")
    said = f"no node of site {site[:40]!r} is linked to this hub, so nobody can look"
    for node in sorted(one["id"] for one in nodes if one["id"] in linked)[:NODES_MAX]:
        try:
            answer = await peers.rpc(node, LOOK, {"url": url}, CALL_S)
        except Unreachable:
            said = f"node {node} of site {site} did not answer"
            continue
        except RemoteRefused as exc:
            raise Conflict(str(exc)) from exc
        found = checked_certificate(url, node, answer)
        if found is not None:
            return found
        said = f"node {node} answers what makes no sense"
    raise Unavailable(said)


async def read_bmc(peers: Connected, store: ReportStore, server: Json, what: Asked) -> Json:
    """Return what the BMC of a server says now (mesh/rest/health_types.py).

    Raises Unavailable when no node can be asked, Conflict with the node's sentence when the
    BMC has no answer.
    """
    site, linked = server["site"], peers.connected()
    nodes = [node for node in store.documents("node") if node["site"] == site]
    found = sorted(node["id"] for node in nodes if node["id"] in linked)[:NODES_MAX]
    if not server["bmc"]:
        raise Conflict(f"{server['name']} has no BMC: nobody can ask it")
    said = f"no node of site {site} is linked to this hub, so {server['name']} cannot be asked"
    for node in found:
        body = {"server": server["id"], "what": what}
        try:
            answer = await peers.rpc(node, METHOD, body, CALL_S)
        except Unreachable:
            said = f"node {node} of site {site} did not answer"
            continue
        except RemoteRefused as exc:
            raise Conflict(str(exc)) from exc
        told = checked(what, server["id"], node, answer)
        if told is not None:
            return cast(Json, told)
        elsewhere = answer.get("elsewhere") if isinstance(answer, dict) else None
        said = str(elsewhere)[:300] if elsewhere else f"node {node} answers what makes no sense"
    raise Unavailable(said)
