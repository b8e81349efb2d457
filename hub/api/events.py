"""Server-sent events: what changed, as it changes; resumed by Last-Event-ID.

Rule: who may not ask any more (signed out, another password, a revoked token) hears no more.
"""

from typing import Any, cast

from quart import Request, Response, request

from hub.api.auth import principal_of
from hub.api.bind import Bindings
from hub.errors import HubError
from hub.ports import Services
from mesh.rest.calls import Call


def bind(on: Bindings, services: Services) -> None:
    """Bind the event stream."""

    @on.on("followEvents")
    async def events(call: Call) -> Response:
        last = request.headers.get("Last-Event-ID") or call.query.since
        services.bus.check_room()
        asked = cast(Any, request)._get_current_object()
        heard = services.bus.stream(last, lambda: _admitted(asked, services))
        response = Response(heard, content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None
        return response


def _admitted(asked: Request, services: Services) -> bool:
    try:
        return principal_of(asked, services) is not None
    except HubError:
        return False
