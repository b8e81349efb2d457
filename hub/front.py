"""The doors: one HTTPS port for members, browsers and API clients, and a local socket.

It knows no routes. Every TLS connection is checked for its suite, its first request's head is
read, and ``/mesh/1`` goes to the mesh while anything else goes to Hypercorn's trio worker.
Rules: a connection's failure ends that connection only; nobody gets in over the socket but root
and the hub's own user, which the kernel tells.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from quart_trio import QuartTrio

from hub.api.auth import LOCAL_UID
from hub.api.upload import Uploads
from hub.early_answers import WholeRequest
from hub.tls import Tls
from hub.web_connection import WebConnection
from mesh.errors import Refused, RemoteError
from mesh.host.local_socket import may_ask, peer_uid
from mesh.host.log import get_log
from mesh.host.web_socket import MESSAGE_BYTES_MAX
from mesh.link.split import ReplayStream, is_mesh_request, read_head
from mesh.link.tls import require_strong

CONNECTIONS_MAX: Final = 2048
"""Most connections on the port; further ones are closed at once."""
BACKLOG: Final = 512
HANDSHAKE_S: Final = 15.0
KEEP_ALIVE_S: Final = 75.0
GRACE_S: Final = 2.0
"""How long open requests may go on once the hub is told to stop."""
PING_S: Final = 20.0
"""Between two questions for a sign of life in a WebSocket."""
HEAD_BYTES_MAX: Final = 16 * 1024
STREAMS_MAX: Final = 64
log = get_log("front")

MeshDoor = Callable[[ReplayStream], Awaitable[None]]


class PlainStream(trio.abc.Stream):
    """A socket without half-close, as Hypercorn sees it.

    Hypercorn half-closes before it closes, in a scope that is cancelled by then, so that with
    a plain socket the connection would stay open; a stream that cannot half-close is closed.
    """

    def __init__(self, inner: trio.SocketStream) -> None:
        self._inner = inner
        self.socket = inner.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending might not block."""
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return what arrives."""
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self._inner.aclose()


class WebSide:
    """Hypercorn's trio worker for connections that are accepted elsewhere."""

    def __init__(self, app: QuartTrio, uploads: Uploads) -> None:
        self._app = app
        self._uploads = uploads
        self._config = web_config()
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start and stop the application around the time it serves."""
        lifespan = Lifespan(ASGIWrapper(cast(Any, self._app)), self._config, self._state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            try:
                yield
            finally:
                with trio.move_on_after(GRACE_S, shield=True):
                    await self._context.terminated.set()
                    try:
                        await lifespan.wait_for_shutdown()
                    except (trio.ClosedResourceError, trio.BrokenResourceError):
                        pass  # cancelled from outside: the application ended with us
                nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Tell open connections to finish what they are at."""
        await self._context.terminated.set()

    async def serve(self, stream: Any, uid: int | None = None) -> None:
        """Serve one connection to its end; ``uid`` marks a local user."""

        async def entrance(scope: Any, receive: Any, send: Any) -> None:
            if uid is not None:
                scope = {**scope, LOCAL_UID: uid}
            if self._uploads.takes(scope):
                await self._uploads.handle(scope, receive, send)
            elif scope["type"] == "http":
                whole = WholeRequest(receive, send)
                await self._app(scope, whole.receive, whole.send)
            else:
                await self._app(scope, receive, send)

        state = ConnectionState(cast(Any, self._state.copy()))
        app = ASGIWrapper(cast(Any, entrance))
        await WebConnection(app, self._config, self._context, cast(Any, state), stream)


def web_config() -> Config:
    """Return Hypercorn's settings; its own log stays silent, handlers log for themselves."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.h2_max_concurrent_streams = STREAMS_MAX
    config.graceful_timeout = GRACE_S
    config.websocket_ping_interval = PING_S
    config.websocket_max_message_size = MESSAGE_BYTES_MAX
    return config


class Front:
    """Accepts connections on the port and on the socket."""

    def __init__(self, web: WebSide, tls: Tls, mesh_door: MeshDoor) -> None:
        self._web = web
        self._tls = tls
        self._mesh_door = mesh_door
        self._accepting = trio.CancelScope()
        self._open: set[trio.SocketStream] = set()
        self.connections = 0
        self.refused = 0

    async def serve(
        self,
        port: trio.SocketListener,
        local: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve both listeners until ``stop``; open requests then have GRACE_S to end."""
        async with self._web.running(), trio.open_nursery() as ending:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    async with trio.open_nursery() as accepting:
                        accepting.start_soon(_accept, self._over_tls, port, connections)
                        accepting.start_soon(_accept, self._local, local, connections)
                        task_status.started()
                await self._web.stop()
                connections.cancel_scope.deadline = trio.current_time() + GRACE_S
                ending.start_soon(self._cut_off)
            ending.cancel_scope.cancel()

    def stop(self) -> None:
        """Accept nobody any more and let ``serve`` come to its end."""
        self._accepting.cancel()

    async def _cut_off(self) -> None:
        """Close what is open after the grace: a send to who reads nothing is not cancelled."""
        await trio.sleep(GRACE_S)
        for stream in self._open:
            stream.socket.close()

    async def _over_tls(self, stream: trio.SocketStream) -> None:
        if self.connections >= CONNECTIONS_MAX:
            self.refused += 1
            await trio.aclose_forcefully(stream)
            return
        self.connections += 1
        self._open.add(stream)
        try:
            await self._secure(stream)
        except (RemoteError, trio.BrokenResourceError, trio.ClosedResourceError):
            self.refused += 1
        except Exception as exc:
            log.warning("connection failed", error=f"{type(exc).__name__}: {exc}")
        finally:
            self.connections -= 1
            self._open.discard(stream)
            await trio.aclose_forcefully(stream)

    async def _secure(self, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(
            stream, self._tls.context, server_side=True, https_compatible=True
        )
        try:
            with trio.fail_after(HANDSHAKE_S):
                await secured.do_handshake()
        except trio.TooSlowError as exc:
            raise RemoteError("no TLS handshake in time") from exc
        require_strong(secured)
        if secured.selected_alpn_protocol() == "h2":
            await self._web.serve(secured)
            return
        head, whole = await read_head(secured)
        if is_mesh_request(head):
            await self._mesh_door(whole)
        else:
            await self._web.serve(whole)

    async def _local(self, stream: trio.SocketStream) -> None:
        self._open.add(stream)
        try:
            uid = peer_uid(stream.socket)
            if not may_ask(stream.socket):
                log.warning("local user refused", user=uid)
                return
            await self._web.serve(PlainStream(stream), uid)
        except Exception as exc:
            log.warning("connection failed", error=f"{type(exc).__name__}: {exc}")
        finally:
            self._open.discard(stream)
            await trio.aclose_forcefully(stream)


async def _accept(
    handler: Callable[[trio.SocketStream], Awaitable[None]],
    listener: trio.SocketListener,
    connections: trio.Nursery,
) -> None:
    await trio.serve_listeners(handler, [listener], handler_nursery=connections)


async def listen_tcp(host: str, port: int) -> trio.SocketListener:
    """Bind the HTTPS port; Refused with one sentence when that cannot be."""
    try:
        found = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as exc:
        raise Refused(
            f"the hub cannot listen on {host} port {port} ({exc.strerror or exc});"
            " choose another with --port"
        ) from exc
    for extra in found[1:]:
        await extra.aclose()
    return found[0]
