"""Live data: events for open pages, who is connected now, job logs by rpc.

It knows no HTTP. Rules: a listener is a number into one ring, never a queue, so a slow one
costs nothing and misses nothing that the ring still holds; live data is never stored, except
when each node was last in contact.
"""

import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import trio

from hub.errors import Unavailable
from hub.proto.events import PING, EventRing
from hub.store import RUNNING, ReportStore, end_if_broken
from mesh.errors import RemoteRefused, Unreachable
from mesh.host.clock import Clock
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.link.level import Level

PING_S: Final = 15.0
LISTENERS_MAX: Final = 256
TOUCH_S: Final = 10.0
"""How often the last contact of connected nodes is written down."""
LOG_RPC_S: Final = 10.0
LOG_POLL_S: Final = 0.5
LOG_LINES_MAX: Final = 500
"""Most lines of one answer that are passed on."""
LOG_READERS_MAX: Final = 64
LOG_RETRY_S: Final = 5.0
"""Until the node that runs a job is asked again after it was out of reach."""

log = get_log("live")


class Connected(Protocol):
    """What the hub needs of ``mesh.link``: who is connected, and calls to them."""

    @property
    def version(self) -> int: ...  # noqa: D102

    def connected(self) -> Mapping[str, Any]: ...  # noqa: D102

    async def wait_past(self, version: int) -> int: ...  # noqa: D102

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any: ...  # noqa: D102


class Others(Protocol):
    """What the hub knows of other hubs' links."""

    @property
    def level(self) -> Level: ...  # noqa: D102

    def elsewhere(self) -> set[str]: ...  # noqa: D102


class EventBus:
    """Publishes events to any number of listeners."""

    def __init__(self, run: str) -> None:
        self.ring = EventRing(run)
        self.listeners = 0
        self._changed = trio.Event()

    def publish(self, kind: str, **data: Any) -> None:
        """Tell every listener that something of this kind changed."""
        self.ring.add(kind, data)
        self._changed.set()
        self._changed = trio.Event()

    def check_room(self) -> None:
        """Raise Unavailable when there are too many listeners."""
        if self.listeners >= LISTENERS_MAX:
            raise Unavailable(f"{LISTENERS_MAX} pages listen already; close some")

    async def stream(
        self, last_event_id: str | None, admitted: Callable[[], bool] = lambda: True
    ) -> AsyncGenerator[bytes]:
        """Yield the text of events as they come, and a comment after silence.

        Ends when the listener is not ``admitted`` any more.
        """
        self.listeners += 1
        try:
            number = self.ring.resume(last_event_id)
            if number is None:
                number = self.ring.newest
                yield PING if last_event_id is None else self.ring.reset()
            while admitted():
                waiting = self._changed
                missed = self.ring.after(number)
                if missed is None:
                    yield self.ring.reset()
                    number = self.ring.newest
                elif missed:
                    yield b"".join(self.ring.text(event) for event in missed)
                    number = missed[-1].number
                elif await _silent(waiting):
                    yield PING
        finally:
            self.listeners -= 1


async def _silent(changed: trio.Event) -> bool:
    """Wait for a change; True when none came for PING_S."""
    with trio.move_on_after(PING_S) as patience:
        await changed.wait()
    return patience.cancelled_caught


