"""Hooks: what administrators say of them."""

from typing import Any

from hub.api.bind import Bindings
from hub.ports import Services
from mesh.rest.calls import Call, given


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations on hooks; the list is bound with all lists."""

    @on.on("getHook")
    async def get_hook(call: Call) -> Any:
        return services.hooks.get(call.parts["hook"])

    @on.on("setHook")
    async def set_hook(call: Call) -> Any:
        return await services.hooks.set(call.parts["hook"], given(call.body), call.who)

    @on.on("removeHook")
    async def remove_hook(call: Call) -> Any:
        return await services.hooks.remove(call.parts["hook"])
