"""From what a person asks for to the body of an order: names found, defaults filled in.

Hub and node use the same function, so an order means the same wherever it is given. It knows
nothing of keys and stores. Rule: what cannot be meant, or is not legal in the state that the
server is known to be in, is refused here with one sentence; the site has the last word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import Refused
from mesh.proto.ids import NAME_PATTERN, UUID_PATTERN, parse_mac
from mesh.proto.lifecycle import refuse
from mesh.proto.order import (
    ACCEPT,
    CANCEL,
    DEPLOY,
    KINDS,
    POWER,
    RELEASE,
    RETRY,
    OrderClass,
    order_class,
)

NOT_AFTER_MS: Final = 24 * 3600 * 1000
"""An order that a site has not met after a day is not carried out any more."""
ENDED: Final = ("succeeded", "failed", "cancelled")
Body = Mapping[str, Any]


class OrderProblem(Refused):
    """The request cannot become an order; ``code`` is the API's word for it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the daemon that takes the request knows now (resources of mesh/rest/types.py)."""

    servers: Iterable[Body]
    pending: Iterable[Body]
    jobs: Iterable[Body]
    images: Mapping[str, str | None]
    """Reference name -> signed asset id, None while it is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An order without id, author and signature."""

    kind: str
    site: str
    server: str | None  # id
    params: dict[str, Any]
    order_class: OrderClass


def draft(request: Body, known: Known, new_server: str) -> Draft:
    """Return the draft of a request; ``new_server`` is the id an accepted machine would get."""
    kind = request.get("kind")
    params = request.get("params") or {}
    if kind not in KINDS:
        raise OrderProblem("bad-request", f"there is no order {kind!r}; known: {sorted(KINDS)}")
    if not isinstance(params, Mapping):
        raise OrderProblem("bad-request", "params must be an object")
    if kind in (CANCEL, RETRY):
        return _job(str(kind), request, known)
    if kind == ACCEPT:
        return _accept(request, params, known, new_server)
    server = _server(request, known)
    wanted = request.get("site")
    if wanted is not None and wanted != server["site"]:
        raise OrderProblem("bad-request", f"{server['name']} is at site {server['site']}")
    body: dict[str, Any] = {"server": server["id"]}
    if kind == DEPLOY:
        body |= _deploy(params, server, known)
    elif kind == POWER:
        if not isinstance(params.get("on"), bool):
            raise OrderProblem("bad-request", "power needs params.on, true or false")
        body["on"] = params["on"]
    assert kind in (DEPLOY, POWER, RELEASE)
    if not _busy(server, known):  # else the order waits, and the state then counts
        refusal = refuse(str(kind), body, server)
        if refusal is not None:
            raise OrderProblem("conflict", refusal)
    loses = order_class(str(kind), body, server.get("cleaned") is True)
    return Draft(
        kind=str(kind), site=server["site"], server=server["id"], params=body, order_class=loses
    )


def _busy(server: Body, known: Known) -> bool:
    """Whether a job has the server, or an order for it waits: its state is about to change."""
    return bool(server.get("job")) or any(
        job.get("server") == server["id"] and job.get("state") not in ENDED
        for job in known.jobs
    )


def _accept(request: Body, params: Body, known: Known, new_server: str) -> Draft:
    mac = parse_mac(str(request.get("machine", "")))
    if mac is None:
        raise OrderProblem(
            "bad-request", f"{request.get('machine')!r} is no MAC address; see server pending"
        )
    site = request.get("site")
    seen = [m for m in known.pending if m["mac"] == mac and site in (None, m["site"])]
    taken = [server["name"] for server in known.servers if mac in server["macs"]]
    if taken and not seen:
        raise OrderProblem("conflict", f"{mac} is the server {taken[0]} already")
    if not seen:
        raise OrderProblem("not-found", f"no machine {mac} waits to be accepted")
    if len(seen) > 1:
        sites = ", ".join(sorted(m["site"] for m in seen))
        raise OrderProblem("conflict", f"{mac} was seen at {sites}: say which site is meant")
    name = params.get("name")
    if not isinstance(name, str) or not NAME_PATTERN.match(name):
        raise OrderProblem("bad-request", f"{name!r} is no server name: letters, digits, . _ -")
    if any(server["name"] == name for server in known.servers):
        raise OrderProblem("conflict", f"there is a server {name} already")
    body = {"server": new_server, "machine": mac, "name": name, "bmc": params.get("bmc")}
    return Draft(
        kind=ACCEPT, site=seen[0]["site"], server=new_server, params=body, order_class="normal"
    )


def _deploy(params: Body, server: Body, known: Known) -> dict[str, Any]:
    image = params.get("image")
    if not isinstance(image, str) or image not in known.images:
        raise OrderProblem("not-found", f"there is no asset {image!r}; see asset list")
    asset = known.images[image]
    if asset is None:
        raise OrderProblem(
            "conflict",
            f"the content of {image} is not known yet: a site must have fetched it once",
        )
    hostname = params.get("hostname") or server["name"]
    keys = params.get("ssh_keys") or []
    if not isinstance(hostname, str) or not NAME_PATTERN.match(hostname):
        raise OrderProblem("bad-request", f"{hostname!r} is no host name")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise OrderProblem("bad-request", "ssh_keys must be a list of texts")
    body = {"image": image, "asset": asset, "hostname": hostname, "ssh_keys": keys}
    if params.get("user_data") is not None:
        body["user_data"] = params["user_data"]
    return body


def _job(kind: str, request: Body, known: Known) -> Draft:
    wanted = request.get("job")
    for job in known.jobs:
        if job["id"] == wanted:
            return Draft(
                kind=kind, site=job["site"], server=job.get("server"), params={"job": wanted},
                order_class="normal",
            )  # fmt: skip
    raise OrderProblem("not-found", f"there is no job {wanted!r}")


def _server(request: Body, known: Known) -> Body:
    wanted = request.get("server")
    if not isinstance(wanted, str) or not (
        NAME_PATTERN.match(wanted) or UUID_PATTERN.match(wanted)
    ):
        raise OrderProblem("bad-request", f"{wanted!r} is neither a server's name nor its id")
    found = [server for server in known.servers if wanted in (server["id"], server["name"])]
    if not found:
        raise OrderProblem("not-found", f"there is no server {wanted}")
    if len(found) > 1:
        raise OrderProblem("conflict", f"{len(found)} servers are called {wanted}: give the id")
    return found[0]
