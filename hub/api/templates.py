"""Boot templates: what operators say of them."""

from typing import Any

from hub.api.bind import Bindings
from hub.ports import Services
from mesh.rest.calls import Call


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations on templates; the list is bound with all lists."""

    @on.on("getTemplate")
    async def get_template(call: Call) -> Any:
        return services.templates.get(call.parts["template"])

    @on.on("setTemplate")
    async def set_template(call: Call) -> Any:
        asked = call.body
        name = call.parts["template"]
        return await services.templates.set(name, asked.format, asked.text, call.who)

    @on.on("removeTemplate")
    async def remove_template(call: Call) -> Any:
        return await services.templates.remove(call.parts["template"])

    @on.on("renderTemplate")
    async def render_template(call: Call) -> Any:
        asked = call.body
        name = call.parts["template"]
        return await services.templates.render(name, asked.server, asked.vars or {})
