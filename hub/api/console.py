"""The console of a server as a WebSocket.

Rules: a page of another site cannot open one in our user's browser (Origin); the role counts
when it is opened and while it is; what is refused is said in the WebSocket's own first message,
because a browser shows no page of a refused one.
"""

from typing import Any, Final, NoReturn, cast

from quart import Websocket, websocket
from quart_trio import QuartTrio

from hub.api import read
from hub.api.auth import principal_of
from hub.api.bind import Bindings, may
from hub.api.problems import described
from hub.errors import Denied, HubError, SignInNeeded
from hub.ports import Principal, Services
from mesh.console_wire import ended
from mesh.errors import MeshError
from mesh.rest.calls import Call, read_call
from mesh.rest.operations import OPERATIONS, PREFIX, SOCKET
from mesh.rest.problems import RequestProblem
from mesh.rest.roles import covers

OPERATION: Final = OPERATIONS["openConsole"]
PATH: Final = f"{PREFIX}{OPERATION.path}".replace("{", "<").replace("}", ">")


class QuartWire:
    """Messages over the WebSocket that is served now."""

    def __init__(self, socket: Websocket) -> None:
        self._socket = socket

    async def send(self, message: bytes | str) -> None:
        """Send one message."""
        await self._socket.send(message)

    async def receive(self) -> bytes | str:
        """Return the next message; Quart cancels who waits when the other end has closed."""
        return await self._socket.receive()


def bind(on: Bindings, _services: Services) -> None:
    """Bind the plain request, which is none."""

    @on.on("openConsole")
    async def plain(_call: Call) -> NoReturn:
        raise RequestProblem("bad-request", SOCKET)


def add(app: QuartTrio, services: Services) -> None:
    """Add the WebSocket, beside the table's routes."""

    @app.websocket(PATH)
    async def console(server: str) -> None:
        asked = cast(Any, websocket)._get_current_object()
        wire = QuartWire(asked)
        try:
            who = admitted(asked, services)
            found, wanted = _wanted(asked, services, who, server)
        except MeshError as exc:
            _, code, sentence, _ = described(exc)
            await websocket.accept()
            await wire.send(ended(sentence, code))
            return
        await websocket.accept()
        await services.consoles.watch(
            wire, found, who.name, wanted, lambda: _still(asked, services, who)
        )

    _ = console


def admitted(asked: Websocket, services: Services) -> Principal:
    """Return who asks; Denied, SignInNeeded or TooMany otherwise."""
    who = principal_of(cast(Any, asked), services)
    if who is None:
        raise SignInNeeded("sign in first, or give an API token as a bearer")
    if who.via == "session" and asked.headers.get("Origin") != f"https://{asked.host}":
        raise Denied("a console is opened in a browser only by a page of this hub")
    if who.via != "socket":
        services.limits.check_call(who.name)
    may(who, OPERATION)
    return who


def _wanted(
    asked: Websocket, services: Services, who: Principal, server: str
) -> tuple[Any, dict[str, bool]]:
    call = read_call(OPERATION, who.name, {"server": server}, asked.args.to_dict(), b"", None)
    query = call.query
    operator = covers(who.role, "operator")
    if (query.write or query.take or query.steal) and not operator:
        raise Denied(f"writing to a console needs the role operator; {who.name} is {who.role}")
    found = read.one(services.store, "server", server, "server")
    services.consoles.check_room(who.name)
    wanted = {
        "write": query.write or query.take, "take": query.take, "steal": query.steal,
        "may_write": operator,
    }  # fmt: skip
    return found, wanted


def _still(asked: Websocket, services: Services, who: Principal) -> bool:
    """Tell whether somebody is still who he was, with the same role."""
    try:
        return principal_of(cast(Any, asked), services) == who
    except HubError:
        return False
