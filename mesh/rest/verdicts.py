"""Verdicts about machines that are not accepted: put aside, or taken back from there.

Hub and node use the same function. It knows no store. Rule: the verdict is a row of the site
that saw the machine; the machine itself is not touched.
"""

from collections.abc import Iterable
from typing import Any

from mesh.proto.ids import parse_mac
from mesh.rest.problems import RequestProblem
from mesh.rest.types import Pending


def meant(pending: Iterable[Pending], machine: str, site: str | None) -> Pending:
    """Return the pending machine that a MAC address means; raises RequestProblem."""
    mac = parse_mac(machine)
    if mac is None:
        raise RequestProblem("bad-request", f"{machine[:60]!r} is no MAC address")
    found = [seen for seen in pending if seen["mac"] == mac and site in (None, seen["site"])]
    if not found:
        raise RequestProblem("not-found", f"no machine {mac} waits to be accepted")
    if len(found) > 1:
        where = ", ".join(sorted(seen["site"] for seen in found))
        raise RequestProblem("conflict", f"{mac} was seen at {where}: say which site is meant")
    return found[0]


def judged(
    seen: Pending, rejected: bool, by: str, now_ms: int
) -> tuple[Pending, dict[str, Any]]:
    """Return the machine as it is shown from now on, and the body of its VERDICT row."""
    body = {"mac": seen["mac"], "rejected": rejected, "by": by, "at_ms": now_ms}
    after: Pending = {
        **seen,
        "rejected": rejected,
        "rejected_by": by if rejected else None,
        "rejected_ms": now_ms if rejected else None,
    }
    return after, body
