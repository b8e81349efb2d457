"""Keeping a hub safe: its backup, what became of a restore, and whose keys count."""

from typing import cast

from quart import Response, g

from hub.api.bind import Bindings
from hub.errors import Denied
from hub.ports import Principal, Services
from mesh.rest.calls import Call
from mesh.rest.types import RestoreReport, Trust


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations of backup, restore and trust."""

    @on.on("makeBackup")
    async def backup(_call: Call) -> Response:
        if cast(Principal, g.principal).via != "socket":
            raise Denied("a backup holds the hub's keys: make it on the hub's own machine")
        pieces = await services.backups.stream()
        response = Response(pieces, content_type="application/octet-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None
        return response

    @on.on("getRestoreReport")
    async def show_report(_call: Call) -> RestoreReport:
        return services.restored.report()

    @on.on("dismissRestoreReport")
    async def dismiss_report(_call: Call) -> RestoreReport:
        report = services.restored.report()
        services.restored.dismiss()
        return report

    @on.on("getTrust")
    async def show_trust(_call: Call) -> Trust:
        return services.trust.describe()

    @on.on("replaceTrust")
    async def replace_trust(call: Call) -> Trust:
        return await services.trust.replace(call.body.document, call.body.lists or [])
