"""Orders to install: which template answers the installer, tried before anything is signed.

It knows rows and names. Rule: the template is rendered once for the server when the order is
given, so a variable that is missing is refused there, with the template's line.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mesh.proto.net_boot import INSTALLER, NetBoot
from mesh.proto.template_text import Answers, TemplateRefused, check_vars, digest, text_of
from mesh.proto.template_values import values_for
from mesh.rest.problems import RequestProblem

Body = Mapping[str, Any]


def installer(
    params: Body, server: Body, body: Body, live: NetBoot, templates: Mapping[str, Body]
) -> dict[str, Any]:
    """Return what an order boots to install; raises RequestProblem."""
    from mesh.proto.template import check, render  # a node loads Jinja2 when it must

    name, given = params.get("template"), params.get("vars") or {}
    found = text_of(templates.get(name)) if isinstance(name, str) else None
    if not isinstance(name, str) or found is None:
        raise RequestProblem("not-found", f"there is no template {str(name)[:60]!r}")
    if params.get("user_data") is not None:
        raise RequestProblem("bad-request", "user_data and a template exclude each other")
    form, text = found
    try:
        given = check_vars(given)
        values = values_for(
            server, hostname=body["hostname"], ssh_keys=body["ssh_keys"], given=given,
            cmdline=live.cmdline,
        )  # fmt: skip
        render(check(text), values, lambda _: "secret")
    except TemplateRefused as exc:
        raise RequestProblem(
            "bad-request", f"the template {name} cannot be rendered for {server['name']}: {exc}"
        ) from exc
    answers = Answers(name, form, digest(form, text), given)
    return replace(live, kind=INSTALLER, answers=answers).body()
