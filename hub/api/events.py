"""Server-sent events: what changed, as it changes; resumed by Last-Event-ID."""

from quart import Response, request

from hub.api.bind import Bindings
from hub.ports import Services
from mesh.rest.calls import Call


def bind(on: Bindings, services: Services) -> None:
    """Bind the event stream."""

    @on.on("followEvents")
    async def events(call: Call) -> Response:
        last = request.headers.get("Last-Event-ID") or call.query.since
        services.bus.check_room()
        response = Response(services.bus.stream(last), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None
        return response