class Live:
    """Who is in contact now."""

    def __init__(
        self,
        peers: Connected,
        store: ReportStore,
        bus: EventBus,
        clock: Clock,
        others: Others | None = None,
    ) -> None:
        self._peers = peers
        self._others = others
        self._store = store
        self._bus = bus
        self._clock = clock
        self.log_readers = 0

    @property
    def peers(self) -> Connected:
        """Who is connected, and calls to them."""
        return self._peers

    def links(self) -> dict[str, tuple[int | None, str | None]]:
        """Return the connected nodes: since when they are (Unix ms), and from where."""
        return {
            node: (getattr(info, "since_ms", None), getattr(info, "address", None))
            for node, info in self._peers.connected().items()
        }

    def reached(self) -> set[str]:
        """Return the members that this hub or another one has a link to."""
        elsewhere = self._others.elsewhere() if self._others else set[str]()
        return elsewhere.union(self._peers.connected())

    async def run(self) -> None:
        """Write contacts down and publish when somebody comes or goes."""
        before: set[str] = set()
        while True:
            seen = (self._peers.version, self._others.level.version if self._others else 0)
            now = self.reached()
            try:
                self._store.touch(dict.fromkeys(now | before, self._clock.now_ms()))
            except sqlite3.Error as exc:
                end_if_broken(exc)
                log.warning("contacts not kept", error=exc)
            for node in sorted(now ^ before):
                self._bus.publish("node", id=node, reachable=node in now)
            before = now
            with trio.move_on_after(TOUCH_S):
                await self._wait_past(*seen)

    async def _wait_past(self, links: int, elsewhere: int) -> None:
        if self._others is None:
            await self._peers.wait_past(links)
            return
        await first_of(
            partial(self._peers.wait_past, links),
            partial(self._others.level.wait_past, elsewhere),
        )

    async def job_log(
        self, job: str, after: int, follow: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of a job's log from whichever node runs it.

        Ends with the job when it follows. Raises Unavailable when that node cannot be asked.
        """
        while True:
            documents = self._store.find("job", job)
            document = documents[0] if documents else {"runner": None, "state": "unknown"}
            runner, running = document["runner"], document["state"] in RUNNING
            lines: list[dict[str, Any]] = []
            if runner is not None:
                lines, after = await self._lines(runner, job, after)
            elif not (follow and running):
                raise Unavailable(f"no node has taken up job {job} yet, so there is no log")
            for line in lines:
                yield line
            if not lines and not (follow and running):
                return
            if not lines:
                await trio.sleep(LOG_POLL_S)

    async def log_events(self, job: str, after: int) -> AsyncGenerator[bytes]:
        """Yield a job's log as server-sent events, numbers as ids, until the job is over.

        While nobody can be asked it says so (``trouble``) and tries again.
        """
        if self.log_readers >= LOG_READERS_MAX:
            text = f"{LOG_READERS_MAX} pages read job logs already: close some"
            yield _event("trouble", {"text": text})
            return  # the browser comes back by itself
        self.log_readers += 1
        try:
            while True:
                try:
                    async for line in self.job_log(job, after, follow=True):
                        after = line["seq"]
                        yield line_event(line)
                    break
                except Unavailable as exc:
                    yield _event("trouble", {"text": str(exc)})
                    documents = self._store.find("job", job)
                    if not documents or documents[0]["state"] not in RUNNING:
                        break
                await trio.sleep(LOG_RETRY_S)
            yield _event("end", {})
        finally:
            self.log_readers -= 1

    async def _lines(
        self, runner: str, job: str, after: int
    ) -> tuple[list[dict[str, Any]], int]:
        body = {"job": job, "after": after}
        try:
            answer = await self._peers.rpc(runner, "job.logs", body, LOG_RPC_S)
        except Unreachable as exc:
            raise Unavailable(f"node {runner}, which runs the job, is out of reach") from exc
        except RemoteRefused as exc:
            raise Unavailable(f"node {runner} answers: {exc}") from exc
        return checked_lines(answer, after)


def line_event(line: Mapping[str, Any]) -> bytes:
    """Return a line of a log as a server-sent event."""
    return f"id: {line['seq']}\n".encode() + _event("line", line)


def _event(kind: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data, sort_keys=True)}\n\n".encode()


def checked_lines(answer: Any, after: int) -> tuple[list[dict[str, Any]], int]:
    """Return the lines in a node's answer and the number to go on from, whatever it is.

    A line comes as [number, Unix ms, text], numbers growing; anything else is left out.
    """
    found = answer.get("lines") if isinstance(answer, dict) else None
    lines: list[dict[str, Any]] = []
    for line in found[:LOG_LINES_MAX] if isinstance(found, list) else []:
        match line:
            case [int(number), int(at_ms), str(text)] if number > after:
                lines.append({"seq": number, "at_ms": at_ms, "text": text})
                after = number
            case _:
                pass
    return lines, after
