"""Groups: orders that were given together, shown as one job."""

from quart import Blueprint, Response, request

from hub import show
from hub.api import read
from hub.errors import BadRequest, NotFound
from hub.pages import forms
from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.jobs import job_list
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from mesh.rest.groups import group
from mesh.rest.requests import CURSOR_CHARS_MAX


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/groups/<name>")
    async def one_group(name: str) -> Response:
        found = _group(services, name)
        text = f"group:{name}"
        cursor = request.args.get("cursor", "")[:CURSOR_CHARS_MAX]
        page = Page(
            title=found["title"], template="jobs/group.html", at="jobs",
            sections=(
                Section("group", "jobs/group_head.html", "job node",
                        lambda: _group(services, name)),
                Section("jobs", "jobs/list.html", "job node",
                        lambda: job_list(services, text, "", cursor)),
            ),
            values={"filter": text, "sort": "", "group_id": name},
        )  # fmt: skip
        return console.render.page(page)

    @pages.post("/groups/<name>/<verb>")
    async def change_group(name: str, verb: str) -> Response:
        who = need("operator")
        operation = {"cancel": "cancelGroup", "retry": "retryGroup"}.get(verb)
        if operation is None:
            raise BadRequest(f"a group can be cancelled or retried, not {verb[:20]!r}")
        told = await console.api.call(operation, who, group=name)
        number = show.count(len(told["jobs"]), "job")
        return forms.go(f"/groups/{name}", f"{number} asked to {verb}.")


def _group(services: Services, name: str) -> Json:
    jobs = read.shown(services, services.store.grouped(name))
    if not jobs:
        raise NotFound(f"there is no group {name[:60]!r}")
    found = group(name, jobs)
    states = found["states"]
    return {
        **found, "title": show.group_title(found["kind"], found["total"]),
        "may_cancel": found["over"] < found["total"],
        "may_retry": any(states.get(state) for state in ("failed", "parked", "cancelled")),
    }  # fmt: skip
