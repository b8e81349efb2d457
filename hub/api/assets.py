"""What operators say of assets: register, clone, want, take away."""

from hub.api.bind import Bindings
from hub.ports import Declaration, Json, Services
from mesh.rest.calls import Call


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations that change references."""

    @on.on("declareAsset")
    async def declare_asset(call: Call) -> Json:
        asked = call.body
        want = asked.want or []
        members = [{"role": m.role, "name": m.name} for m in asked.members or ()]
        declaration = Declaration(
            name=asked.name, url=asked.url, sha256=asked.sha256, kind=asked.kind, want=want,
            members=members, cmdline=asked.cmdline,
        )  # fmt: skip
        await services.assets.declare(declaration)
        shown = {"name": asked.name, "kind": asked.kind, "url": asked.url}
        return {**shown, "sha256": asked.sha256, "want": want}

    @on.on("wantAsset")
    async def want_asset(call: Call) -> Json:
        await services.assets.want(call.parts["name"], call.body.site)
        return {"name": call.parts["name"], "want": [call.body.site]}

    @on.on("unwantAsset")
    async def unwant_asset(call: Call) -> Json:
        await services.assets.unwant(call.parts["name"], call.parts["site"])
        return {"name": call.parts["name"], "want": []}

    @on.on("cloneAsset")
    async def clone_asset(call: Call) -> Json:
        asked = call.body
        old = call.parts["name"]
        await services.assets.clone(old, asked.name, asked.want or [], asked.cmdline)
        return {"name": asked.name}

    @on.on("removeAsset")
    async def remove_asset(call: Call) -> Json:
        await services.assets.remove(call.parts["name"])
        return {"name": call.parts["name"]}
