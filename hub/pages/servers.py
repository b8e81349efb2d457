"""Servers: the filtered list, its groups, and the same list as a file.

The address says everything: filter, sort, group, hidden columns, page, and the order whose
servers stay in sight although the filter no longer keeps them.
"""

import csv
import io
import json
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.pages.asking import may
from hub.pages.context import Console
from hub.pages.lists import silent_sites
from hub.pages.page import Page, Section
from hub.pages.render import with_query
from hub.ports import Json, Services
from hub.store import LIST_MAX, RUNNING
from mesh.rest.lists import Plan, plan
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import CURSOR_CHARS_MAX, ListQuery

ROWS: Final = 200
"""Servers of one page."""
HELD_MAX: Final = 500
"""Servers of an order that stay in sight."""
FACETS_MAX: Final = 24
VIEWS: Final = (
    ("All", ""), ("Failed", 'state:"* failed"'), ("Ready", "state:available"),
    ("Active", "state:active"), ("At work", "job:!none"), ("Never cleaned", "cleaned:no"),
    ("Monitored", "administration:monitored"),
)  # fmt: skip
GROUPS: Final = ("state", "site", "image")
COLUMNS: Final = (
    ("site", "Site"), ("image", "Image"), ("job", "At work"), ("address", "Address"),
    ("mac", "MAC"), ("hardware", "Machine"), ("changed", "Changed"),
)  # fmt: skip
HIDDEN: Final = "mac"
"""Hidden unless the address says otherwise."""
ACTS: Final = (
    ("server.deploy", "Deploy …"), ("server.release", "Release …"), ("power.on", "Power on …"),
    ("power.off", "Power off …"),
)  # fmt: skip
FIELDS: Final = (
    "name", "site", "state", "cleaned", "hold", "image", "hostname", "ip", "macs", "bmc",
    "summary", "error", "job", "changed_ms", "id",
)  # fmt: skip
"""Columns of the CSV."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks of the list."""

    filter: str
    sort: str
    group: str
    hidden: frozenset[str]
    cursor: str
    select_all: bool
    order: str
    """Id of the job or group whose servers stay in sight."""

    def plan(self, limit: int = ROWS) -> Plan:
        """Return the plan; RequestProblem for a filter that cannot be meant."""
        sort = self.sort or (f"{self.group},site,name" if self.group else "")
        query = ListQuery(
            filter=self.filter or None, sort=sort or None, limit=min(limit, 5000),
            cursor=self.cursor or None,
        )  # fmt: skip
        return replace(plan("servers", query), limit=limit)


def asked_of_address() -> Asked:
    """Read the query of the request."""
    args = request.args
    group = args.get("group", "")
    return Asked(
        filter=args.get("filter", "").strip()[:2000],
        sort=args.get("sort", "")[:200],
        group=group if group in GROUPS else "",
        hidden=frozenset(args.get("hide", HIDDEN).split(",")) & {name for name, _ in COLUMNS},
        cursor=args.get("cursor", "")[:CURSOR_CHARS_MAX],
        select_all=args.get("select") == "all",
        order=args.get("with", "")[:64],
    )


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/servers")
    async def servers() -> Response:
        asked = asked_of_address()
        return console.render.page(
            Page(
                title="Servers",
                template="servers/page.html",
                at="servers",
                sections=(
                    Section("servers", "servers/list.html", "server job node",
                            lambda: _list(services, asked)),
                ),
                values=_values(asked),
            )
        )  # fmt: skip

    @pages.get("/servers.csv")
    async def servers_csv() -> Response:
        return _file(as_csv(_every(services)), "csv", "text/csv")

    @pages.get("/servers.json")
    async def servers_json() -> Response:
        document = {
            "schema": "rackmesh/servers/1", "as_of_ms": services.clock.now_ms(),
            "items": _every(services),
        }  # fmt: skip
        return _file(json.dumps(document, indent=1), "json", "application/json")


def _every(services: Services) -> list[Json]:
    asked = replace(asked_of_address(), group="", cursor="")
    return read.listed(services, asked.plan(LIST_MAX)).items


def _values(asked: Asked) -> Json:
    kept = {"group": asked.group, "sort": asked.sort, "with": asked.order}
    hide = request.args.get("hide")
    if hide is not None:
        kept["hide"] = hide
    export = urlencode({"filter": asked.filter, "sort": asked.sort})
    return {
        "filter": asked.filter, "sort": asked.sort, "group": asked.group, "groups": GROUPS,
        "views": [{"name": name, "filter": text} for name, text in VIEWS],
        "columns": [
            {"label": label, "shown": name not in asked.hidden,
             "toggled": ",".join(sorted(asked.hidden ^ {name})) or "-"}
            for name, label in COLUMNS
        ],
        "shows": {name: name not in asked.hidden for name, _ in COLUMNS},
        "kept": {name: value for name, value in kept.items() if value},
        "chooses": may("operator"), "acts": ACTS,
        "back": with_query(**{"select": None, "with": None}),
        "export_csv": f"/servers.csv?{export}", "export_json": f"/servers.json?{export}",
    }  # fmt: skip


