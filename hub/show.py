"""How figures and states read to people: ages, sizes, shares, words. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh.proto.order import HAND_ON, PASSWORD, PROMOTE, SCAN

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")

STATES: Final = ("down", "degraded", "unknown", "maintenance", "ok")
"""The five words for how anything fares, worst first."""
STATE_TONES: Final = {
    "ok": "good", "degraded": "warn", "down": "bad", "unknown": "quiet", "maintenance": "busy",
    "active": "good", "available": "good", "succeeded": "good", "verified": "good",
    "done": "good", "member": "good",
    "failed": "bad", "corrupt": "bad", "revoked": "bad",
    "running": "busy", "inspecting": "busy", "deploying": "busy", "deploy-wait": "busy",
    "adopting": "busy",
    "deleting": "busy", "cleaning": "busy", "fetching": "busy", "queued": "busy",
    "retry_wait": "warn", "blocked": "warn", "parked": "warn", "suspended": "warn",
    "held": "warn",
    "wanted": "busy", "absent": "quiet", "cancelled": "quiet", "left": "quiet",
}  # fmt: skip
"""Colour behind a word; the word always stands there too."""


def tone(state: str) -> str:
    """Return good, bad, busy, warn or quiet for a state."""
    if state.endswith(" failed"):
        return "bad"
    return STATE_TONES.get(state, "quiet")


def node_state(node: Mapping[str, Any], site_reached: bool) -> str:
    """Return how a node fares in one of the five words.

    A node is down when another node of its site is reached and it is not; when nobody of the
    site is, the way there may be cut, and nothing is known of the node itself.
    """
    if node["status"] == "suspended":
        return "maintenance"
    if node["reachable"]:
        return "ok"
    return "down" if site_reached else "unknown"


def site_state(members: Iterable[Mapping[str, Any]]) -> str:
    """Return how a site fares, from the states of its nodes; unknown without any node."""
    states = [node["state"] for node in members]
    known = [state for state in states if state != "maintenance"]
    if not known:
        return "maintenance" if states else "unknown"
    if all(state == "ok" for state in known):
        return "ok"
    return "degraded" if "ok" in known else "unknown"


def server_groups(states: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """Return servers in four groups (words, how many, tone), those that want a person first."""
    groups = {"failed": 0, "at work": 0, "available": 0, "active": 0}
    for state, number in states.items():
        if state in ("active", "available"):
            groups[state] += number
        else:
            groups["failed" if state.endswith(" failed") else "at work"] += number
    tones = {"failed": "bad", "at work": "busy", "available": "quiet", "active": "good"}
    return [(words, number, tones[words]) for words, number in groups.items() if number]


def shares(groups: Iterable[tuple[str, int, str]]) -> list[tuple[float, float, str]]:
    """Return (x, width, tone) of each group in a bar that is 100 wide."""
    parts, at = list(groups), 0.0
    total = float(sum(number for _, number, _ in parts)) or 1.0
    found: list[tuple[float, float, str]] = []
    for _, number, tone_ in parts:
        width = 100 * number / total
        found.append((round(at, 2), round(width, 2), tone_))
        at += width
    return found


def machine(seen: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a pending machine is: vendor and model, and the rest of its summary."""
    known = " ".join(text for text in (seen["vendor"], seen["model"]) if text)
    summary = seen["summary"] or ""
    if not known:
        return summary or "not inspected yet", ""
    rest = summary.replace(known, "").replace(f"({seen['serial']})", "")
    return known, " ".join(rest.split())


def sentence(text: str) -> str:
    """Return a clause as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def age(then_ms: int | None, now_ms: int) -> str:
    """Return how long ago something was, in one unit."""
    if then_ms is None:
        return "never"
    seconds = max(0, now_ms - then_ms) // 1000
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago" if seconds >= 2 else "now"


def size(count: int | None) -> str:
    """Return bytes in decimal units with two or three digits."""
    if count is None:
        return "unknown"
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return (
        f"{value:.0f} {_UNITS[unit]}"
        if value >= 10 or unit == 0
        else (f"{value:.1f} {_UNITS[unit]}")
    )


def residency(where: dict[str, Any]) -> str:
    """Return how an asset stands at a site, in words."""
    if where["state"] == "fetching":
        return f"fetching {where['have']} of {where['of']}"
    return {"verified": "present"}.get(where["state"], str(where["state"]))


def job_title(job: dict[str, Any]) -> str:
    """Return what a job does, in words."""
    if job["kind"] == HAND_ON:
        return f"Hand secrets on to {job['server_name']}"
    if job["kind"] == PASSWORD:
        return f"Change the BMC password of {job['server_name']}"
    if job["kind"] == SCAN:
        return f"Scan site {job['site']} for BMCs"
    if job["kind"] == PROMOTE:
        return f"Manage {job['server_name']}"
    verb = job["kind"].rpartition(".")[2].capitalize()
    subject = job["server_name"] or job["server"] or "a machine"
    return f"{verb} {subject}"


def group_title(kind: str, total: int) -> str:
    """Return what a group of jobs does, in words."""
    return f"{kind.rpartition('.')[2].capitalize()} {count(total, 'server')}"


def job_progress(job: dict[str, Any]) -> dict[str, Any]:
    """Return the step at work, its number, and a share of the whole job in percent."""
    steps = job["steps"]
    finished = sum(step["state"] in ("done", "skipped") for step in steps)
    current = next((step for step in steps if step["state"] == "running"), None)
    part, detail = 0.0, ""
    if current is not None and current["total"]:
        part = min(1.0, (current["done"] or 0) / current["total"])
        detail = amount(current)
    total = len(steps)
    return {
        "step": current["name"] if current else None,
        "number": min(finished + 1, total),
        "of": total,
        "percent": round(100 * (finished + part) / total) if total else 0,
        "detail": detail,
    }


def amount(step: Mapping[str, Any]) -> str:
    """Return how far a step with a total has come, in its unit."""
    done, total = step["done"] or 0, step["total"]
    if step["unit"] in (None, "bytes", "B"):
        return f"{size(done)} of {size(total)}"
    return f"{done} of {total} {step['unit']}"


def duration(ms: int | None) -> str:
    """Return how long something took, in one or two units."""
    if ms is None:
        return "–"
    if ms < 1000:
        return f"{ms} ms"
    if ms < 10_000:
        return f"{ms / 1000:.1f} s"
    seconds = ms // 1000
    for unit, length, below, part in (
        ("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1),
    ):  # fmt: skip
        if seconds >= length:
            rest = seconds % length // part
            return f"{seconds // length} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{seconds} s"


def clock(at_ms: int) -> str:
    """Return the time of day (UTC) of a line in a log."""
    seconds = at_ms // 1000 % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def memory(count: int) -> str:
    """Return bytes of memory in the binary unit that fits."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_BINARY[unit]}" if value >= 10 else f"{value:.1f} {_BINARY[unit]}"
