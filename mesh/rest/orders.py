"""From what a person asks for to the body of an order: names found, defaults filled in.

Hub and node use the same function, so an order means the same wherever it is given. It knows
nothing of keys and stores. Rule: what cannot be meant, or is not legal in the state that the
server is known to be in, is refused here with one sentence; the site has the last word.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto.content import DISK_KINDS, FILE, ISO, LIVE
from mesh.proto.enrol import BOOT_WAYS
from mesh.proto.hook import Hook
from mesh.proto.ids import NAME_PATTERN, UUID_PATTERN, parse_mac
from mesh.proto.lifecycle import refuse
from mesh.proto.net_boot import ISO_ROLE, BootFile, NetBoot
from mesh.proto.order import (
    ACCEPT,
    ADOPT,
    BOOT_BY,
    DEPLOY,
    HAND_ON,
    JOB_VERBS,
    KINDS,
    NORMAL,
    PASSWORD,
    POWER,
    PROMOTE,
    RELEASE,
    SCAN,
    OrderClass,
    OrderRefused,
    check_params,
    order_class,
)
from mesh.rest.enrolments import adopted, by_bmc, enrolment, scanned
from mesh.rest.hooks import hooks_for
from mesh.rest.installers import installer
from mesh.rest.lists import JOB_OVER
from mesh.rest.problems import RequestProblem

NOT_AFTER_MS: Final = 24 * 3600 * 1000
"""An order that a site has not met after a day is not carried out any more."""
Body = Mapping[str, Any]


def not_after_ms(request: Body, now_ms: int) -> int:
    """Return until when a request's orders are good for being begun, Unix milliseconds."""
    valid_s = request.get("valid_s")
    return now_ms + (valid_s * 1000 if isinstance(valid_s, int) else NOT_AFTER_MS)


class Known(Protocol):
    """What the daemon that takes the request knows now (resources of mesh/rest/types.py)."""

    @property
    def images(self) -> Mapping[str, Body]:
        """Assets by name, with the ids that are signed; None while one is not known yet."""
        ...

    @property
    def templates(self) -> Mapping[str, Body]:
        """Rows of boot templates by name."""
        ...

    @property
    def hooks(self) -> Mapping[str, Hook]:
        """Hooks that are in force, by name."""
        ...

    def named(self, name_or_id: str) -> Sequence[Body]:
        """Return the servers with this id or name."""
        ...

    def owning(self, mac: str) -> Sequence[Body]:
        """Return the servers that have an interface with this MAC."""
        ...

    def seen(self, mac: str) -> Sequence[Body]:
        """Return the pending machines with this MAC, one a site."""
        ...

    def job(self, job_id: str) -> Body | None:
        """Return a job."""
        ...

    def ordered(self, server_id: str) -> bool:
        """Tell whether a job or order for the server has not ended."""
        ...

    def nodes(self, name_or_id: str) -> Sequence[Body]:
        """Return the members with this id or name."""
        ...

    def has_site(self, site: str) -> bool:
        """Tell whether there is a site of this name."""
        ...


class KnownLists:
    """What is known, out of whole lists."""

    def __init__(
        self,
        *,
        servers: Iterable[Body],
        pending: Iterable[Body],
        jobs: Iterable[Body],
        images: Mapping[str, Body],
        nodes: Iterable[Body] = (),
        templates: Mapping[str, Body] | None = None,
        hooks: Mapping[str, Hook] | None = None,
    ) -> None:
        self.images, self.hooks = images, hooks or {}
        self.templates = templates or {}
        self._nodes = list(nodes)
        self._servers = list(servers)
        self._pending = list(pending)
        self._jobs = {str(job["id"]): job for job in jobs}
        self._ordered = {
            job.get("server") for job in self._jobs.values() if job.get("state") not in JOB_OVER
        }

    def named(self, name_or_id: str) -> list[Body]:
        """Return the servers with this id or name."""
        return [s for s in self._servers if name_or_id in (s["id"], s["name"])]

    def owning(self, mac: str) -> list[Body]:
        """Return the servers that have an interface with this MAC."""
        return [s for s in self._servers if mac in s["macs"]]

    def seen(self, mac: str) -> list[Body]:
        """Return the pending machines with this MAC, one a site."""
        return [m for m in self._pending if m["mac"] == mac]

    def job(self, job_id: str) -> Body | None:
        """Return a job."""
        return self._jobs.get(job_id)

    def ordered(self, server_id: str) -> bool:
        """Tell whether a job or order for the server has not ended."""
        return server_id in self._ordered

    def nodes(self, name_or_id: str) -> list[Body]:
        """Return the members with this id or name."""
        return [node for node in self._nodes if name_or_id in (node["id"], node["name"])]

    def having(self, field: str, value: str) -> list[Body]:
        """Return the servers in whose field this value stands, in whatever case."""
        return having(self._servers, field, value)

    def has_site(self, site: str) -> bool:
        """Tell whether there is a site of this name."""
        return any(node["site"] == site for node in self._nodes)