def _list(services: Services, asked: Asked) -> Json:
    shown: Json = {
        "rows": [], "held": [], "next": None, "paged": bool(asked.cursor), "total": 0,
        "all": sum(services.store.counts("server").values()), "wrong": "", "facets": [],
        "by": asked.group or "state", "counts": {}, "select_all": asked.select_all,
        "stale": silent_sites(services), "work": {}, "touched": frozenset(), "order": None,
        "width": 3 + len(COLUMNS) - len(asked.hidden),
    }  # fmt: skip
    try:
        wanted = asked.plan()
        found = read.listed(services, wanted)
        shown["counts"] = services.store.tally("server", wanted, shown["by"])
    except RequestProblem as exc:
        return {**shown, "wrong": str(exc)}
    jobs = in_hand(services)
    if asked.order:
        shown |= _held(services, asked.order)
    shown |= {
        "rows": found.items,
        "next": found.next,
        "total": sum(shown["counts"].values()),
        "facets": _facets(asked, shown["by"], shown["counts"]),
        "work": {job["server"]: _work(job) for job in jobs if job["server"]},
    }
    return shown


def in_hand(services: Services) -> list[Json]:
    """Return the jobs that are in hand, the newest last, so that it wins."""
    states = " ".join(f"state:{state}" for state in (*RUNNING, "parked"))
    found = read.listed(services, plan("jobs", ListQuery(filter=states, limit=5000))).items
    return found[::-1]


def _work(job: Json) -> Json:
    progress = show.job_progress(job)
    verb = job["kind"].rpartition(".")[2]
    busy = job["state"] == "running" and not job["waits_for"]
    step = progress["step"] if busy else "waits" if job["waits_for"] else job["state"]
    return {
        "id": job["id"],
        "words": f"{verb}: {step or job['state']}",
        "percent": progress["percent"] if busy and progress["of"] else None,
    }


def _held(services: Services, order: str) -> Json:
    """Return the servers of an order, whatever their state has become."""
    found = services.store.grouped(order, steps=False)
    if not found:
        found = [job for job in services.store.find("job", order) if job["id"] == order]
    if not found:
        return {}
    ids = list(dict.fromkeys(job["server"] for job in found if job["server"]))[:HELD_MAX]
    held = [one for key in ids for one in services.store.find("server", key)[:1]]
    over = sum(job["state"] == "succeeded" for job in found)
    failed = sum(job["state"] == "failed" for job in found)
    first = found[0]
    title, href = show.job_title(first), f"/jobs/{first['id']}"
    if first["group"]:
        title, href = show.group_title(first["kind"], len(found)), f"/groups/{order}"
    words = f"{over} of {len(found)} done" + (f", {failed} failed" if failed else "")
    return {
        "held": held, "touched": frozenset(ids),
        "order": {"title": title, "words": words, "href": href},
    }  # fmt: skip


def _facets(asked: Asked, by: str, counts: dict[str, int]) -> list[Json]:
    """Return the values of the grouped field, each with the filter that keeps only it."""
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:FACETS_MAX]
    return [
        {
            "value": value, "count": count, "on": len(counts) == 1,
            "href": with_query(filter=with_token(asked.filter, by, value), cursor=None,
                               select=None),
        }
        for value, count in most
    ]  # fmt: skip


def with_token(text: str, key: str, value: str) -> str:
    """Return a filter that also keeps only this value of a key."""
    token = f'{key}:"{value}"' if " " in value else f"{key}:{value}"
    return text if token in text.split() or text == token else f"{text} {token}".strip()


def as_csv(servers: list[Json]) -> str:
    """Return servers as comma-separated values (RFC 4180), safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(FIELDS)
    for server in servers:
        writer.writerow([_cell(server.get(name)) for name in FIELDS])
    return out.getvalue()


def _cell(value: Any) -> str:
    """Return one value as text; what a spreadsheet would take for a formula is made plain."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            text = " ".join(str(entry) for entry in value)
        case _:
            text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _file(text: str, ending: str, kind: str) -> Response:
    response = Response(text, content_type=f"{kind}; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="servers.{ending}"'
    response.headers["Cache-Control"] = "no-store"
    return response
