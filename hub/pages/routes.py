"""All pages in one blueprint; a new page module is one line here."""

from quart import Blueprint

from hub.api.bind import Bindings
from hub.api.session import SignIn
from hub.pages import (
    assets,
    bmcs,
    erases,
    groups,
    install,
    jobs,
    kiosk,
    mesh,
    nodes,
    overview,
    pending,
    search,
    server,
    server_orders,
    servers,
    session,
    sites,
)
from hub.pages.context import Console
from hub.pages.render import Renderer
from hub.ports import Services


def routes(services: Services, sign_in: SignIn, api: Bindings) -> tuple[Blueprint, Renderer]:
    """Return the routes of the console and its renderer."""
    blueprint = Blueprint("pages", __name__)
    render = Renderer(services)
    console = Console(services, render, sign_in, api)
    for module in (
        overview, sites, nodes, mesh, pending, bmcs, install, servers, server_orders, server,
        jobs, groups, assets, erases, search, kiosk, session,
    ):  # fmt: skip
        module.add(blueprint, console)

    return blueprint, render
