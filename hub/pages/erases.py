"""Erased disks: the list, and one record with the file that proves it."""

from typing import Any

from quart import Blueprint, Response, request

from hub.pages.asking import need
from hub.pages.context import Console
from hub.pages.page import Json, Page, Section
from mesh.rest.calls import read_call
from mesh.rest.operations import OPERATIONS
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import CURSOR_CHARS_MAX


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    async def read(operation: str, query: dict[str, str], **parts: str) -> Any:
        who = need("viewer")
        call = read_call(OPERATIONS[operation], who.name, parts, query, b"", None)
        return await services.alike[operation](call)

    @pages.get("/erases")
    async def erases() -> Response:
        asked = {"filter": request.args.get("filter", "")[:400]}
        asked["cursor"] = request.args.get("cursor", "")[:CURSOR_CHARS_MAX]
        shown: Json = {"rows": [], "next": None, "problem": None, **asked}
        try:
            found = await read("listEraseRecords", {k: v for k, v in asked.items() if v})
            shown |= {"rows": found.items, "next": found.next}
        except RequestProblem as exc:
            shown["problem"] = str(exc)
        section = Section("erases", "erases/list.html", "job", lambda: shown)
        page = Page(
            title="Erased disks", template="one.html", at="servers", sections=(section,)
        )
        return console.render.page(page)

    @pages.get("/erases/<record>")
    async def one_erase(record: str) -> Response:
        found = await read("getEraseRecord", {}, record=record)
        section = Section("erase", "erases/record.html", "", lambda: dict(found))
        page = Page(
            title=f"Disk {found['serial']}", template="one.html", at="servers",
            site=found["site"], sections=(section,),
        )  # fmt: skip
        return console.render.page(page)

    @pages.get("/erases/<record>/file")
    async def erase_file(record: str) -> Response:
        found = await read("getEraseRecord", {}, record=record)
        answer = Response(found["file"] + "\n", mimetype="application/json")
        name = f"erase-{found['id']}.json"
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer
