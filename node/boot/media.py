"""Serves what a machine boots off the network: kernel, initrds, an ISO, under its capability.

It knows no jobs and no cache files. Rules: a file goes out only when the decisions' port says
that this capability may have it; ranges are served, since firmware reads an ISO in small
pieces; the capability stands in the query, which neither log nor console shows.
"""

from typing import Final

from node.boot.assets import AssetRoutes
from node.boot.http import Request, Response, Route
from node.boot.ports import BootDecisions, Refusal
from node.proto.http_range import requested_bytes
from node.proto.net_boot_script import MEDIA_PATH

NAME_CHARS_MAX: Final = 1024


class MediaRoutes:
    """The routes below /media/."""

    def __init__(self, decisions: BootDecisions, assets: AssetRoutes) -> None:
        self._decisions, self._assets = decisions, assets

    def routes(self) -> list[Route]:
        """Return what the listener shall serve."""
        return [Route("GET", MEDIA_PATH, self._get, quiet=True)]

    async def _get(self, request: Request) -> Response:
        name, capability = request.path.removeprefix(MEDIA_PATH), request.query.get("cap", "")
        if not name or len(name) + len(capability) > NAME_CHARS_MAX:
            return Response.refusal(404, "there is nothing under this path")
        asked = requested_bytes(request.headers.get("range"))
        if request.method == "HEAD":
            asked = 0
        found = await self._decisions.media(capability, name, asked, request.client_ip)
        if isinstance(found, Refusal):
            return Response.refusal(403, found.sentence)
        if found is None:
            return Response.text("go on\n")
        return await self._assets.content(found)
