"""Links over a third member: being the relay, being an end of it, and the ways for the dialler.

It knows no frame and no key. The dialler opens a stream ``relay`` to the relay, which opens one
to the other end and passes messages on, both ways, each as soon as the budgets allow
(mesh/proto/relay.py); at both ends the stream is a carrier like any other, with Noise inside.
Rule: a relay is asked only over a link of its own, and only hubs and nodes with the capability
are asked or believed to be one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import trio

from mesh.errors import CodecError, Refused, RemoteError, Unreachable
from mesh.link.carrier import Carrier, CarrierLost
from mesh.link.flow import MessageStream
from mesh.link.link import Link
from mesh.link.session import RegisterPort
from mesh.link.ways import Way
from mesh.proto.record import RECORD_BYTES_MAX, RecordBuffer
from mesh.proto.relay import (
    STREAM,
    Ask,
    RelayCore,
    Splice,
    announce,
    ask,
    may_relay,
    read,
)
from mesh.proto.rendezvous import ranked

PREFIX: Final = "relay "
"""The path of a relayed link is this and the relay's node id."""
RELAYS_MAX: Final = 4
"""Relays that are asked for one link."""
OPEN_S: Final = 10.0
BUFFER_BYTES: Final = 2 * RECORD_BYTES_MAX


class RelayLinks(Protocol):
    """What a relay and its ends need of mesh.link.peers.Peers."""

    def live(self, node_id: str) -> Link | None:
        """Return the main link to a peer if there is one now."""
        ...

    def links(self) -> Sequence[Link]:
        """Return the live main links."""
        ...

    async def accept(self, carrier: Carrier) -> None:
        """Serve a connection that a peer made, to its end."""
        ...

    async def connect(self, node_id: str, *, relayed: bool = True) -> Link:
        """Make the main link to a peer; raise Unreachable or RemoteError."""
        ...


class RelayCarrier:
    """A stream through a relay, as a carrier."""

    def __init__(self, stream: MessageStream, relay: str) -> None:
        self.name = f"{PREFIX}{relay}"
        self.address = self.name
        self._stream = stream
        self._buffer = RecordBuffer(BUFFER_BYTES)
        self._rest = memoryview(b"")

    async def send(self, records: Iterable[bytes | memoryview]) -> None:
        """Send whole records in order."""
        try:
            for record in records:
                await self._stream.send(bytes(record))
        except (RemoteError, Unreachable) as exc:
            raise CarrierLost(f"the relay broke off: {exc}") from exc

    async def receive(self) -> tuple[int, memoryview]:
        """Return kind and body of the next record."""
        while (record := self._buffer.next()) is None:
            if not self._rest:
                try:
                    self._rest = memoryview(await self._stream.receive())
                except (RemoteError, Unreachable, trio.EndOfChannel) as exc:
                    raise CarrierLost(f"the relay broke off: {exc or 'it ended'}") from exc
            room = self._buffer.writable()
            part, self._rest = self._rest[: len(room)], self._rest[len(room) :]
            room[: len(part)] = part
            self._buffer.wrote(len(part))
        return record

    def datagram_address(self, _port: int) -> tuple[str, int] | None:
        """Return where the other end takes datagrams: nobody knows from here."""
        return None

    async def aclose(self) -> None:
        """Close at once."""
        self._stream.drop()
        await trio.lowlevel.checkpoint()


def is_relayed(link: Link) -> bool:
    """Tell whether a link goes over a third member."""
    return link.path.startswith(PREFIX)


def relay_of(link: Link) -> str:
    """Return the node id of the member over which a relayed link goes."""
    assert is_relayed(link)
    return link.path.removeprefix(PREFIX)


