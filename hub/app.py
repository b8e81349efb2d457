"""The HTTP application: the API, the pages and the static files, behind one guard.

It knows no sockets. Rule: no handler runs before the guard has said who asks, and every answer
leaves with the same strict headers.
"""

from typing import Final

from quart import Response, g, redirect, request
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio

from hub import static_files
from hub.api import (
    accounts,
    assets,
    auth,
    console,
    events,
    hooks,
    mesh,
    monitor,
    problems,
    read,
    session,
    shape,
    templates,
    upkeep,
    write,
)
from hub.api.bind import Bindings, allowed, may, operation_of
from hub.api.session import SignIn
from hub.errors import SignInNeeded
from hub.pages import forms
from hub.pages.routes import routes as page_routes
from hub.ports import Services

CSP: Final = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
REQUEST_BODY_S: Final = 30
RESPONSE_S: Final = 60


def make_app(services: Services) -> QuartTrio:
    """Return the ASGI application over these services."""
    app = QuartTrio("hub", static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = shape.BODY_BYTES_MAX
    app.config["BODY_TIMEOUT"] = REQUEST_BODY_S
    app.config["RESPONSE_TIMEOUT"] = RESPONSE_S
    sign_in = SignIn(services)

    @app.before_request
    async def guard() -> ResponseReturnValue | None:
        g.principal = None
        if auth.is_open(request.path):
            return None
        g.principal = principal = auth.admitted(request, services)
        if principal is not None:
            rule = request.url_rule.rule if request.url_rule else None
            may(principal, operation_of(request.method, rule))
            if auth.is_form(request) and principal.via == "session":
                await forms.check_token(request, services)
            return None
        if request.path.startswith("/api/") or request.path == "/metrics":
            raise SignInNeeded("sign in first, or give an API token as a bearer")
        if "HX-Request" in request.headers:
            return Response("", 401, headers={"HX-Redirect": "/sign-in"})
        return redirect("/sign-in")

    @app.after_request
    async def harden(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers[name] = value
        if "Allow" in response.headers:
            response.headers["Allow"] = allowed(request.path, response.headers["Allow"])
        return response

    bindings = Bindings(services)
    pages, renderer = page_routes(services, sign_in, bindings)
    problems.install(app, renderer.error)
    rooms = (read, write, assets, templates, hooks, events, mesh, accounts, upkeep, console)
    for room in rooms:
        room.bind(bindings, services)
    for operation, handler in services.alike.items():
        bindings.on(operation)(handler)
    app.register_blueprint(bindings.blueprint())
    console.add(app, services)
    app.register_blueprint(monitor.routes(services))
    app.register_blueprint(session.routes(services, sign_in))
    app.register_blueprint(static_files.routes())
    app.register_blueprint(pages)
    return app
