"""The pages of the console: sign-in and the one live overview, rendered here.

It reads through the same functions as the API. Rule: every page is whole without JavaScript;
with it, a section is fetched again when an event names it.
"""

from collections.abc import Callable
from importlib import resources
from typing import Any, Final, cast

import jinja2
from quart import Blueprint, Response, request

from hub import show, static_files
from hub.api import read
from hub.api.auth import COOKIE, check_origin, session_of
from hub.api.session import SignIn, client_address, set_cookie
from hub.desk import same_text
from hub.errors import BadRequest, Denied, HubError, NotFound, SignInNeeded, TooMany
from hub.ports import Services
from hub.store import FAILED, RUNNING
from mesh.rest.types import Site

FORM_FIELD_CHARS_MAX: Final = 1024
JOBS_SHOWN_MAX: Final = 12
ROWS_SHOWN_MAX: Final = 200
"""Most rows of one section; the page says how many more there are."""

Json = dict[str, Any]


def routes(services: Services, sign_in: SignIn) -> Blueprint:
    """Return the routes of the pages."""
    pages = Blueprint("pages", __name__)
    render = _renderer(services)

    @pages.get("/")
    async def overview() -> Response:
        session = session_of(request, services)
        found = {name: section() for name, section in _sections(services).items()}
        return render(
            "overview.html", account=session.account if session else None,
            csrf=session.csrf if session else "", sections=found,
            run=services.bus.ring.run, number=services.bus.ring.newest,
        )  # fmt: skip

    @pages.get("/live/<section>")
    async def live(section: str) -> Response:
        build = _sections(services).get(section)
        if build is None:
            raise NotFound("there is no such section")
        return render(f"{section}.html", section=build())

    @pages.get("/sign-in")
    async def sign_in_form() -> Response:
        if session_of(request, services) is not None:
            return _go("/")
        return render("sign_in.html", error=None, account="")

    @pages.post("/sign-in")
    async def sign_in_now() -> Response:
        check_origin(request)
        form = await request.form
        account, password = form.get("account", ""), form.get("password", "")
        if max(len(account), len(password)) > FORM_FIELD_CHARS_MAX:
            raise BadRequest("the account or the password is too long")
        try:
            secret, _ = await sign_in.begin(account, password, client_address(request))
        except (SignInNeeded, TooMany) as exc:
            return render("sign_in.html", exc.status, error=_sentence(exc), account=account)
        response = _go("/")
        set_cookie(response, secret)
        return response

    @pages.post("/sign-out")
    async def sign_out() -> Response:
        session, form = session_of(request, services), await request.form
        if session is None or not same_text(form.get("csrf", ""), session.csrf):
            raise Denied("this form is from another session")
        services.desk.sign_out(request.cookies.get(COOKIE, ""))
        response = _go("/sign-in")
        set_cookie(response, None)
        return response

    return pages


def _go(where: str) -> Response:
    """Return a redirect that makes the browser GET another page of ours."""
    return Response("", 303, headers={"Location": where})


def _sentence(error: HubError) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + "."


def _renderer(services: Services) -> Callable[..., Response]:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    cast(Json, environment.globals).update(
        static=static_files.address,
        hub_name=services.hub_name,
        build=services.build,
        size=show.size,
        tone=show.tone,
        residency=show.residency,
        job_title=show.job_title,
        job_progress=show.job_progress,
    )

    def render(template: str, status: int = 200, **values: Any) -> Response:
        now_ms = services.clock.now_ms()

        def age(then_ms: int | None) -> str:
            return show.age(then_ms, now_ms)

        html = environment.get_template(template).render(**values, now_ms=now_ms, age=age)
        response = Response(html, status, content_type="text/html; charset=utf-8")
        response.headers["Cache-Control"] = "no-store"
        return response

    return render


def _template(name: str) -> str | None:
    path = resources.files("hub") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _worst_first(site: Site) -> tuple[int, str]:
    """Sort sites out of reach first, then half reachable ones, those without nodes last."""
    if not site["nodes"]:
        return 3, site["name"]
    return min(2, 2 * site["nodes_reachable"] // site["nodes"]), site["name"]


def _sections(services: Services) -> dict[str, Callable[[], Json]]:
    """Return what each section of the overview shows, by name."""
    store = services.store

    def cut(rows: list[Any], most: int = ROWS_SHOWN_MAX, total: int = 0) -> Json:
        return {"rows": rows[:most], "more": max(0, max(total, len(rows)) - most)}

    def counted(kind: str, rows: list[Json], most: int = ROWS_SHOWN_MAX) -> Json:
        return cut(rows, most, sum(store.counts(kind).values()))

    def summary() -> Json:
        sites = read.sites(services)
        return {
            "status": services.status.status(),
            "sites": len(sites),
            "nodes": sum(site["nodes"] for site in sites),
            "reachable": sum(site["nodes_reachable"] for site in sites),
            "servers": sum(store.counts("server").values()),
            "failed": sum(store.counts("server", FAILED).values()),
            "pending": sum(store.counts("pending").values()),
            "jobs": sum(store.counts("job", RUNNING).values()),
            "oldest_ms": min(
                (s["last_contact_ms"] or 0 for s in sites if s["nodes"]), default=None
            ),
        }

    def sites() -> Json:
        by_site: dict[str, list[Json]] = {}
        for node in read.nodes(services):
            if "node" in node["roles"] and node["status"] != "left":
                by_site.setdefault(node["site"], []).append(node)
        found = sorted(read.sites(services), key=_worst_first)
        return cut([{**site, "members": by_site.get(site["name"], [])} for site in found])

    def with_stale(shown: Json) -> Json:
        """Add the sites that nobody reaches now, with their last contact: state unknown."""
        silent = [s for s in read.sites(services) if s["nodes"] and not s["nodes_reachable"]]
        return {**shown, "stale": {site["name"]: site["last_contact_ms"] for site in silent}}

    def pending() -> Json:
        return cut(sorted(store.documents("pending"), key=lambda seen: -seen["last_ms"]))

    return {
        "summary": summary,
        "sites": sites,
        "jobs": lambda: with_stale(
            counted("job", read.jobs(services, limit=JOBS_SHOWN_MAX), JOBS_SHOWN_MAX)
        ),
        "servers": lambda: with_stale(
            counted("server", store.documents("server", limit=ROWS_SHOWN_MAX))
        ),
        "pending": pending,
        "assets": lambda: counted("asset", store.documents("asset", limit=ROWS_SHOWN_MAX)),
    }
