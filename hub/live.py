"""Live data: events for open pages, who is connected now, job logs by rpc.

It knows no HTTP. Rules: a listener is a number into one ring, never a queue, so a slow one
costs nothing and misses nothing that the ring still holds; live data is never stored, except
when each node was last in contact.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final, Protocol

import trio

from hub.errors import Unavailable
from hub.proto.events import PING, EventRing
from hub.store import ReportStore
from mesh.errors import RemoteRefused, Unreachable
from mesh.host.clock import Clock

PING_S: Final = 15.0
LISTENERS_MAX: Final = 256
TOUCH_S: Final = 10.0
"""How often the last contact of connected nodes is written down."""
LOG_RPC_S: Final = 10.0
LOG_POLL_S: Final = 0.5
LOG_LINES_MAX: Final = 500
"""Most lines that one rpc asks for."""


class Connected(Protocol):
    """What the hub needs of ``mesh.link``: who is connected, and calls to them."""

    @property
    def version(self) -> int: ...  # noqa: D102

    def connected(self) -> Mapping[str, Any]: ...  # noqa: D102

    async def wait_past(self, version: int) -> int: ...  # noqa: D102

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any: ...  # noqa: D102


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

    async def stream(self, last_event_id: str | None) -> AsyncGenerator[bytes]:
        """Yield the text of events as they come, and a comment after silence."""
        self.listeners += 1
        try:
            async for piece in self._pieces(last_event_id):
                yield piece
        finally:
            self.listeners -= 1

    async def _pieces(self, last_event_id: str | None) -> AsyncGenerator[bytes]:
        number = self.ring.resume(last_event_id)
        if number is None:
            number = self.ring.newest
            yield PING if last_event_id is None else self.ring.reset()
        while True:
            waiting = self._changed
            missed = self.ring.after(number)
            if missed is None:
                yield self.ring.reset()
            elif missed:
                yield b"".join(self.ring.text(event) for event in missed)
            else:
                with trio.move_on_after(PING_S) as patience:
                    await waiting.wait()
                if patience.cancelled_caught:
                    yield PING
                continue
            number = missed[-1].number if missed else self.ring.newest


class Live:
    """Who is in contact now."""

    def __init__(
        self, peers: Connected, store: ReportStore, bus: EventBus, clock: Clock
    ) -> None:
        self._peers = peers
        self._store = store
        self._bus = bus
        self._clock = clock

    def reachable(self) -> dict[str, int | None]:
        """Return the connected nodes with the moment since when they are (Unix ms)."""
        return {
            node: getattr(info, "since_ms", None)
            for node, info in self._peers.connected().items()
        }

    async def run(self) -> None:
        """Write contacts down and publish when somebody comes or goes."""
        before: set[str] = set()
        while True:
            version = self._peers.version
            now = set(self._peers.connected())
            self._store.touch(dict.fromkeys(now | before, self._clock.now_ms()))
            for node in sorted(now ^ before):
                self._bus.publish("node", id=node, reachable=node in now)
            before = now
            with trio.move_on_after(TOUCH_S):
                await self._peers.wait_past(version)

    async def job_log(
        self, runner: str | None, job: str, after: int, follow: bool
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the lines of a job's log from the node that runs it.

        Raises Unavailable before the first line when that node cannot be asked.
        """
        if runner is None:
            raise Unavailable(f"job {job} has no runner yet, so there is no log")
        while True:
            answer = await self._lines(runner, job, after)
            for line in answer["lines"]:
                yield line
            after = answer["next"]
            if answer["ended"] and not answer["lines"]:
                return
            if not answer["lines"]:
                if not follow:
                    return
                await trio.sleep(LOG_POLL_S)

    async def _lines(self, runner: str, job: str, after: int) -> dict[str, Any]:
        body = {"job": job, "after": after, "limit": LOG_LINES_MAX}
        try:
            answer = await self._peers.rpc(runner, "job.logs", body, LOG_RPC_S)
        except Unreachable as exc:
            raise Unavailable(f"node {runner}, which runs the job, is out of reach") from exc
        except RemoteRefused as exc:
            raise Unavailable(f"node {runner} answers: {exc}") from exc
        return checked_lines(answer, after)


def checked_lines(answer: Any, after: int) -> dict[str, Any]:
    """Return {lines, next, ended} whatever a node answered."""
    found = answer if isinstance(answer, dict) else {}
    lines = [line for line in _list(found.get("lines")) if isinstance(line, dict)]
    following = found.get("next")
    if not isinstance(following, int) or isinstance(following, bool) or following < after:
        following = after + len(lines)
    return {
        "lines": lines[:LOG_LINES_MAX],
        "next": following,
        "ended": found.get("ended") is not False,
    }


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
