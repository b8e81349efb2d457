"""The server's state machine (DOMAIN section 2): what may be ordered, and when.

It knows nothing of stores or devices: rows in, a sentence or a patch out. Rule: every
transition out of a stable state is an operator's verb, every unstable state has a ``...
failed`` twin, and every refusal is one sentence that names the state and says what would be
right.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.ids import parse_mac
from mesh.proto.order import ACCEPT, CANCEL, DEPLOY, KINDS, POWER, RELEASE, RETRY

__all__ = ["ACCEPT", "CANCEL", "DEPLOY", "KINDS", "POWER", "RELEASE", "RETRY"]

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
_FROM: Final[Mapping[str, frozenset[str]]] = {
    DEPLOY: frozenset({"available", "deploying failed", "deploy-wait failed"}),
    RELEASE: frozenset(
        {
            "active", "deploying failed", "deploy-wait failed", "deleting failed",
            "cleaning failed",
        }
    ),
}  # fmt: skip
_INSTEAD: Final[Mapping[tuple[str, str], str]] = {
    (DEPLOY, "active"): "release it first",
    (DEPLOY, "inspecting"): "wait until its inventory is known",
    (DEPLOY, "inspecting failed"): "retry the job that accepted it",
    (DEPLOY, "deploying"): "wait for its job, or cancel it",
    (DEPLOY, "deploy-wait"): "wait for its job, or cancel it",
    (DEPLOY, "deleting"): "wait until it is available",
    (DEPLOY, "cleaning"): "wait until it is available",
    (DEPLOY, "deleting failed"): "retry its release",
    (DEPLOY, "cleaning failed"): "retry its release; its disks may hold old data",
    (RELEASE, "inspecting"): "wait until its inventory is known",
    (RELEASE, "inspecting failed"): "retry the job that accepted it",
    (RELEASE, "deploying"): "cancel its job first",
    (RELEASE, "deploy-wait"): "cancel its job first",
    (RELEASE, "deleting"): "it is being released already",
    (RELEASE, "cleaning"): "it is being released already",
}


def refuse(
    kind: str, params: Mapping[str, Any], server: Mapping[str, Any] | None
) -> str | None:
    """Say in one sentence why an order on an existing server is not legal now, or None.

    ``server`` is its SERVER row; for ``server.accept`` use ``refuse_accept``.
    """
    assert kind in {DEPLOY, RELEASE, POWER}
    if server is None:
        return f"server {params.get('server')!r} is not known at this site; accept it first"
    name, state = str(server.get("name")), str(server.get("state"))
    if server.get("hold"):
        return f"{name} is held; take the hold off first"
    if kind == POWER:
        return None if server.get("bmc") else f"{name} has no BMC: press its power button"
    if kind == RELEASE and state == "available":
        if server.get("cleaned"):
            return f"{name} is available and clean; there is nothing to release"
        return None  # never cleaned: releasing it is how it gets clean
    if state in _FROM[kind]:
        return None
    verb = kind.partition(".")[2]
    instead = _INSTEAD.get((kind, state), f"{verb} needs {' or '.join(sorted(_FROM[kind]))}")
    return f"{name} is {state}; {instead}"


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


def destructive(kind: str, server: Mapping[str, Any] | None) -> bool:
    """Say whether an order destroys what a disk holds (ARCHITECTURE section 3, Orders)."""
    if kind == RELEASE:
        return True
    return kind == DEPLOY and not (server or {}).get("cleaned", False)


def first_state(kind: str) -> str | None:
    """Return the server's state while a job of this kind begins; None: it changes none."""
    return _FIRST.get(kind)


def last_state(kind: str) -> str | None:
    """Return the server's state after a job of this kind has succeeded; None: unchanged."""
    return _LAST.get(kind)


def legal(old: str | None, new: str) -> bool:
    """Say whether a server may go from one state to another (or stay)."""
    return old == new or new in TRANSITIONS.get(old, frozenset())
