"""Boot templates at the hub: kept in the fleet's rows, checked before they are.

It knows rows, nothing of machines. Rules: nothing is kept that could not be rendered; a preview
shows no secret and no capability; checking and rendering run in a thread, one at a time, since
they are what takes a while here.
"""

from collections.abc import Mapping
from typing import Any, Final

import trio

from hub.errors import BadRequest, Conflict, NotFound
from hub.known import HubKnown
from hub.store import ReportStore
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.template_text import FORMATS, TemplateRefused, digest, text_of
from mesh.proto.template_values import HIDDEN, values_for
from mesh.rest.orders import server_named
from mesh.rest.template_types import Rendered, Template, TemplateText
from mesh.store import MeshStore, Tx

TEMPLATES_MAX: Final = 500
log = get_log("templates")


class TemplateDesk:
    """Takes and shows boot templates."""

    def __init__(self, store: MeshStore, reports: ReportStore, clock: Clock) -> None:
        self._store, self._reports, self._clock = store, reports, clock
        self._one = trio.CapacityLimiter(1)

    def list(self) -> list[Template]:
        """Return what is there, without the texts."""
        rows = templates_of(self._store)
        return [_shown(name, row) for name, row in sorted(rows.items())]

    def get(self, name: str) -> TemplateText:
        """Return one with its text."""
        row = self._there(name)
        return TemplateText(text=row["text"], **_shown(name, row))

    async def set(self, name: str, form: str, text: str, by: str) -> Template:
        """Make or change one; orders that were given before it go on naming the old text."""
        if not NAME_PATTERN.match(name):
            raise BadRequest(f"{name[:60]!r} is no name: letters, digits, dots, dashes")
        if form not in FORMATS:
            raise BadRequest(f"format must be one of {', '.join(FORMATS)}, not {form[:60]!r}")
        secrets = await trio.to_thread.run_sync(_secrets, text, limiter=self._one)

        def write(tx: Tx) -> dict[str, Any]:
            rows = {row.key: row.body for row in tx.rows(tables.FLEET, tables.TEMPLATE)}
            before = rows.get(name, {})
            if name not in rows and len(rows) >= TEMPLATES_MAX:
                raise Conflict(f"there are {TEMPLATES_MAX} templates already")
            body = {
                "name": name, "format": form, "text": text, "secrets": secrets, "by": by,
                "created_ms": before.get("created_ms", tx.now_ms), "changed_ms": tx.now_ms,
            }  # fmt: skip
            tx.put(tables.FLEET, tables.TEMPLATE, name, body)
            return body

        body = await self._store.write(write)
        log.info("template set", name=name, user=by)
        return _shown(name, body)

    async def remove(self, name: str) -> Template:
        """Take one away; what was ordered with it is not given out any more either."""
        row = self._there(name)

        def write(tx: Tx) -> None:
            body = {"name": name, "text": "", "removed_ms": tx.now_ms}
            tx.put(tables.FLEET, tables.TEMPLATE, name, body)

        await self._store.write(write)
        return _shown(name, row)

    async def render(self, name: str, server: str, given: Mapping[str, str]) -> Rendered:
        """Return what a server would get, *** in place of secrets and capabilities."""
        row = self._there(name)
        found = server_named(server, HubKnown(self._reports, {}, {}))
        text = await trio.to_thread.run_sync(
            _preview, str(row["text"]), found, given, limiter=self._one
        )
        file = FORMATS[row["format"]].file
        return Rendered(name=name, server=str(found["name"]), file=file, text=text)

    def _there(self, name: str) -> Mapping[str, Any]:
        row = templates_of(self._store).get(name)
        if row is None:
            raise NotFound(f"there is no template {name[:60]!r}; see template list")
        return row


def templates_of(store: MeshStore) -> dict[str, dict[str, Any]]:
    """Return the rows of the templates that are in force, by name."""
    rows = store.rows(tables.FLEET, tables.TEMPLATE)
    return {row.key: row.body for row in rows if text_of(row.body) is not None}


def _secrets(text: str) -> list[str]:
    from mesh.proto.template import check

    try:
        return sorted(check(text).secrets)
    except TemplateRefused as exc:
        raise BadRequest(f"this is no template: {exc}") from exc


def _preview(text: str, server: Mapping[str, Any], given: Mapping[str, str]) -> str:
    from mesh.proto.template import check, render

    try:
        values = values_for(server, hostname=str(server["name"]), ssh_keys=(), given=given)
        return render(check(text), values, lambda _: HIDDEN)
    except TemplateRefused as exc:
        raise BadRequest(f"it cannot be rendered: {exc}") from exc


def _shown(name: str, row: Mapping[str, Any]) -> Template:
    form, text = str(row["format"]), str(row["text"])
    return Template(
        name=name, format=form, file=FORMATS[form].file, digest=digest(form, text),
        bytes=len(text.encode()), secrets=list(row.get("secrets") or ()),
        changed_ms=int(row.get("changed_ms") or 0), by=row.get("by"),
    )  # fmt: skip
