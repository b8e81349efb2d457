"""Consoles of the site's servers: one conversation with a BMC each, any number of watchers.

It knows rows, drivers and links. Rules: of a site's nodes one has a server's console, found by
rendezvous among those that are there and can open its login, so that two watchers never take it
from each other; who reads late is told what was missed; when the last watcher has gone it stays
open for a moment, then it is given back. Who opened, wrote to and left a console is logged.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from drivers.api import Console, open_console
from drivers.errors import DriverError
from mesh.console_wire import (
    CHUNK_BYTES,
    STREAM,
    WHO_CHARS_MAX,
    StreamWire,
    Wire,
    control,
    ended,
    splice,
)
from mesh.errors import MeshError, Refused, RemoteError, Unreachable
from mesh.host.log import get_log
from mesh.proto.rendezvous import owner
from node.boot.sockets import interface_address
from node.proto.console import Ring, Watcher, Watchers
from node.work.ports import Credentials
from node.work.rows import SiteRows

CONSOLES_MAX: Final = 32
"""Consoles that a node has open."""
GRACE_S: Final = 30.0
"""How long a console stays open when nobody watches any more."""
IDLE_S: Final = 3600.0
"""Without a byte either way for so long, a console is closed."""
BYTES_PER_S: Final = 256 << 10
"""Most that is taken from a server; a BMC waits meanwhile, serial lines are far slower."""
TYPED_MAX: Final = 64
"""Messages of the writer that wait; then the writer waits."""
STATUS_S: Final = 15.0
"""How often a watcher hears the state though nothing changes: a sign of life."""

log = get_log("console")


class OpenConsole(Protocol):
    """``drivers.api.open_console`` with our out-of-band address."""

    def __call__(
        self,
        url: str,
        login: Mapping[str, object],
        /,
        *,
        steal: bool,
        say: Callable[[str], None],
    ) -> AbstractAsyncContextManager[Console]:
        """Open the console at a BMC's address."""
        ...


class Peers(Protocol):
    """Links to other members."""

    def stream(
        self, node_id: str, name: str, body: Any, timeout_s: float = 15.0
    ) -> AbstractAsyncContextManager[Any]:
        """Open a stream to another node."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a watcher wants; ``write`` and ``take`` are honoured with ``may_write`` alone."""

    server: str
    who: str
    may_write: bool
    write: bool = False
    take: bool = False
    steal: bool = False
    """Take the console away from another client of the BMC."""


class _Open:
    """One console, from its first watcher on."""

    def __init__(self, name: str, url: str, *, steal: bool) -> None:
        self.name, self.url, self.steal = name, url, steal
        self.ring, self.watchers = Ring(), Watchers()
        self.state, self.text = "opening", ""
        self.version = 0
        self.changed = trio.Event()
        self.closing, self.gone = False, trio.Event()
        self.used_at = trio.current_time()
        self.left_at: float | None = None
        self.to_type, self._typed = trio.open_memory_channel[bytes | None](TYPED_MAX)

    def tell(self, text: str | None = None, state: str | None = None) -> None:
        """Let every watcher hear of a change."""
        if text is not None:
            self.text = text
        self.state = state or self.state
        self.version += 1
        self.ring_bell()

    def ring_bell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def carry(self, device: Console) -> None:
        """Carry characters until the device ends it, or nobody wants it any more."""
        self.tell("", "open")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._type, device, nursery.cancel_scope)
            nursery.start_soon(self._guard, nursery.cancel_scope)
            try:
                while True:
                    data = await device.receive()
                    self.ring.write(data)
                    self.used_at = trio.current_time()
                    self.ring_bell()
                    await trio.sleep(len(data) / BYTES_PER_S)
            except DriverError as exc:
                self.text = str(exc)
            self.closing = True
            nursery.cancel_scope.cancel()

    async def _type(self, device: Console, whole: trio.CancelScope) -> None:
        async for data in self._typed:
            self.used_at = trio.current_time()
            try:
                if data is None:
                    await device.send_break()
                else:
                    await device.send(data)
            except DriverError as exc:
                if data is not None:
                    self.text = str(exc)
                    whole.cancel()
                    return
                self.tell(str(exc))

    async def _guard(self, whole: trio.CancelScope) -> None:
        """End it when nobody has watched, or nothing was said, for too long."""
        while True:
            now = trio.current_time()
            until = self.used_at + IDLE_S
            if self.left_at is not None:
                until = min(until, self.left_at + GRACE_S)
            if now >= until:
                self.text = f"nothing was written or typed for {IDLE_S / 60:g} minutes"
                self.closing = True
                whole.cancel()
                return
            with trio.move_on_after(until - now):
                await self.changed.wait()

    def status(self, watcher: Watcher, missed: int, node: str) -> str:
        """Return what a watcher is told."""
        writer = self.watchers.writer
        return json.dumps({
            "state": self.state, "text": self.text, "server": self.name, "node": node,
            "writer": writer.who if writer is not None else None,
            "you_write": writer is watcher, "may_write": watcher.may_write,
            "watchers": len(self.watchers), "missed": missed,
        })  # fmt: skip