def having(servers: Iterable[Body], field: str, value: str) -> list[Body]:
    """Return the servers in whose field a value stands: case and a last slash do not count."""
    wanted = value.rstrip("/").lower()
    return [s for s in servers if str(s.get(field) or "").rstrip("/").lower() == wanted]


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
        raise RequestProblem(
            "bad-request", f"there is no order {kind!r}; known: {sorted(KINDS)}"
        )
    if not isinstance(params, Mapping):
        raise RequestProblem("bad-request", "params must be an object")
    if kind in JOB_VERBS:
        return _job(str(kind), request, params, known)
    if kind in (ACCEPT, ADOPT):
        return _enrol(str(kind), request, params, known, new_server)
    if kind == SCAN:
        return _scan(request, params, known)
    if kind == HAND_ON:
        return _hand_on(request, params, known)
    server = server_named(request.get("server"), known)
    wanted = request.get("site")
    if wanted is not None and wanted != server["site"]:
        raise RequestProblem("bad-request", f"{server['name']} is at site {server['site']}")
    body: dict[str, Any] = {"server": server["id"]}
    if kind == DEPLOY:
        body |= _deploy(params, server, known)
    elif kind == POWER:
        if not isinstance(params.get("on"), bool):
            raise RequestProblem("bad-request", "power needs params.on, true or false")
        body["on"] = params["on"]
    elif kind == BOOT_BY:
        if params.get("by") not in BOOT_WAYS:
            raise RequestProblem(
                "bad-request", f"boot-by needs params.by, one of {', '.join(BOOT_WAYS)}"
            )
        body["by"] = params["by"]
    assert kind in (DEPLOY, POWER, RELEASE, PASSWORD, PROMOTE, BOOT_BY)
    body |= _hooks(str(kind), params, str(server["site"]), known)
    busy = bool(server.get("job")) or known.ordered(server["id"])
    if not busy:  # else the order waits, and the state then counts
        refusal = refuse(str(kind), body, server)
        if refusal is not None:
            raise RequestProblem("conflict", refusal)
    loses = order_class(str(kind), body, server.get("cleaned") is True)
    return Draft(
        kind=str(kind), site=server["site"], server=server["id"], params=body, order_class=loses
    )


def _enrol(kind: str, request: Body, params: Body, known: Known, new_server: str) -> Draft:
    """Make a machine that was seen a server; or one that its BMC or a person describes."""
    if kind == ACCEPT and (request.get("machine") or not params.get("inspect")):
        mac, site = _pending(request, known)
        given = {"machine": mac, **enrolment(params)}
    else:
        given = enrolment(params)
        site = (adopted if kind == ADOPT else by_bmc)(request, given, known)
    name = given["name"]
    if known.named(name):
        raise RequestProblem("conflict", f"there is a server {name} already")
    body = {"server": new_server, **given}
    return Draft(kind=kind, site=site, server=new_server, params=body, order_class=NORMAL)


def _pending(request: Body, known: Known) -> tuple[str, str]:
    """Return MAC and site of a machine that waits to be accepted."""
    mac = parse_mac(str(request.get("machine", "")))
    if mac is None:
        raise RequestProblem(
            "bad-request", f"{request.get('machine')!r} is no MAC address; see server pending"
        )
    site = request.get("site")
    seen = [machine for machine in known.seen(mac) if site in (None, machine["site"])]
    taken = [server["name"] for server in known.owning(mac)]
    if taken and not seen:
        raise RequestProblem("conflict", f"{mac} is the server {taken[0]} already")
    if not seen:
        raise RequestProblem("not-found", f"no machine {mac} waits to be accepted")
    if len(seen) > 1:
        sites = ", ".join(sorted(m["site"] for m in seen))
        raise RequestProblem("conflict", f"{mac} was seen at {sites}: say which site is meant")
    return mac, str(seen[0]["site"])


def _scan(request: Body, params: Body, known: Known) -> Draft:
    site, body = scanned(request, params, known)
    return Draft(kind=SCAN, site=site, server=None, params=body, order_class=NORMAL)


