"""Serves what an installer reads about its machine, under a capability of its order.

It knows no templates. Rules: a text goes out only when the decisions' port makes it for this
capability and this address; it is never stored nor cached, and its path is never logged; a HEAD
is refused, since asking for a text can be what uses it up.
"""

from typing import Final

from mesh.host.log import Log
from node.boot.http import ANY, Request, Response, Route
from node.boot.ports import BootDecisions, Refusal
from node.proto.net_boot_script import ANSWERS_PATH

PATH_CHARS_MAX: Final = 1024


class AnswerRoutes:
    """The routes below /answers/."""

    def __init__(self, decisions: BootDecisions, log: Log) -> None:
        self._decisions, self._log = decisions, log

    def routes(self) -> list[Route]:
        """Return what the listener shall serve."""
        return [Route(ANY, ANSWERS_PATH, self._get, secret_tail=True)]

    async def _get(self, request: Request) -> Response:
        if request.method != "GET":
            refusal = Response.refusal(405, "this path takes GET")
            return Response(405, {**refusal.headers, "Allow": "GET"}, refusal.body)
        tail = request.path.removeprefix(ANSWERS_PATH)
        capability, _, name = tail.partition("/")
        if not name:  # as iPXE asks, which shows a URL without its query
            capability, name = request.query.get("cap", ""), tail
        if not capability or not name or len(tail) + len(capability) > PATH_CHARS_MAX:
            return Response.refusal(404, "there is nothing under this path")
        found = await self._decisions.answers(capability, name, request.client_ip)
        if isinstance(found, Refusal):
            return Response.refusal(found.status, found.sentence)
        text = Response.text(found)
        return Response(200, {**text.headers, "Cache-Control": "no-store"}, text.body)