class Consoles:
    """The service; ``run`` keeps what is open."""

    _nursery: trio.Nursery

    def __init__(
        self,
        rows: SiteRows,
        open_console: OpenConsole,
        credentials: Credentials,
        peers: Peers,
        alive: Callable[[], list[str]],
        holders: Callable[[], Mapping[str, frozenset[str]]],
    ) -> None:
        self._rows, self._open_console, self._credentials = rows, open_console, credentials
        self._peers, self._alive, self._holders = peers, alive, holders
        self._consoles: dict[str, _Open] = {}

    def streams(self) -> dict[str, Any]:
        """Return the streams that members may open to us."""
        return {STREAM: self._on_stream}

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep consoles open until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def watch(self, wire: Wire, asked: Asked, *, forwarded: bool = False) -> None:
        """Serve one watcher to the end, here or at the node that has the console."""
        try:
            server = self._rows.server(asked.server)
            if server is None:
                raise Refused("there is no such server at this site")
            bmc = server.get("bmc")
            if not isinstance(bmc, Mapping) or not bmc.get("url") or not bmc.get("secret"):
                raise Refused(f"{server.get('name')} has no BMC with a secret")
            there = self._rows.node_id if forwarded else self._owner(server, str(bmc["secret"]))
            if there == self._rows.node_id:
                await self._serve(wire, asked, server, bmc)
            else:
                await self._forward(wire, asked, there)
        except (RemoteError, Unreachable):
            pass  # the watcher went away
        except MeshError as exc:
            await self._say(wire, ended(str(exc)))

    def _owner(self, server: Mapping[str, Any], secret: str) -> str:
        able = self._holders().get(secret, frozenset())
        nodes = [node for node in self._alive() if node in able]
        return owner(nodes, f"console/{server['id']}") or self._rows.node_id

    async def _forward(self, wire: Wire, asked: Asked, node: str) -> None:
        body = {
            "server": asked.server, "who": asked.who, "write": asked.write,
            "take": asked.take, "steal": asked.steal, "may_write": asked.may_write,
            "forwarded": True,
        }  # fmt: skip
        try:
            async with self._peers.stream(node, STREAM, body) as stream:
                await splice(wire, StreamWire(stream))
        except Unreachable as exc:
            await self._say(wire, ended(f"the node that has the console: {exc}", "unreachable"))

    async def _on_stream(self, peer: str, body: Any, stream: Any) -> None:
        """Serve a watcher who comes by a hub, or by another node of the site."""
        self._rows.check_near_or_hub(peer)
        asked, forwarded = _asked(body)
        await self.watch(StreamWire(stream), asked, forwarded=forwarded)

    async def _serve(
        self, wire: Wire, asked: Asked, server: Mapping[str, Any], bmc: Mapping[str, Any]
    ) -> None:
        console = self._consoles.get(str(server["id"]))
        while console is not None and console.closing:  # a BMC has one: let it be given back
            await console.gone.wait()
            console = self._consoles.get(str(server["id"]))
        if console is None:
            if len(self._consoles) >= CONSOLES_MAX:
                raise Refused(f"this node has {CONSOLES_MAX} consoles open, and takes no more")
            name = str(server.get("name"))
            console = _Open(name, str(bmc["url"]), steal=asked.steal and asked.may_write)
            self._consoles[str(server["id"])] = console
            self._nursery.start_soon(self._keep, str(server["id"]), console, str(bmc["secret"]))
        if console.watchers.full:
            raise Refused(f"{len(console.watchers)} people watch this console already")
        watcher = Watcher(asked.who, asked.may_write)
        console.watchers.add(watcher)
        console.left_at = None
        log.info("console watched", server=console.name, user=asked.who)
        try:
            if asked.write:
                self._ask(console, watcher, take=asked.take)
            console.tell()
            await self._both_ways(wire, console, watcher)
        finally:
            console.watchers.remove(watcher)
            if not len(console.watchers):
                console.left_at = trio.current_time()
            console.tell()
            log.info("console left", server=console.name, user=asked.who)

    def _ask(self, console: _Open, watcher: Watcher, *, take: bool) -> None:
        before = console.watchers.writer
        refusal = console.watchers.ask(watcher, trio.current_time(), take=take)
        if refusal is None and before is not watcher:
            log.info("console written to", server=console.name, user=watcher.who)
        console.tell(refusal or "")

    async def _both_ways(self, wire: Wire, console: _Open, watcher: Watcher) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show, wire, console, watcher, nursery.cancel_scope)
            try:
                while (message := await wire.receive()) is not None:
                    await self._take(console, watcher, message)
            except (RemoteError, Unreachable):
                pass  # the watcher went away
            nursery.cancel_scope.cancel()

    async def _take(self, console: _Open, watcher: Watcher, message: bytes | str) -> None:
        """Take what a watcher typed, or wants."""
        now = trio.current_time()
        if isinstance(message, bytes):
            if console.state == "open" and console.watchers.types(watcher, now):
                for at in range(0, len(message), CHUNK_BYTES):
                    await console.to_type.send(message[at : at + CHUNK_BYTES])
            return
        match control(message).get("do"):
            case "write" | "take" as do:
                self._ask(console, watcher, take=do == "take")
            case "read":
                console.watchers.let_go(watcher)
                console.tell("")
            case "break" if console.state == "open" and console.watchers.types(watcher, now):
                await console.to_type.send(None)
            case _:
                pass

    async def _show(
        self, wire: Wire, console: _Open, watcher: Watcher, whole: trio.CancelScope
    ) -> None:
        """Send a watcher what the server wrote and how the console fares."""
        told, missed = -1, 0
        try:
            while True:
                bell = console.changed
                data, watcher.position, lost = console.ring.after(watcher.position, CHUNK_BYTES)
                missed += lost
                if data:
                    await wire.send(data)
                if told != console.version or lost:
                    told = console.version
                    await wire.send(console.status(watcher, missed, self._rows.node_id))
                if data or told != console.version:
                    continue
                if console.state == "ended":
                    break
                with trio.move_on_after(STATUS_S) as silence:
                    await bell.wait()
                if silence.cancelled_caught:
                    told = -1
        except (RemoteError, Unreachable):
            pass  # the watcher went away
        whole.cancel()

    async def _keep(self, server: str, console: _Open, secret: str) -> None:
        """Have one console open; whatever ends it is said to all who watch."""
        began = trio.current_time()
        try:
            login = self._credentials(secret)
            async with self._open_console(
                console.url, login, steal=console.steal, say=console.tell
            ) as device:
                log.info("console opened", server=console.name, bmc=console.url)
                await console.carry(device)
        except (DriverError, MeshError) as exc:
            console.text = str(exc)
        except Exception as exc:  # one console must not end the node
            log.error("console failed", server=console.name, error=repr(exc))
            console.text = "this node failed on the console; its log says why"
        finally:
            del self._consoles[server]
            console.gone.set()
            console.tell(state="ended")
            seconds = round(trio.current_time() - began, 1)
            log.info("console closed", server=console.name, error=console.text, s=seconds)

    async def _say(self, wire: Wire, text: str) -> None:
        try:
            await wire.send(text)
        except (RemoteError, Unreachable):
            pass  # the watcher went away


def _asked(body: Any) -> tuple[Asked, bool]:
    """Return what a member asks for in somebody's name; odd fields count as no."""
    asked = body if isinstance(body, dict) else {}
    yes = {name: asked.get(name) is True for name in ("write", "take", "steal", "may_write")}
    who, server = asked.get("who"), asked.get("server")
    return Asked(
        server=server if isinstance(server, str) else "",
        who=who[:WHO_CHARS_MAX] if isinstance(who, str) and who.isprintable() else "somebody",
        **yes,
    ), asked.get("forwarded") is True


def consoles_of(node: Any) -> Consoles:
    """Return the service of a ``node.main.Node``."""
    oob = node.config.interfaces.oob
    local = interface_address(oob) if oob else None

    def open_it(
        url: str, login: Mapping[str, object], /, *, steal: bool, say: Callable[[str], None]
    ) -> AbstractAsyncContextManager[Console]:
        return open_console(url, login, steal=steal, say=say, local_address=local)

    return Consoles(
        node.work.rows, open_it, node.credentials, node.peers, node.alive, node.work.holders
    )