def _deploy(params: Body, server: Body, known: Known) -> dict[str, Any]:
    image = params.get("image")
    if not isinstance(image, str) or image not in known.images:
        raise RequestProblem("not-found", f"there is no asset {image!r}; see asset list")
    found = known.images[image]
    hostname = params.get("hostname") or server["name"]
    keys = params.get("ssh_keys") or []
    if not isinstance(hostname, str) or not NAME_PATTERN.match(hostname):
        raise RequestProblem("bad-request", f"{hostname!r} is no host name")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise RequestProblem("bad-request", "ssh_keys must be a list of texts")
    body: dict[str, Any] = {"image": image, "hostname": hostname, "ssh_keys": keys}
    if params.get("user_data") is not None:
        body["user_data"] = params["user_data"]
    if params.get("template") is not None:
        body["boot"] = installer(params, server, body, _boot(_live(found)), known.templates)
        return body
    if params.get("vars"):
        raise RequestProblem("bad-request", "vars go with a template")
    if found["kind"] in DISK_KINDS:
        return {**body, "asset": _asset(found["asset"], image)}
    if found["kind"] == FILE:
        raise RequestProblem("conflict", f"{image} is a file, nothing that a server could run")
    if keys or params.get("user_data") is not None:
        raise RequestProblem(
            "bad-request",
            f"{image} boots off the network ({found['kind']}), where no first-boot data reaches"
            " it: leave ssh_keys and user_data out",
        )
    return {**body, "boot": _boot(found).body()}


def _hooks(kind: str, params: Body, site: str, known: Known) -> dict[str, Any]:
    """Return the hooks that an order carries; nothing when there are none."""
    if params.get("no_hooks") not in (None, True, False):
        raise RequestProblem("bad-request", "params.no_hooks must be true or false")
    if params.get("no_hooks"):
        return {}
    hooks = hooks_for(kind, site, known.hooks, known.images, _asset)
    return {"hooks": hooks} if hooks else {}


def _live(found: Body) -> Body:
    if found["kind"] != LIVE:
        raise RequestProblem(
            "conflict",
            f"{found['name']} is of kind {found['kind']}; an installer has a kernel and an"
            " initrd: asset add NAME --kernel FILE --initrd FILE",
        )
    return found


def _boot(found: Body) -> NetBoot:
    """Return what a live system or an ISO boots."""
    name = found["name"]
    if found["kind"] == ISO:
        file = BootFile(ISO_ROLE, name, _asset(found["asset"], name))
        return NetBoot(ISO, "", (file,))
    files = tuple(
        BootFile(part["role"], part["name"], _asset(part["asset"], part["name"]))
        for part in found["members"]
    )
    return NetBoot(LIVE, found["cmdline"] or "", files)


def _asset(asset: Any, name: str) -> str:
    if isinstance(asset, str):
        return asset
    raise RequestProblem(
        "conflict",
        f"the content of {name} is not known yet: a site must have fetched it once",
    )


def _job(kind: str, request: Body, params: Body, known: Known) -> Draft:
    """Say something about a job; the site's runner of the job has the last word."""
    wanted = request.get("job")
    job = known.job(wanted) if isinstance(wanted, str) else None
    if job is None:
        raise RequestProblem("not-found", f"there is no job {wanted!r}")
    said = {name: params[name] for name in ("reason", "step", "done") if name in params}
    body = {"job": wanted, **said}
    try:
        check_params(kind, body)
    except OrderRefused as exc:
        raise RequestProblem("bad-request", str(exc)) from exc
    return Draft(
        kind=kind, site=job["site"], server=job.get("server"), params=body,
        order_class="normal",
    )  # fmt: skip


def server_named(wanted: Any, known: Known) -> Body:
    """Return the server with a name or id; raises RequestProblem when that is not one."""
    if not isinstance(wanted, str) or not (
        NAME_PATTERN.match(wanted) or UUID_PATTERN.match(wanted)
    ):
        raise RequestProblem("bad-request", f"{wanted!r} is neither a server's name nor its id")
    found = known.named(wanted)
    if not found:
        raise RequestProblem("not-found", f"there is no server {wanted}")
    if len(found) > 1:
        raise RequestProblem(
            "conflict", f"{len(found)} servers are called {wanted}: give the id"
        )
    return found[0]


def _hand_on(request: Body, params: Body, known: Known) -> Draft:
    """Hand secrets on to a node of their site."""
    wanted = str(request.get("node") or "")
    found = [n for n in known.nodes(wanted) if n["status"] == "member" and "node" in n["roles"]]
    if not wanted or not found:
        raise RequestProblem("not-found", f"there is no node {wanted[:80]!r} that is a member")
    if len(found) > 1:
        where = ", ".join(sorted(node["id"] for node in found))
        raise RequestProblem("conflict", f"several nodes are called {wanted!r}: {where}")
    (node,) = found
    site = request.get("site")
    if site is not None and site != node["site"]:
        raise RequestProblem("bad-request", f"{node['name']} is at site {node['site']}")
    secrets = params.get("secrets")
    if secrets is not None and not isinstance(secrets, list):
        raise RequestProblem("bad-request", "params.secrets must be a list of ids of secrets")
    name = node["name"] if NAME_PATTERN.match(node["name"]) else node["id"]
    body: dict[str, Any] = {"node": node["id"], "name": name}
    if secrets:
        body["secrets"] = secrets
    return Draft(kind=HAND_ON, site=node["site"], server=None, params=body, order_class=NORMAL)
