"""Server-sent events: what changed, as it changes; resumed by Last-Event-ID."""

from quart import Blueprint, Response, request

from hub.ports import Services


def routes(services: Services) -> Blueprint:
    """Return the event stream."""
    api = Blueprint("events", __name__, url_prefix="/api/v1")

    @api.get("/events")
    async def events() -> Response:
        last = request.headers.get("Last-Event-ID") or request.args.get("since")
        services.bus.check_room()
        response = Response(services.bus.stream(last), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None
        return response

    return api
