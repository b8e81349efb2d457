"""From replicated rows to the resources of ``/api/v1``: pure functions, one per resource.

Hub and node use the same ones, so the two APIs cannot drift apart. Rule: rows come from members
and may lack fields or hold odd types; a view never raises, it shows null.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from mesh.proto.enrol import MANAGED, MONITORED, real_serial
from mesh.proto.lifecycle import monitored
from mesh.proto.order import JOB_VERBS, Order
from mesh.proto.relay import may_relay
from mesh.rest.row_fields import number_of, text_of, texts_of
from mesh.rest.types import Inventory, Job, Node, Pending, Server, Site, Step

Body = Mapping[str, Any]


class RowLike(Protocol):
    """What a row of the mesh store looks like from here."""

    @property
    def author(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def body(self) -> Mapping[str, Any]: ...  # noqa: D102


R = TypeVar("R", bound=RowLike)


class MemberLike(Protocol):
    """What a member of the register looks like from here."""

    @property
    def node_id(self) -> str: ...  # noqa: D102
    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def roles(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kem_epoch(self) -> int: ...  # noqa: D102
    @property
    def capabilities(self) -> frozenset[str]: ...  # noqa: D102


def _boot_by(bmc: Any) -> str | None:
    if not isinstance(bmc, Mapping):
        return None
    return "media" if bmc.get("boot_by") == "media" else "network"


def server(body: Body) -> Server:
    """Show a SERVER row."""
    state = text_of(body.get("state")) or "unknown"
    cleaned = body.get("cleaned") is True
    bmc = body.get("bmc")
    never = state == "available" and not cleaned
    return Server(
        id=text_of(body.get("id")) or "",
        name=text_of(body.get("name")) or "",
        site=text_of(body.get("site")) or "",
        state=state,
        state_text=state + (" (never cleaned)" if never else _remark(state, body)),
        cleaned=cleaned,
        hold=body.get("hold") is True,
        administration=MONITORED if monitored(body) else MANAGED,
        tags=texts_of(body.get("tags")),
        serial=text_of(body.get("serial")),
        macs=texts_of(body.get("macs")),
        ip=text_of(body.get("ip")),
        bmc=text_of(bmc.get("url")) if isinstance(bmc, Mapping) else None,
        bmc_secret=text_of(bmc.get("secret")) if isinstance(bmc, Mapping) else None,
        boot_by=_boot_by(bmc),
        image=text_of(body.get("image")),
        hostname=text_of(body.get("hostname")),
        job=text_of(body.get("job")),
        error=text_of(body.get("error")),
        summary=text_of(body.get("summary")),
        changed_ms=number_of(body.get("changed_ms")),
    )


def _remark(state: str, body: Body) -> str:
    """Say that a server is only monitored, or that it boots off the network and did not phone
    in: less is known of it."""
    if monitored(body):
        return " (monitored)"
    boot = body.get("boot")
    silent = isinstance(boot, Mapping) and boot.get("phoned_in") is False
    return " (did not phone in)" if state == "active" and silent else ""


def job(body: Body) -> Job:
    """Show a JOB row."""
    steps = body.get("steps")
    return Job(
        id=text_of(body.get("id")) or "",
        kind=text_of(body.get("kind")) or "",
        site=text_of(body.get("site")) or "",
        server=text_of(body.get("server")),
        server_name=text_of(body.get("server_name")),
        state=text_of(body.get("state")) or "unknown",
        waits_for=text_of(body.get("waits_for")),
        author=text_of(body.get("author")),
        runner=text_of(body.get("runner")),
        group=text_of(body.get("group")),
        held=isinstance(body.get("held"), Mapping),
        archived=number_of(body.get("archived_ms")) is not None,
        attempt=number_of(body.get("attempt")) or 1,
        created_ms=number_of(body.get("created_ms")),
        started_ms=number_of(body.get("started_ms")),
        ended_ms=number_of(body.get("ended_ms")),
        not_after_ms=number_of(body.get("not_after_ms")),
        error=text_of(body.get("error")),
        params=_open_params(body.get("params")),
        steps=[_step(item) for item in steps if isinstance(item, Mapping)]
        if isinstance(steps, list)
        else [],
    )


def _open_params(params: Any) -> dict[str, Any]:
    """Return what an order asked for; of user-data only how long it is."""
    found = dict(params) if isinstance(params, Mapping) else {}
    user_data = found.pop("user_data", None)
    if isinstance(user_data, str):
        found["user_data_chars"] = len(user_data)
    return found


def waiting_orders(
    site: str,
    orders: Iterable[R],
    jobs: Iterable[RowLike],
    servers: Iterable[RowLike],
    read: Callable[[R], Order | None],
) -> list[Job]:
    """Show the ORDER rows of a site that none of its nodes has made a job of yet.

    ``read`` opens one; None for what is no order, or none that stands for a job of its own.
    """
    taken = {row.key: row.body for row in jobs}
    names = {row.key: text_of(row.body.get("name")) for row in servers}
    found: list[Job] = []
    for row in orders:
        order = read(row) if row.key not in taken else None
        if order is None or (order.id, order.site) != (row.key, site):
            continue
        about = taken.get(str(order.params.get("job")), {})
        server = order.params.get("server") or about.get("server")
        name = names.get(str(server)) or about.get("server_name") or order.params.get("name")
        found.append(_waiting_order(order, server, name, row.body.get("created_ms")))
    return found


def _waiting_order(order: Order, server: Any, name: Any, created_ms: Any) -> Job:
    return job(
        {
            "id": order.id,
            "kind": order.kind,
            "site": order.site,
            "server": server,
            "server_name": name,
            "state": "queued",
            "waits_for": waits_to_be_taken_up(order),
            "author": order.author,
            "group": order.group,
            "params": order.params,
            "not_after_ms": order.not_after_ms,
            "created_ms": created_ms,
        }
    )


def waits_to_be_taken_up(order: Order) -> str:
    """Say whom an order waits for that has no job yet."""
    if order.kind in JOB_VERBS:
        return f"waits for the node that runs job {order.params.get('job')} to take it up"
    return f"waits for a node of site {order.site} to take it up"


def _step(body: Body) -> Step:
    evidence = body.get("evidence")
    return Step(
        id=text_of(body.get("id")) or "",
        after=texts_of(body.get("after")),
        may_skip=body.get("may_skip") is True,
        name=text_of(body.get("name")) or "",
        kind=text_of(body.get("kind")) or "",
        state=text_of(body.get("state")) or "unknown",
        done=number_of(body.get("done")),
        total=number_of(body.get("total")),
        unit=text_of(body.get("unit")),
        started_ms=number_of(body.get("started_ms")),
        ended_ms=number_of(body.get("ended_ms")),
        solo=body.get("solo") is True,
        error=text_of(body.get("error")),
        attempts=number_of(body.get("attempts")) or 0,
        evidence=dict(evidence) if isinstance(evidence, Mapping) else {},
    )


def inventory(body: Body, server: str | None) -> Inventory:
    """Show an INVENTORY row; ``server`` is the id of the server that has its MAC."""
    hardware = body.get("inventory")
    return Inventory(
        server=server,
        mac=text_of(body.get("mac")) or "",
        summary=text_of(body.get("summary")),
        seen_ms=number_of(body.get("at_ms")),
        hardware=dict(hardware) if isinstance(hardware, Mapping) else {},
    )


def inventories(
    found: Iterable[RowLike], servers: Iterable[RowLike]
) -> list[tuple[str, Inventory]]:
    """Show the INVENTORY rows of a site, by MAC; each names the server that has that MAC."""
    owner = {mac: row.key for row in servers for mac in texts_of(row.body.get("macs"))}
    return [
        (row.key, inventory({**row.body, "mac": row.key}, owner.get(row.key))) for row in found
    ]


def pending(
    site: str,
    sightings: Iterable[tuple[str, Body]],
    servers: Iterable[Body],
    inventories: Iterable[RowLike] = (),
    verdicts: Iterable[RowLike] = (),
) -> list[Pending]:
    """Show the machines of a site that were seen and not accepted, newest first.

    ``sightings`` are pairs of author and SIGHTING body; several authors of one MAC become one.
    What a machine is comes from its INVENTORY row, whether it was put aside from its VERDICT.
    """
    parts = {row.key: row.body for row in inventories}
    judged = {row.key: row.body for row in verdicts}
    servers = list(servers)
    taken = {mac for body in servers for mac in texts_of(body.get("macs"))}
    owners = _by_serial(servers, parts)
    found: dict[str, Pending] = {}
    for author, body in sightings:
        mac = text_of(body.get("mac"))
        if mac is None or mac in taken or taken.intersection(texts_of(body.get("macs"))):
            continue
        first, last = number_of(body.get("first_ms")) or 0, number_of(body.get("last_ms")) or 0
        have = found.get(mac)
        if have is None:
            have = found[mac] = _seen(site, mac, body, first, last)
            _identify(have, parts.get(mac, {}), judged.get(mac, {}))
            owner = owners.get(real_serial(have["serial"]) or "")
            if owner is not None:
                have["conflict"] = f"its serial number is that of {owner}: one is not real"
        have["first_ms"] = min(have["first_ms"], first)
        have["summary"] = text_of(body.get("summary")) or have["summary"]
        if last >= have["last_ms"]:
            have["last_ms"], have["ip"] = last, text_of(body.get("ip")) or have["ip"]
            have["where"] = text_of(body.get("where")) or have["where"]
            have["port"] = text_of(body.get("port")) or have["port"]
        have["seen_by"] = sorted({*have["seen_by"], author})
    return sorted(found.values(), key=lambda item: (-item["last_ms"], item["mac"]))


def _by_serial(servers: Iterable[Body], parts: Mapping[str, Body]) -> dict[str, str]:
    """Return the names of servers by their serial numbers, where these are real."""
    found: dict[str, str] = {}
    for body in servers:
        seen = [parts.get(mac, {}).get("serial") for mac in texts_of(body.get("macs"))]
        for serial in (real_serial(value) for value in (body.get("serial"), *seen)):
            if serial is not None:
                found.setdefault(serial, text_of(body.get("name")) or "another server")
    return found


def _seen(site: str, mac: str, body: Body, first_ms: int, last_ms: int) -> Pending:
    return Pending(
        mac=mac,
        site=site,
        ip=text_of(body.get("ip")),
        arch=text_of(body.get("arch")),
        uuid=text_of(body.get("uuid")),
        serial=None,
        vendor=None,
        model=None,
        port=text_of(body.get("port")) or None,
        summary=text_of(body.get("summary")),
        where=text_of(body.get("where")) or "unknown",
        first_ms=first_ms,
        last_ms=last_ms,
        seen_by=[],
        conflict=None,
        rejected=False,
        rejected_by=None,
        rejected_ms=None,
    )


def _identify(seen: Pending, found: Body, verdict: Body) -> None:
    """Add what the ramdisk read from the machine, and what an operator decided about it."""
    hardware = found.get("inventory")
    system = hardware.get("system") if isinstance(hardware, Mapping) else None
    if isinstance(system, Mapping):
        seen["vendor"], seen["model"] = (
            text_of(system.get("vendor")),
            text_of(system.get("product")),
        )
        seen["serial"] = text_of(system.get("serial"))
    seen["serial"] = seen["serial"] or text_of(found.get("serial"))
    if verdict.get("rejected") is True:
        seen["rejected"], seen["rejected_by"] = True, text_of(verdict.get("by"))
        seen["rejected_ms"] = number_of(verdict.get("at_ms"))


def node(
    member: MemberLike, body: Body, reachable: bool | None, last_contact_ms: int | None
) -> Node:
    """Show a member of the register with the NODE row that it wrote about itself."""
    return Node(
        id=member.node_id,
        name=text_of(body.get("name")) or member.name or member.node_id[:8],
        site=member.site,
        roles=sorted(member.roles),
        status=member.status,
        reachable=reachable,
        last_contact_ms=last_contact_ms,
        build=text_of(body.get("build")),
        services=texts_of(body.get("services")),
        boot_url=text_of(body.get("boot_url")),
        addresses=_addresses(body.get("addresses")),
        started_ms=number_of(body.get("started_ms")),
        key_epoch=member.kem_epoch,
        relays=may_relay(member.roles, member.capabilities),
        linked_ms=None,
        link_address=None,
    )


def _addresses(value: Any) -> list[str]:
    """Show [host, TCP port, UDP port] triples as host:port."""
    found: list[str] = []
    for entry in value if isinstance(value, list) else []:
        match entry:
            case [str(host), int(port), *_]:
                found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            case _:
                pass
    return found


def sites(
    regions: Mapping[str, str | None],
    nodes: Iterable[Node],
    servers: Mapping[str, Mapping[str, int]],
    jobs_running: Mapping[str, int],
    waiting: Mapping[str, int],
) -> list[Site]:
    """Show the sites that were named (``regions``) or have a node, with their counts."""
    found: dict[str, Site] = {}

    def at(name: str) -> Site:
        return found.setdefault(
            name,
            Site(
                name=name,
                region=regions.get(name),
                nodes=0,
                nodes_reachable=0,
                servers=sum(servers.get(name, {}).values()),
                server_states=dict(servers.get(name, {})),
                pending=waiting.get(name, 0),
                jobs_running=jobs_running.get(name, 0),
                last_contact_ms=None,
            ),
        )

    for name in regions:
        at(name)
    for item in nodes:
        if item["status"] != "member" or "node" not in item["roles"]:
            continue
        site = at(item["site"])
        site["nodes"] += 1
        site["nodes_reachable"] += item["reachable"] is True
        if item["last_contact_ms"] is not None:
            site["last_contact_ms"] = max(item["last_contact_ms"], site["last_contact_ms"] or 0)
    return [found[name] for name in sorted(found)]
