"""Assets: what operators say of them (register, clone, want, take away), and their content."""

import base64
import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from quart import Response, request

from hub.api.bind import Bindings
from hub.errors import BadRequest
from hub.ports import Declaration, Json, Services
from mesh.rest.calls import Call

_RANGE: Final = re.compile(r"bytes=(\d{1,18})-\Z", re.ASCII)


def bind(on: Bindings, services: Services) -> None:
    """Bind the operations that change references."""
    _bind_pins(on, services)

    @on.on("declareAsset")
    async def declare_asset(call: Call) -> Json:
        asked = call.body
        want = asked.want or []
        members = [{"role": m.role, "name": m.name} for m in asked.members or ()]
        declaration = Declaration(
            name=asked.name, url=asked.url, sha256=asked.sha256, kind=asked.kind, want=want,
            members=members, cmdline=asked.cmdline, revalidate_s=asked.revalidate_s,
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

    @on.on("exportAsset")
    async def export_asset(call: Call) -> Response:
        export = await services.exports.open(call.parts["name"])
        manifest = export.manifest
        asked = request.headers.get("Range")
        match = _RANGE.match(asked.strip()) if asked else None
        offset = int(match[1]) if match else 0
        if match and offset >= manifest.size:
            raise BadRequest(f"{export.name} has {manifest.size} bytes, none from {offset} on")
        response = Response(
            _passed_on(services, export, offset), 206 if match else 200,
            content_type="application/octet-stream",
        )  # fmt: skip
        digest = base64.b64encode(bytes.fromhex(manifest.sha256)).decode()
        response.headers["Repr-Digest"] = f"sha-256=:{digest}:"
        response.headers["ETag"] = f'"{manifest.asset.removeprefix("b3:")}"'
        response.headers["Content-Length"] = str(manifest.size - offset)
        response.headers["Accept-Ranges"] = "bytes"
        if match:
            last = manifest.size - 1
            response.headers["Content-Range"] = f"bytes {offset}-{last}/{manifest.size}"
        response.timeout = None
        return response


def _bind_pins(on: Bindings, services: Services) -> None:
    @on.on("pinAsset")
    async def pin_asset(call: Call) -> Json:
        await services.assets.pin(call.parts["name"], call.parts["site"])
        return {**call.parts, "pinned": True}

    @on.on("unpinAsset")
    async def unpin_asset(call: Call) -> Json:
        await services.assets.unpin(call.parts["name"], call.parts["site"])
        return {**call.parts, "pinned": False}


async def _passed_on(services: Services, export: Any, offset: int) -> AsyncGenerator[bytes]:
    pieces = services.exports.read(export, offset)
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()
