"""The one renderer: a page and its sections to HTML, with the frame around it.

It knows templates and the request, not what pages are about. Rules: templates escape
everything; an answer is compressed when the browser takes that; a request for parts gets these
and no frame.
"""

import gzip
from importlib import resources
from typing import Any, Final, cast
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup
from quart import Response, request

from hub import show, static_files
from hub.api.auth import session_of
from hub.errors import BadRequest
from hub.pages import forms
from hub.pages.asking import may, principal
from hub.pages.frame import Frame
from hub.pages.page import PART, PARTS_MAX, Page, Section
from hub.ports import Services

GZIP_BYTES_MIN: Final = 1024
GZIP_LEVEL: Final = 5


class Renderer:
    """Makes answers of pages; shared by all page modules."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._frame = Frame(services)
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(_template),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        now_ms = services.clock.now_ms

        def age(then_ms: int | None) -> str:
            return show.age(then_ms, now_ms())

        cast(dict[str, Any], self._environment.globals).update(
            static=static_files.address, hub_name=services.hub_name, build=services.build,
            now_ms=now_ms, age=age, show=show,
            may=may, csrf=self._csrf, with_query=with_query,
        )  # fmt: skip

    def page(self, page: Page, status: int = 200) -> Response:
        """Return a page, or the sections of it that the request asks for."""
        wanted = request.args.get(PART)
        sections = {s.name: s for s in (*self._frame.sections(page), *page.sections)}
        if wanted is not None:
            return self._parts(page, sections, wanted)
        ring = self.services.bus.ring
        said = forms.said(request)

        def fill(name: str) -> Markup:
            return self._section(page, sections[name])

        def kinds(name: str) -> str:
            return sections[name].kinds

        response = self._answer(
            page.template, status, page=page, fill=fill, kinds=kinds, said=said,
            principal=principal(), since=f"{ring.run}-{ring.newest}", **page.values,
        )  # fmt: skip
        if said:
            forms.forget_said(response)
        return response

    def bare(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page without the frame: nobody has signed in, or it is for a wall."""
        return self._answer(template, status, **values)

    def error(self, status: int, text: str) -> Response:
        """Return what a person gets to see instead of a problem document."""
        titles = {403: "Not allowed", 404: "Not found", 503: "Out of reach"}
        title, values = titles.get(status, "That did not work"), {"text": show.sentence(text)}
        if principal() is None or status >= 500 or PART in request.args:
            # the frame itself may be what fails, or is there already
            return self.bare("session/error.html", status, title=title, **values)
        page = Page(title=title, template="error.html", at="", values=values, still=True)
        return self.page(page, status)

    def _parts(self, page: Page, sections: dict[str, Section], wanted: str) -> Response:
        names = wanted.split(",")[:PARTS_MAX]
        unknown = [name for name in names if name not in sections]
        if unknown:
            raise BadRequest(f"this page has no part {unknown[0][:40]!r}")
        found = [(name, self._section(page, sections[name])) for name in names]
        return self._answer("parts.html", 200, parts=found)

    def _section(self, page: Page, section: Section) -> Markup:
        template = self._environment.get_template(section.template)
        values = {**page.values, "page": page, "section": section.build()}
        return Markup(template.render(**values, principal=principal()))  # noqa: S704 - escaped

    def _answer(self, template: str, status: int, **values: Any) -> Response:
        html = self._environment.get_template(template).render(**values).encode()
        packed = len(html) >= GZIP_BYTES_MIN and "gzip" in request.headers.get(
            "Accept-Encoding", ""
        )
        body = gzip.compress(html, GZIP_LEVEL, mtime=0) if packed else html
        response = Response(body, status, content_type="text/html; charset=utf-8")
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = "no-store"
        return response

    def _csrf(self) -> str:
        """Return the session's token, masked for this page; empty where no form is checked."""
        session = session_of(request, self.services)
        return forms.mask(session.csrf) if session is not None else ""


def with_query(**changes: str | None) -> str:
    """Return the address of this page with other query values; None takes one away."""
    kept = {name: value for name, value in request.args.items() if name != PART}
    kept.update({name: value for name, value in changes.items() if value is not None})
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
    return request.path + ("?" + urlencode(kept) if kept else "")


def _template(name: str) -> str | None:
    path = resources.files("hub") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None
