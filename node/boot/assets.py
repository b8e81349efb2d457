"""Serves cached assets to machines: the bytes by range and the manifest that verifies them.

It knows no cache files. Rules: bytes leave only after the reader's ``wait`` says that they are
verified; an asset that still arrives is served as it arrives, at its final length; one that is
known and not here is brought here, once, however many ask.
"""

import base64
from typing import Any

from mesh.errors import CodecError
from mesh.proto import codec
from mesh.proto.ids import ASSET_PATTERN
from node.boot.http import FileBody, Request, Response, Route
from node.boot.ports import AssetSource, AssetSummoner

PREFIX = "/assets/"
AGAIN_S = "10"


class AssetRoutes:
    """The routes below /assets/."""

    def __init__(self, source: AssetSource, summoner: AssetSummoner | None = None) -> None:
        self._source, self._summoner = source, summoner

    def routes(self) -> list[Route]:
        """Return what the listener shall serve."""
        return [Route("GET", PREFIX, self._get)]

    async def _get(self, request: Request) -> Response:
        asset, slash, rest = request.path.removeprefix(PREFIX).partition("/")
        if not ASSET_PATTERN.match(asset) or (slash and rest != "manifest"):
            return Response.refusal(404, "there is no such asset")
        return self._manifest(asset) if rest else await self.content(asset)

    async def content(self, asset: str) -> Response:
        """Return an asset's bytes, or a refusal when it is not here and does not come soon."""
        reader, done = self._source.reader(asset), None
        if reader is None and self._summoner is not None:
            done = await self._summoner.summon(asset)
            reader = self._source.reader(asset)
        if reader is None:
            if done is None:
                return Response.refusal(404, "this node does not hold the asset")
            done()
            refusal = Response.refusal(503, "the asset is on its way here; ask again")
            return Response(503, {**refusal.headers, "Retry-After": AGAIN_S}, refusal.body)
        digest, manifest = asset.partition(":")[2], self._source.manifest(asset)
        sha256 = None if manifest is None else bytes.fromhex(manifest.sha256)
        body = FileBody(
            reader.fd, reader.size, digest, sha256=sha256, wait=reader.wait, done=done
        )
        return Response(body=body)

    def _manifest(self, asset: str) -> Response:
        manifest = self._source.manifest(asset)
        if manifest is None:
            return Response.refusal(404, "this node does not know the asset")
        return Response.json(manifest_document(asset, manifest.core))


def manifest_document(asset: str, core: bytes) -> dict[str, Any]:
    """Return the manifest as machines read it; ``core`` lets them check it against the id."""
    body = codec.unpack_map(core, bytes_max=64 << 20)
    members = body.get("members")
    if not isinstance(members, (list, tuple)) or len(members) != 1:
        raise CodecError("only assets of one file are served to machines")
    _, size, chunks = members[0]
    return {
        "asset": asset,
        "size": size,
        "chunk_bytes": body["chunk_bytes"],
        "sha256": body.get("sha256"),
        "chunks": [chunk.hex() for chunk in chunks],
        "core": base64.b64encode(core).decode(),
    }
