"""May this be ordered on a server in this state? One sentence when not.

It knows a server's row (or its resource in the API, which has the same fields) and nothing of
who asks: a hub asks before it signs, the site before it begins, so both say the same. Rule:
every refusal names the state and says what would be right.
"""

from collections.abc import Mapping
from typing import Any, Final

from mesh.proto.enrol import MONITORED
from mesh.proto.order import BOOT_BY, DEPLOY, PASSWORD, POWER, PROMOTE, RELEASE

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
    assert kind in {DEPLOY, RELEASE, POWER, PASSWORD, PROMOTE, BOOT_BY}
    if server is None:
        return f"server {params.get('server')!r} is not known at this site; accept it first"
    name, state = str(server.get("name")), str(server.get("state"))
    if kind == PROMOTE:
        return _no_promotion(name, state, server)
    if monitored(server):
        return only_monitored(name)
    if server.get("hold"):
        return f"{name} is held; take the hold off first"
    if kind == POWER:
        return None if server.get("bmc") else f"{name} has no BMC: press its power button"
    if kind == PASSWORD:
        return _no_password(name, server)
    if kind == BOOT_BY:
        return _no_boot_way(name, params, server)
    if kind == RELEASE and state == "available":
        if server.get("cleaned"):
            return f"{name} is available and clean; there is nothing to release"
        return None  # never cleaned: releasing it is how it gets clean
    if state in _FROM[kind]:
        return None
    verb = kind.partition(".")[2]
    instead = _INSTEAD.get((kind, state), f"{verb} needs {' or '.join(sorted(_FROM[kind]))}")
    return f"{name} is {state}; {instead}"


def monitored(server: Mapping[str, Any] | None) -> bool:
    """Tell whether a server is only monitored: nothing of ours may touch it."""
    return (server or {}).get("administration") == MONITORED


def only_monitored(name: str) -> str:
    """Say why nothing is done to a monitored server, and what would be right."""
    return (
        f"{name} is monitored, so it is never powered, booted or wiped;"
        f" promote it first: rackmesh server promote {name}"
    )


def _no_promotion(name: str, state: str, server: Mapping[str, Any]) -> str | None:
    if not monitored(server):
        return f"{name} is managed already; only monitored servers are promoted"
    if state != "active":
        return f"{name} is {state}; wait until it is active"
    return None


def _no_boot_way(name: str, params: Mapping[str, Any], server: Mapping[str, Any]) -> str | None:
    """Say why a server cannot boot that way; rows and resources spell the BMC apart."""
    bmc = server.get("bmc")
    if params.get("by") != "media":
        return None if bmc else f"{name} has no BMC, so it boots by network anyway"
    url = str(bmc.get("url") if isinstance(bmc, Mapping) else bmc or "")
    if not url:
        return f"{name} has no BMC, so it has no virtual drive"
    if url.startswith("ipmi:"):
        return f"{name} has an IPMI address for its BMC, and IPMI has no virtual media"
    return None


def _no_password(name: str, server: Mapping[str, Any]) -> str | None:
    """Say why a BMC's password cannot be changed; rows and resources spell the BMC apart."""
    bmc = server.get("bmc")
    if not bmc:
        return f"{name} has no BMC, so there is no password to change"
    secret = bmc.get("secret") if isinstance(bmc, Mapping) else server.get("bmc_secret")
    if not secret:
        return f"the BMC of {name} has no secret: give its user name and password first"
    return None
