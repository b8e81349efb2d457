"""Getting a link to a peer: all its ways in parallel, the first session wins.

It knows no frame and no address; mesh/proto/race.py says when which way starts. Rules: one main
link to a peer is dialled at a time; a session that comes second is closed before its HELLO, so
that the peer never counts it; whatever is awaited here is bounded.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.link.carrier import Carrier
from mesh.link.flow import LinkClosed
from mesh.link.link import Link
from mesh.link.session import (
    LinkIdentity,
    RegisterPort,
    Session,
    dial_session,
    learn,
    within,
)
from mesh.link.ways import KnownAddresses, Way, ways
from mesh.proto.frames import LinkKind
from mesh.proto.race import Begin, Lost, Race

DIALS_MAX: Final = 64
"""Connections being made at once, to all peers together."""
CROSSING_WAIT_S: Final = 1.0
"""When the peer closed the link that we dialled, its own may be just arriving."""


class MainLinks(Protocol):
    """The main links, as mesh.link.peers.Peers has them."""

    def live(self, node_id: str) -> Link | None:
        """Return the main link to a peer if there is one now."""
        ...

    async def wait_live(self, node_id: str) -> Link:
        """Return the main link to a peer once there is one."""
        ...

    async def start_link(self, session: Session, kind: LinkKind) -> Link:
        """Make a link of a session and run it; returns once it is admitted or over."""
        ...


class RelayWays(Protocol):
    """The ways to a peer over others (mesh.link.relay.Relay.ways)."""

    def __call__(self, node_id: str, *, bulk: bool) -> Sequence[Way]:
        """Return them, best first."""
        ...


class Dialler:
    """Makes links to peers."""

    def __init__(
        self,
        identity: LinkIdentity,
        register: RegisterPort,
        addresses: Callable[[], KnownAddresses],
        links: MainLinks,
        relay_ways: RelayWays,
    ) -> None:
        self._identity = identity
        self._register = register
        self._addresses = addresses
        self._links = links
        self._relay_ways = relay_ways
        self._slots = trio.CapacityLimiter(DIALS_MAX)
        self._dialling: dict[str, trio.Lock] = {}

    def knows(self, node_id: str) -> bool:
        """Tell whether there is any way to a peer, a hub's URLs aside."""
        return node_id in self._addresses() or bool(self._relay_ways(node_id, bulk=False))

    async def reach(self, node_id: str, timeout_s: float) -> Link:
        """Return the main link to a peer, dialling when there is none; raise Unreachable."""
        link = self._links.live(node_id)
        if link is not None:
            return link
        if node_id == self._identity.node_id:
            raise Unreachable(f"{node_id} is this node itself")
        with trio.move_on_after(timeout_s):
            try:
                return await self.connect(node_id)
            except (RemoteError, Unreachable) as exc:
                failure = exc
            if isinstance(failure, LinkClosed):
                with trio.move_on_after(CROSSING_WAIT_S):
                    return await self._links.wait_live(node_id)
            raise Unreachable(f"no link to {node_id}: {failure}") from failure
        raise Unreachable(f"no link to {node_id} within {timeout_s:g} s")

    async def connect(self, node_id: str, *, relayed: bool = True) -> Link:
        """Make the main link to a peer, one dial at a time; ``relayed``: or over another."""
        lock = self._dialling.setdefault(node_id, trio.Lock())
        try:
            async with lock:
                link = self._links.live(node_id)
                if link is None:
                    await self.open(node_id, "main", relayed=relayed)
                    link = self._links.live(node_id)
                if link is None:
                    raise LinkClosed(f"{node_id} closed the link at once")
                return link
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._dialling.pop(node_id, None)

    async def open(self, node_id: str, kind: LinkKind, *, relayed: bool = True) -> Link:
        """Dial a peer and run the link; raise Unreachable or LinkClosed."""
        late = self._relay_ways(node_id, bulk=kind == "bulk") if relayed else ()
        return await self._start(await self._session(node_id, late), kind)

    async def open_over(self, node_id: str, carrier: Carrier) -> Link:
        """Make a main link over a carrier that leads to a peer; errors as those of ``open``."""

        async def way() -> Carrier:
            return carrier

        return await self._start(await self._dial(node_id, way), "main")

    async def _start(self, session: Session, kind: LinkKind) -> Link:
        link = await self._links.start_link(session, kind)
        if link.closed:
            raise LinkClosed(f"{session.peer} closed the link: {link.close_reason}")
        return link

    async def _session(self, node_id: str, late: Sequence[Way]) -> Session:
        """Return the first session that one of the peer's ways gives."""
        direct = ways(node_id, self._addresses(), self._register.register)
        if not direct and not late:
            raise Unreachable(f"{node_id}: no address is known")
        field = _Field([partial(self._dial, node_id, way) for way in (*direct, *late)])
        try:
            await field.run(Race(len(direct), len(late)))
            if not field.sessions:
                raise Unreachable(f"{node_id}: {'; '.join(field.reasons())}")
            return field.sessions.pop(0)
        finally:
            with trio.CancelScope(shield=True):
                for second in field.sessions:
                    await second.carrier.aclose()

    async def _dial(self, node_id: str, way: Way) -> Session:
        async with self._slots:
            carrier = await way()
            try:
                members = self._register.register
                return await within(
                    dial_session(
                        carrier,
                        self._identity,
                        members,
                        node_id,
                        partial(learn, self._register),
                    )
                )
            except BaseException:
                with trio.CancelScope(shield=True):
                    await carrier.aclose()
                raise


class _Field:
    """The ways of one race, and what became of them."""

    def __init__(self, dials: Sequence[Callable[[], Awaitable[Session]]]) -> None:
        self.sessions: list[Session] = []
        self._dials = dials
        self._failures: dict[int, str] = {}
        self._report, self._outcomes = trio.open_memory_channel[int](len(dials))

    def reasons(self) -> list[str]:
        """Say why each way failed, in the order of preference."""
        return [reason for _, reason in sorted(self._failures.items())]

    async def run(self, core: Race) -> None:
        """Run the race until there is a session or all have failed."""
        async with trio.open_nursery() as nursery:
            effects = core.start(trio.current_time())
            while not self.sessions and Lost() not in effects:
                for effect in effects:
                    if isinstance(effect, Begin):
                        nursery.start_soon(self._try, effect.way)
                until = math.inf if core.deadline is None else core.deadline
                with trio.move_on_at(until) as scope:
                    way = await self._outcomes.receive()
                    effects = core.on_failed(way, trio.current_time())
                if scope.cancelled_caught:
                    effects = core.on_timer(trio.current_time())
            nursery.cancel_scope.cancel()

    async def _try(self, way: int) -> None:
        try:
            self.sessions.append(await self._dials[way]())
        except (RemoteError, Unreachable) as exc:
            self._failures[way] = str(exc)
        self._report.send_nowait(way)
