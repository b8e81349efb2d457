"""The server's state machine (DOMAIN section 2): what may be ordered, and when.

It knows nothing of stores or devices: rows in, a sentence or a patch out. Rule: every
transition out of a stable state is an operator's verb, every unstable state has a ``...
failed`` twin, and every refusal is one sentence that names the state and says what would be
right.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.ids import parse_mac
from mesh.proto.lifecycle import refuse
from mesh.proto.order import (
    ACCEPT,
    CANCEL,
    DEPLOY,
    DESTRUCTIVE,
    KINDS,
    PASSWORD,
    POWER,
    RELEASE,
    RETRY,
    order_class,
)

__all__ = [
    "ACCEPT",
    "CANCEL",
    "DEPLOY",
    "KINDS",
    "PASSWORD",
    "POWER",
    "RELEASE",
    "RETRY",
    "refuse",
]

FAILED_TWIN: Final[Mapping[str, str]] = {
    "inspecting": "inspecting failed",
    "deploying": "deploying failed",
    "deploy-wait": "deploy-wait failed",
    "deleting": "deleting failed",
    "cleaning": "cleaning failed",
}
STABLE: Final = frozenset({"available", "active"})
STATES: Final = STABLE | FAILED_TWIN.keys() | frozenset(FAILED_TWIN.values())

TRANSITIONS: Final[Mapping[str | None, frozenset[str]]] = {
    None: frozenset({"inspecting"}),
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
    DEPLOY: "deploying",
    RELEASE: "deleting",
}
_LAST: Final[Mapping[str, str]] = {ACCEPT: "available", DEPLOY: "active", RELEASE: "available"}


def refuse_accept(
    params: Mapping[str, Any], servers: Iterable[Mapping[str, Any]]
) -> str | None:
    """Say in one sentence why a machine cannot be accepted, or None."""
    mac = machine_mac(params)
    if mac is None:
        return (
            f"{str(params.get('machine'))[:64]!r} is not a MAC address of a machine seen here"
        )
    servers = list(servers)
    for server in servers:
        if server.get("id") == params["server"]:
            return (
                None
                if mac in server.get("macs", ())
                else (f"the server id {params['server']} is taken by {server.get('name')}")
            )
    for server in servers:
        if mac in server.get("macs", ()):
            return f"machine {mac} is already accepted as {server.get('name')}"
        if server.get("name") == params["name"]:
            return f"the name {params['name']} is taken by another server; choose another one"
    return None


def machine_mac(params: Mapping[str, Any]) -> str | None:
    """Return the MAC that an accept order names its machine by, in our spelling, or None."""
    machine = params.get("machine")
    return parse_mac(machine) if isinstance(machine, str) else None


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
