"""The server's state machine (DOMAIN section 2): what may be ordered, and when.

It knows nothing of stores or devices: rows in, a sentence or a patch out. Rule: every
transition out of a stable state is an operator's verb, every unstable state has a ``...
failed`` twin, and every refusal is one sentence that names the state and says what would be
right.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.enrol import OOB, real_serial
from mesh.proto.ids import parse_mac
from mesh.proto.lifecycle import monitored, only_monitored, refuse
from mesh.proto.order import (
    ACCEPT,
    ADOPT,
    BOOT_BY,
    CANCEL,
    DEPLOY,
    DESTRUCTIVE,
    KINDS,
    PASSWORD,
    POWER,
    PROMOTE,
    RELEASE,
    RETRY,
    SCAN,
    order_class,
)

__all__ = [
    "ACCEPT",
    "ADOPT",
    "BOOT_BY",
    "CANCEL",
    "DEPLOY",
    "KINDS",
    "PASSWORD",
    "POWER",
    "PROMOTE",
    "RELEASE",
    "RETRY",
    "SCAN",
    "refuse",
]

ENROLS: Final = frozenset({ACCEPT, ADOPT})
"""Orders that make a server."""
LEAVES_ALONE: Final = frozenset(
    {"record", "inspect", "inspect-oob", "promote", "fetch", "scan", "boot-by"}
)
"""Verbs of steps that touch no machine: all that may be done to one that is monitored."""

FAILED_TWIN: Final[Mapping[str, str]] = {
    "inspecting": "inspecting failed",
    "adopting": "adopting failed",
    "deploying": "deploying failed",
    "deploy-wait": "deploy-wait failed",
    "deleting": "deleting failed",
    "cleaning": "cleaning failed",
}
STABLE: Final = frozenset({"available", "active"})
STATES: Final = STABLE | FAILED_TWIN.keys() | frozenset(FAILED_TWIN.values())

TRANSITIONS: Final[Mapping[str | None, frozenset[str]]] = {
    None: frozenset({"inspecting", "adopting"}),
    "adopting": frozenset({"active", "adopting failed"}),
    "adopting failed": frozenset({"adopting"}),
    "inspecting": frozenset({"available", "inspecting failed"}),
    "inspecting failed": frozenset({"inspecting"}),
    "available": frozenset({"deploying", "deleting"}),
    "deploying": frozenset({"deploy-wait", "deploying failed", "available"}),
    "deploy-wait": frozenset({"active", "deploy-wait failed", "deploying"}),
    "deploying failed": frozenset({"deploying", "deleting", "deploy-wait"}),
    "deploy-wait failed": frozenset({"deploying", "deploy-wait", "deleting"}),
    "active": frozenset({"deleting"}),
    "deleting": frozenset({"cleaning", "deleting failed", "active", "available"}),
    "deleting failed": frozenset({"deleting", "cleaning"}),
    "cleaning": frozenset({"available", "cleaning failed", "deleting"}),
    "cleaning failed": frozenset({"deleting", "cleaning"}),
}
"""State -> states that may follow. Back to the state before (deploying -> available, deleting
-> active): an order cancelled before anything touched the machine."""

_FIRST: Final[Mapping[str, str]] = {
    ACCEPT: "inspecting",
    ADOPT: "adopting",
    DEPLOY: "deploying",
    RELEASE: "deleting",
}
_LAST: Final[Mapping[str, str]] = {
    ACCEPT: "available", ADOPT: "active", DEPLOY: "active", RELEASE: "available",
}  # fmt: skip


def refuse_accept(
    params: Mapping[str, Any],
    servers: Iterable[Mapping[str, Any]],
    inventories: Iterable[Mapping[str, Any]] = (),
) -> str | None:
    """Say in one sentence why a machine cannot be made a server (accept, adopt), or None.

    ``inventories``: bodies of INVENTORY rows, by which machines with one serial number are
    told.
    """
    mac, macs = machine_mac(params), machine_macs(params)
    if params.get("machine") is not None and mac is None:
        return f"{str(params['machine'])[:64]!r} is not a MAC address of a machine seen here"
    if not macs and params.get("inspect") != OOB:
        return "no MAC address says which machine is meant"
    servers = list(servers)
    for server in servers:
        if server.get("id") == params["server"]:
            mine = not macs or not macs.isdisjoint(server.get("macs", ()))
            taken = f"the server id {params['server']} is taken by {server.get('name')}"
            return None if mine else taken
    for server in servers:
        if server.get("name") == params["name"] and macs.isdisjoint(server.get("macs", ())):
            return f"the name {params['name']} is taken by another server; choose another one"
    return same_machine(params, servers, inventories)


def same_machine(
    params: Mapping[str, Any],
    servers: list[Mapping[str, Any]],
    inventories: Iterable[Mapping[str, Any]],
) -> str | None:
    """Say that one of these servers has a MAC, a BMC or the serial number of a new one."""
    macs, url = machine_macs(params), (params.get("bmc") or {}).get("url")
    for server in servers:
        name = server.get("name")
        same = macs.intersection(server.get("macs", ()))
        if same:
            return f"machine {min(same)} is already accepted as {name}"
        if url and url == (server.get("bmc") or {}).get("url"):
            return f"the BMC {url} is that of {name} already"
    return _serial_taken(params, macs, servers, inventories)


def _serial_taken(
    params: Mapping[str, Any],
    macs: frozenset[str],
    servers: list[Mapping[str, Any]],
    inventories: Iterable[Mapping[str, Any]],
) -> str | None:
    """Say that another server has the serial number of this machine, or None."""
    seen = list(inventories)
    own = {real_serial(params.get("serial"))}
    own |= {real_serial(body.get("serial")) for body in seen if body.get("mac") in macs}
    own.discard(None)
    if not own:
        return None
    by_mac = {body.get("mac"): real_serial(body.get("serial")) for body in seen}
    for server in servers:
        theirs = {real_serial(server.get("serial"))}
        theirs |= {by_mac.get(mac) for mac in server.get("macs", ())}
        if own & theirs:
            which = min(str(serial) for serial in own & theirs if serial)
            return (
                f"serial number {which} is that of {server.get('name')} already: two machines"
                " cannot have one, so one of them is not what it seems"
            )
    return None


def machine_mac(params: Mapping[str, Any]) -> str | None:
    """Return the MAC that an accept order names its machine by, in our spelling, or None."""
    machine = params.get("machine")
    return parse_mac(machine) if isinstance(machine, str) else None


def machine_macs(params: Mapping[str, Any]) -> frozenset[str]:
    """Return all MACs that an accept or adopt order names its machine by."""
    macs = {mac for mac in params.get("macs") or () if isinstance(mac, str)}
    one = machine_mac(params)
    return frozenset(macs | {one} if one is not None else macs)


def refuse_step(do: str, server: Mapping[str, Any] | None) -> str | None:
    """Say why a step may not be done to a server, whatever order it is of, or None.

    The last bar before a device: what touches machines stops here for a monitored server, also
    verbs that come to be later.
    """
    if do in LEAVES_ALONE or not monitored(server):
        return None
    return only_monitored(str((server or {}).get("name")))


def destructive(kind: str, params: Mapping[str, Any], server: Mapping[str, Any] | None) -> bool:
    """Say whether an order destroys what a disk holds (ARCHITECTURE section 3, Orders)."""
    cleaned = (server or {}).get("cleaned", False) is True
    return order_class(kind, params, cleaned) == DESTRUCTIVE


def first_state(kind: str) -> str | None:
    """Return the server's state while a job of this kind begins; None: it changes none."""
    return _FIRST.get(kind)


def last_state(kind: str) -> str | None:
    """Return the server's state after a job of this kind has succeeded; None: unchanged."""
    return _LAST.get(kind)


def legal(old: str | None, new: str) -> bool:
    """Say whether a server may go from one state to another (or stay)."""
    return old == new or new in TRANSITIONS.get(old, frozenset())
