"""Jobs: what is in hand, what failed, what is over; and one job with its steps and its log."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import trio
from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import BadRequest, HubError
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.lists import silent_sites
from hub.pages.page import Page, Section
from hub.pages.server import took
from hub.ports import Json, Services
from hub.proto.gantt import gantt
from mesh.rest.filters import NONE
from mesh.rest.groups import group
from mesh.rest.lists import JOB_OVER, Plan, plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import CURSOR_CHARS_MAX, ListQuery
from mesh.rest.types import Group

ROWS: Final = 100
GROUPS_MAX: Final = 20
"""Groups that stand in the list, those in hand and the newest."""
BANDS: Final = ("In hand", "Wants a person", "Failed", "Over")
LOG_LINES_MAX: Final = 500
"""Newest lines that stand in the page; the stream goes on behind them."""
LOG_WAIT_S: Final = 2.0
"""Most time that a page waits for the node that has the log."""
SAID: Final[Mapping[str, str]] = {
    "cancel": "It is asked to stop at the next safe point.",
    "retry": "It is asked to go on where it stopped.",
    "skip": "It is asked to go on behind the step.",
    "hold": "It is asked to begin no next step.",
    "unhold": "It is asked to go on.",
    "confirm": "It is asked to go on by what you said.",
    "kill": "It is asked to end at once.",
    "archive": "It is asked to leave the lists.",
}
"""What a person may say about a job, and what is shown after it was said."""
LISTED: Final = "archived:no"
VIEWS: Final = (
    ("All", ""),
    ("In hand", "state:running state:queued state:blocked state:retry_wait state:held"),
    ("Wants a person", "state:parked state:failed"), ("Deploys", "kind:server.deploy"),
    ("Releases", "kind:server.release"), ("Archived", "archived:yes"),
)  # fmt: skip


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/jobs")
    async def jobs() -> Response:
        text = request.args.get("filter", "").strip()[:2000]
        everything = "archived:" in text
        sort = request.args.get("sort", "")[:200]
        cursor = request.args.get("cursor", "")[:CURSOR_CHARS_MAX]
        page = Page(
            title="Jobs", template="jobs/page.html", at="jobs",
            sections=(
                Section("jobs", "jobs/list.html", "job node",
                        lambda: job_list(
                            services, text if everything else f"{text} {LISTED}".strip(),
                            sort, cursor)),
            ),
            values={"filter": text, "sort": sort,
                    "views": [{"name": name, "filter": kept} for name, kept in VIEWS]},
        )  # fmt: skip
        return console.render.page(page)

    @pages.get("/jobs/<job>")
    async def job(job: str) -> Response:
        found = read.shown(services, [read.one(services.store, "job", job, "job")])[0]
        lines, trouble = await _log(services, found["id"])
        page = Page(
            title=show.job_title(found), template="jobs/job.html", at="jobs",
            site=found["site"],
            sections=(
                Section("job", "jobs/head.html", "job node", lambda: _job(services, job)),
            ),
            values={
                "job_id": found["id"], "lines": lines, "trouble": trouble,
                "after": lines[-1]["seq"] if lines else 0,
                "over": found["state"] in JOB_OVER,
            },
        )  # fmt: skip
        return console.render.page(page)

    @pages.post("/jobs/<job>/<verb>")
    async def change_job(job: str, verb: str) -> Response:
        who = need("operator")
        if verb not in SAID:
            raise BadRequest(f"a job takes {', '.join(SAID)}, not {verb[:20]!r}")
        given, params = await forms.fields(), dict[str, Any]()
        if given.get("reason", "").strip():
            params["reason"] = given["reason"].strip()
        if verb == "confirm":
            params["done"] = given.get("done") == "yes"
        body: Json = {"kind": f"job.{verb}", "job": job}
        if params:
            body["params"] = params
        await console.api.call("createOrder", who, body)
        return forms.go(f"/jobs/{job}", SAID[verb])


def job_list(services: Services, text: str, sort: str, cursor: str) -> Json:
    """Return the rows of a list; the jobs of a group stand as one, unless groups are asked."""
    shown: Json = {
        "rows": [], "next": None, "paged": bool(cursor), "wrong": "", "total": 0,
        "stale": silent_sites(services), "more_groups": 0,
        "all": sum(services.store.counts("job").values()),
    }  # fmt: skip
    query = ListQuery(
        filter=text or None, sort=sort or "rank,-id", limit=ROWS, cursor=cursor or None
    )
    try:
        asked = plan("jobs", query)
        total = sum(services.store.tally("job", asked, "state").values())
        together: list[Json] = []
        if "group:" not in text:
            if not cursor:
                together, shown["more_groups"] = _groups(services, asked)
            text = f"{text} group:{NONE}".strip()
            asked = plan("jobs", msgspec.structs.replace(query, filter=text))
        found = read.listed(services, asked)
    except RequestProblem as exc:
        return {**shown, "wrong": str(exc)}
    names = {node["id"]: node["name"] for node in services.store.documents("node")}
    rows = [
        {
            **job,
            "is_group": False,
            "took": took(job),
            "band": band(job),
            "href": f"/jobs/{job['id']}",
            "title": show.job_title(job),
            "runner_name": names.get(job["runner"]),
        }
        for job in found.items
    ]
    rows = [*together, *rows]
    if not sort:
        rows.sort(key=lambda row: BANDS.index(row["band"]))
    return {**shown, "rows": rows, "next": found.next, "total": total}


def _groups(services: Services, asked: Plan) -> tuple[list[Json], int]:
    """Return the groups of which some job passes the filter, as rows of the list.

    Those in hand and the newest of the others; and how many are left out.
    """
    busy = services.store.tally("job", plan("jobs", ListQuery(filter=VIEWS[1][1])), "group")
    ids = [key for key in services.store.tally("job", asked, "group") if key != NONE]
    ids.sort(reverse=True)
    ids.sort(key=lambda key: key not in busy)
    rows: list[Json] = []
    for key in ids[:GROUPS_MAX]:
        one = group(key, read.shown(services, services.store.grouped(key, steps=False)))
        rows.append({**one, **_group_row(one)})
    return rows, len(ids) - len(rows)


def _group_row(one: Group) -> Json:
    """Return what a group has of a job, so that both stand in one table."""
    ended, began = one["ended_ms"], one["created_ms"]
    over = ended is not None and began is not None
    band = {"parked": "Wants a person", "running": "In hand", "waiting": "In hand",
            "failed": "Failed"}.get(one["state"], "Over")  # fmt: skip
    return {
        "is_group": True, "band": band, "href": f"/groups/{one['id']}",
        "title": show.group_title(one["kind"], one["total"]),
        "site": ", ".join(one["sites"]), "runner_name": None, "started_ms": None,
        "took": show.duration(ended - began) if over and ended and began else "–",
        "waits_for": one["waits"][0]["waits_for"] if one["waits"] else None,
    }  # fmt: skip


def band(job: Json) -> str:
    """Return under which heading a job stands in the list."""
    if job["state"] == "parked":
        return "Wants a person"
    if job["state"] not in JOB_OVER:
        return "In hand"
    return "Failed" if job["state"] in ("failed", "refused") else "Over"


def _job(services: Services, job: str) -> Json:
    found = read.shown(services, [read.one(services.store, "job", job, "job")])[0]
    return {
        "job": found, "took": took(found),
        "bars": gantt(found["steps"], services.clock.now_ms()),
        "runner": _runner(services, found), "stale": silent_sites(services),
        "may_cancel": found["state"] not in JOB_OVER,
        "may_retry": found["state"] in ("failed", "parked", "cancelled"),
        **_words(found),
        "params": _params(found["params"]), "evidence": _evidence(found["steps"]),
    }  # fmt: skip


def _words(job: Json) -> Json:
    """Return what may be said about a job beside cancel and retry, and of which step."""
    taken, over = job["runner"] is not None, job["state"] in JOB_OVER
    stuck = [s for s in job["steps"] if s["state"] in ("failed", "parked")]
    open_again = taken and job["state"] in ("failed", "parked")
    goes = taken and not over and job["state"] != "parked"
    shots = [s for s in stuck if s["kind"] == "one-shot" and s["state"] == "parked"]
    return {
        "may_skip": stuck[0]["name"] if open_again and stuck and stuck[0]["may_skip"] else None,
        "may_confirm": shots[0]["name"] if shots and job["state"] == "parked" else None,
        "may_hold": goes and not job["held"], "may_unhold": goes and job["held"],
        "may_kill": taken and not over and job["started_ms"] is not None,
        "may_archive": taken and over and not job["archived"],
    }  # fmt: skip


def _runner(services: Services, job: Json) -> Json | None:
    """Return who runs the job, and whether this hub reaches it."""
    if job["runner"] is None:
        return None
    for node in read.nodes(services):
        if node["id"] == job["runner"]:
            return {
                "id": node["id"], "name": node["name"], "reachable": node["reachable"],
                "last_ms": node["last_contact_ms"],
            }  # fmt: skip
    return {"id": job["runner"], "name": job["runner"][:8], "reachable": False, "last_ms": None}


def _params(params: Json) -> list[tuple[str, str]]:
    """Return what was ordered, in words."""
    found: list[tuple[str, str]] = []
    for name, value in params.items():
        match name, value:
            case ("server" | "job", _) | (_, None | "" | []):
                continue
            case "ssh_keys", list():
                found.append(("SSH keys", ", ".join(_key(key) for key in value)))
            case "user_data_chars", int():
                found.append(("User-data", f"{value} characters, not shown"))
            case "bmc", dict():
                found.append(("BMC", str(value.get("url"))))
            case "on", bool():
                found.append(("Power", "on" if value else "off"))
            case _, _:
                found.append((name.replace("_", " ").capitalize(), str(value)))
    return found


def _key(key: Any) -> str:
    """Return a public key by its kind and comment."""
    words = str(key).split()
    return " ".join([words[0], *words[2:]])[:80] if words else "?"


def _evidence(steps: list[Json]) -> list[Json]:
    """Return what finished steps prove, one line a fact."""
    return [
        {
            "step": step["name"],
            "facts": sorted((k, str(v)) for k, v in step["evidence"].items()),
        }
        for step in steps
        if step["evidence"]
    ]


async def _log(services: Services, job: str) -> tuple[list[Json], str]:
    """Return the newest lines of a job's log, and why there are none if that is known."""
    lines: deque[Json] = deque(maxlen=LOG_LINES_MAX)
    try:
        with trio.move_on_after(LOG_WAIT_S) as patience:
            async for line in services.live.job_log(job, 0, follow=False):
                lines.append(line)
    except HubError as exc:
        return list(lines), str(exc)
    slow = (
        f"its node did not answer within {LOG_WAIT_S:.0f} s"
        if patience.cancelled_caught
        else ""
    )
    return list(lines), slow
