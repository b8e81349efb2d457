"""What a request says of a machine that becomes a server: read, checked, put in our spelling.

It knows no orders (``mesh/rest/orders.py`` makes those). Rule: what cannot be is refused here
with one sentence that names the value; the site checks it again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mesh.errors import CodecError
from mesh.proto.enrol import OOB, check_enrol
from mesh.proto.ids import NAME_PATTERN, parse_mac
from mesh.proto.scan_range import NETWORKS_MAX, PORTS_MAX, read_networks
from mesh.rest.problems import RequestProblem

Body = Mapping[str, Any]
FIELDS = ("name", "bmc", "inspect", "ip", "tags", "serial")


class Known(Protocol):
    """What must be known of the sites."""

    def owning(self, mac: str) -> Sequence[Body]:
        """Return the servers that have an interface with this MAC."""
        ...

    def seen(self, mac: str) -> Sequence[Body]:
        """Return the pending machines with this MAC, one a site."""
        ...

    def has_site(self, site: str) -> bool:
        """Tell whether there is a site of this name."""
        ...


def enrolment(params: Body) -> dict[str, Any]:
    """Return what is said of the new server, MACs in our spelling; raises RequestProblem."""
    name = params.get("name")
    if not isinstance(name, str) or not NAME_PATTERN.match(name):
        raise RequestProblem(
            "bad-request", f"{name!r} is no server name: letters, digits, . _ -"
        )
    given = {key: params[key] for key in FIELDS if params.get(key) not in (None, [])}
    given.setdefault("bmc", None)
    macs = params.get("macs") or []
    if not isinstance(macs, list):
        raise RequestProblem("bad-request", "params.macs must be a list of MAC addresses")
    read = [parse_mac(mac) if isinstance(mac, str) else None for mac in macs]
    if None in read:
        wrong = str(macs[read.index(None)])[:40]
        raise RequestProblem("bad-request", f"{wrong!r} is no MAC address")
    if read:
        given["macs"] = list(dict.fromkeys(read))
    try:
        check_enrol(given, named=True)
    except CodecError as exc:
        raise RequestProblem("bad-request", f"the server {name} cannot be made: {exc}") from exc
    return given


def adopted(request: Body, given: Body, known: Known) -> str:
    """Return the site of a server to be adopted; raises RequestProblem."""
    macs = given.get("macs") or []
    if not macs and given.get("inspect") != OOB:
        raise RequestProblem(
            "bad-request",
            "a monitored server is known by its MACs: give one, or let its BMC tell them"
            " (inspect: oob)",
        )
    for mac in macs:
        taken = [server["name"] for server in known.owning(mac)]
        if taken:
            raise RequestProblem("conflict", f"{mac} is the server {taken[0]} already")
    return site_of(request, macs, known)


def by_bmc(request: Body, given: Body, known: Known) -> str:
    """Return the site of a server that only its BMC describes; raises RequestProblem."""
    if not (given.get("bmc") or {}).get("secret"):
        raise RequestProblem(
            "bad-request", "inspect: oob needs the BMC's secret: its user name and password"
        )
    return site_of(request, given.get("macs") or [], known)


def scanned(request: Body, params: Body, known: Known) -> tuple[str, dict[str, Any]]:
    """Return site and parameters of a scan; raises RequestProblem."""
    networks, ports = params.get("networks") or [], params.get("ports") or []
    if not isinstance(networks, list) or not all(isinstance(text, str) for text in networks):
        raise RequestProblem("bad-request", "params.networks must be a list of networks")
    if not isinstance(ports, list) or len(ports) > PORTS_MAX:
        raise RequestProblem("bad-request", f"params.ports must be a list of {PORTS_MAX} ports")
    rmcp = params.get("rmcp_port")
    for port in [*ports, *([] if rmcp is None else [rmcp])]:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 1 << 16:
            raise RequestProblem("bad-request", f"{str(port)[:20]!r} is no port")
    if len(networks) > NETWORKS_MAX:
        raise RequestProblem("bad-request", f"at most {NETWORKS_MAX} networks at once")
    try:
        found = [str(network) for network in read_networks(networks)]
    except ValueError as exc:
        raise RequestProblem("bad-request", str(exc)) from exc
    more = {"ports": ports or None, "rmcp_port": rmcp}
    body = {"networks": found} | {key: value for key, value in more.items() if value}
    return site_of(request, (), known), body


def site_of(request: Body, macs: Sequence[str], known: Known) -> str:
    """Return the site that is named, or the only one where a machine was seen."""
    site = request.get("site")
    if site is None:
        seen = {str(machine["site"]) for mac in macs for machine in known.seen(mac)}
        if len(seen) != 1:
            raise RequestProblem("bad-request", "say at which site: --site SITE")
        (site,) = seen
    if not isinstance(site, str) or not known.has_site(site):
        raise RequestProblem("not-found", f"there is no site {str(site)[:40]!r}")
    return site