class Relay:
    """All that a program does about relaying."""

    def __init__(
        self,
        node_id: str,
        register: RegisterPort,
        links: RelayLinks,
        counters: Counter[str],
        *,
        bulk: bool,
    ) -> None:
        self._node_id = node_id
        self._register = register
        self._links = links
        self._counters = counters
        self._core = RelayCore(bulk=bulk)

    # -- the dialler's ways ------------------------------------------------------------------

    def ways(self, node_id: str, *, bulk: bool) -> list[Way]:
        """Return the ways to a peer over others, best first: those that we have a link with."""
        linked = [link.peer for link in self._links.links() if not is_relayed(link)]
        relays = [peer for peer in linked if peer != node_id and self._may_relay(peer)]
        hubs = ranked([hub.node_id for hub in self._register.register.hubs()], node_id)
        others = [hub for hub in hubs if hub not in (*relays, node_id, self._node_id)]
        if node_id in hubs:
            others = []  # whoever cannot reach one hub gains nothing by dialling another for it
        return [self._way(relay, node_id, bulk) for relay in [*relays, *others][:RELAYS_MAX]]

    def _way(self, relay: str, node_id: str, bulk: bool) -> Way:
        async def dial() -> Carrier:
            try:
                with trio.fail_after(OPEN_S):
                    link = self._links.live(relay)
                    if link is None:
                        link = await self._links.connect(relay, relayed=False)
                    return await _open(link, ask(node_id, bulk=bulk))
            except trio.TooSlowError as exc:
                raise Unreachable(f"the relay {relay} does not answer") from exc

        return dial

    def _may_relay(self, node_id: str) -> bool:
        member = self._register.register.member(node_id)
        return member is not None and may_relay(member.roles, member.capabilities)

    # -- the stream's handler ----------------------------------------------------------------

    async def serve(self, peer: str, body: Any, stream: MessageStream) -> None:
        """Be the relay, or the end that a relay leads to. Raises Refused with a sentence."""
        try:
            wanted = read(body)
        except CodecError as exc:
            raise Refused(str(exc)) from exc
        if isinstance(wanted, Ask):
            await self._splice(peer, wanted, stream)
            return
        if not self._may_relay(peer):
            raise Refused(f"{peer} is no relay")
        self._counters["relayed_in"] += 1
        await stream.send(b"")  # whoever dials learns that somebody is there
        await self._links.accept(RelayCarrier(stream, peer))

    async def _splice(self, source: str, wanted: Ask, stream: MessageStream) -> None:
        if not self._may_relay(self._node_id):
            raise Refused("this node is no relay")
        splice = self._core.open(
            source, wanted, active=self._register.register.active, linked=self._own_link
        )
        if isinstance(splice, str):
            self._counters["relays_refused"] += 1
            raise Refused(splice)
        self._counters["relays_opened"] += 1
        try:
            link = self._links.live(wanted.to)
            if link is None:
                raise Refused(f"{wanted.to} has no link with this relay")
            async with link.stream(STREAM, announce(source)) as other:
                async with trio.open_nursery() as nursery:
                    scope = nursery.cancel_scope
                    nursery.start_soon(self._pump, splice, stream, other, scope)
                    nursery.start_soon(self._pump, splice, other, stream, scope)
        finally:
            self._core.close(splice)

    async def _pump(
        self,
        splice: Splice,
        source: MessageStream,
        sink: MessageStream,
        scope: trio.CancelScope,
    ) -> None:
        """Pass messages on until either stream ends; then the splice is over."""
        try:
            async for message in source:
                wait_s = self._core.carry(splice, len(message), trio.current_time())
                if wait_s:
                    self._counters["relay_waits"] += 1
                    await trio.sleep(wait_s)
                await sink.send(message)
                self._counters["relayed_bytes"] += len(message)
        except (RemoteError, Unreachable):
            pass
        scope.cancel()

    def _own_link(self, node_id: str) -> bool:
        link = self._links.live(node_id)
        return link is not None and not is_relayed(link)


async def _open(link: Link, body: dict[str, Any]) -> RelayCarrier:
    """Open the stream and wait for the other end's first message."""
    stream = await link.open_stream(STREAM, body)
    try:
        await stream.receive()
    except trio.EndOfChannel as exc:
        stream.drop()
        raise Unreachable(f"the relay {link.peer} ended the stream") from exc
    except BaseException:
        stream.drop()
        raise
    return RelayCarrier(stream, link.peer)
