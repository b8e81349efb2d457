"""What a job makes of its server's row: state, error, cleanliness, who works on it.

It knows only the job's row and its plan. Rule: the view is a pure function of the job's row,
and both are written in one transaction, so they never disagree after a crash.
"""

from collections.abc import Mapping
from typing import Any

from mesh.proto.net_boot import writes_disks
from node.proto.lifecycle import DEPLOY, FAILED_TWIN, RELEASE, first_state, last_state
from node.proto.plan import Step


def server_view(row: Mapping[str, Any], plan: tuple[Step, ...]) -> dict[str, Any]:
    """Return the fields of the SERVER row that follow from a job's row now."""
    view = _progress(row, plan)
    params = row["params"]
    if row["kind"] == DEPLOY and row.get("dirty"):
        view |= {"cleaned": False, "image": params["image"], "hostname": params["hostname"]}
        view |= {"boot": None}
    if row["kind"] == DEPLOY and (row.get("dirty") or row.get("phoned")):
        view |= {"system": row.get("phoned")}
    booted = row.get("touched") or row["state"] == "succeeded"
    boot = params.get("boot")
    if row["kind"] == DEPLOY and boot and booted and not writes_disks(boot):
        view |= {"image": params["image"], "hostname": params["hostname"]}
        view |= {"boot": _boot(row)}
    if row["kind"] == RELEASE and row["state"] == "succeeded":
        view |= {"cleaned": True, "image": None, "hostname": None, "boot": None}
        view |= {"system": None}
    return view


def _boot(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the server boots off the network from now on, and what proved it."""
    last = next(entry for entry in row["steps"] if entry["id"] == "booted")
    proof = last.get("evidence") if last.get("state") == "done" else None
    phoned = (proof or {}).get("phoned_in")
    about = {"job": row["id"], "attempt": row["attempt"], "phoned_in": phoned}
    return {**row["params"]["boot"], **about}


def _progress(row: Mapping[str, Any], plan: tuple[Step, ...]) -> dict[str, Any]:
    ended = row["state"] in {"succeeded", "failed", "cancelled"}
    job = None if ended else row["id"]
    begins = first_state(row["kind"])
    if begins is None:  # the order changes no state, only power
        return {"job": job}
    if row["state"] == "succeeded":
        return {"state": last_state(row["kind"]), "job": None, "error": None}
    state = begins
    begun = {entry["id"] for entry in row["steps"] if _begun(entry)}
    for step in plan:
        if step.id in begun and step.state:
            state = step.state
    if not ended:
        error = row.get("error") if row["state"] == "parked" else None
        return {"state": state, "job": job, "error": error}
    before = row.get("from_state")
    untouched = before is not None and not row.get("touched")
    return {
        "state": before if untouched else FAILED_TWIN[state],
        "job": None,
        "error": row.get("error"),
    }


def _begun(entry: Mapping[str, Any]) -> bool:
    return entry["state"] != "waiting" or entry.get("next_ms") is not None
