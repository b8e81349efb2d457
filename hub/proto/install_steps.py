"""The way of a node from its join token to healthy, as steps that people can watch.

It knows no store and no clock. Rule: a step is done when something that was observed says so,
never because the one after it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One step of the way."""

    name: str
    state: str  # done | now | ahead | failed
    at_ms: int | None
    note: str


def install_steps(token: Item, node: Item | None) -> list[InstallStep]:
    """Return the four steps; ``node`` is the member that joined with the token, if known."""
    refused = token["refused"] if token["refused_ms"] else None
    joined = token["used_by"] is not None
    steps = [
        InstallStep("Token made", "done", token["created_ms"], f"for site {token['site']}")
    ]
    came = token["contacted_ms"] or token["used_ms"]
    over = {"expired": "the token has expired", "revoked": "the token was revoked"}
    if came:
        steps.append(InstallStep("Contacted this hub", "done", came, ""))
    elif token["state"] in over:
        steps.append(InstallStep("Contacted this hub", "failed", None, over[token["state"]]))
    else:
        note = "waits for a machine to run the command"
        steps.append(InstallStep("Contacted this hub", "now", None, note))
    if joined:
        late = f"somebody else came later and was refused: {refused}" if refused else ""
        steps.append(InstallStep("Joined", "done", token["used_ms"], late))
    elif refused:
        steps.append(InstallStep("Joined", "failed", token["refused_ms"], refused))
    else:
        steps.append(InstallStep("Joined", "ahead", None, ""))
    steps.append(_healthy(joined, node))
    return steps


def _healthy(joined: bool, node: Item | None) -> InstallStep:
    if not joined:
        return InstallStep("Healthy", "ahead", None, "")
    if node is None or not node["reachable"]:
        note = "waits for rackmesh node run to link up"
        return InstallStep("Healthy", "now", None, note)
    if node["build"] is None:
        return InstallStep("Healthy", "now", None, "linked up; its first rows are on the way")
    services = ", ".join(node["services"]) or "no services"
    return InstallStep("Healthy", "done", node["linked_ms"], f"it runs {services}")
