"""The handshake of members over a carrier, and the session that comes of it.

It knows no frames; what is proved and refused is mesh/proto/handshake.py's. Rule: every
handshake ends within HANDSHAKE_S.
"""

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import trio

from mesh.errors import RemoteError, StoreFull
from mesh.link.carrier import Carrier, CarrierLost
from mesh.proto.handshake import (
    Acceptor,
    Dialler,
    Done,
    Effect,
    Failed,
    Learned,
    OwnKeys,
    Send,
)
from mesh.proto.handshake import MemberLookup as HandshakeLookup
from mesh.proto.record import Opener, Sealer, SessionKeys, handshake_record, session_keys
from mesh.proto.trust import KeyRecord

HANDSHAKE_S: Final = 10.0

T = TypeVar("T")


class HandshakeFailed(RemoteError):
    """The peer could not show that it is the member it should be; the connection is dropped."""


LinkIdentity = OwnKeys


class MemberLookup(HandshakeLookup, Protocol):
    """What a link asks the register (mesh.proto.register.Register)."""

    def members(self) -> Any:
        """Return every identity that ever was a member."""
        ...

    def hubs(self) -> Any:
        """Return the active hubs, each with ``node_id`` and ``urls``."""
        ...


class RegisterPort(Protocol):
    """What links ask of mesh.register_store.RegisterStore."""

    @property
    def register(self) -> MemberLookup:
        """The register as it is now."""
        ...

    @property
    def version(self) -> int:
        """Grows with every change."""
        ...

    def merge(self, record: bytes, /) -> bool:
        """Take a signed record from anywhere."""
        ...

    async def wait_past(self, version: int, /) -> int:
        """Return once the version is above the given one."""
        ...


@dataclass(slots=True)
class Session:
    """An authenticated connection to a member."""

    peer: str
    carrier: Carrier
    sealer: Sealer
    opener: Opener
    dialled: bool
    key: KeyRecord
    key_record: bytes
    handshake_hash: bytes
    udp_keys: SessionKeys


async def dial_session(
    carrier: Carrier,
    identity: LinkIdentity,
    members: MemberLookup,
    peer: str,
    learn: Callable[[bytes], object] = lambda _: None,
) -> Session:
    """Authenticate to a node and it to us. Raises HandshakeFailed, CarrierLost.

    ``learn`` gets a key record that is newer than the register's, also when the rest fails.
    """
    dialler = Dialler(peer, identity, members, os.urandom)
    return await _drive(dialler, carrier, dialler.start(), learn)


async def accept_session(
    carrier: Carrier,
    identity: LinkIdentity,
    members: MemberLookup,
    first: tuple[int, memoryview] | None = None,
) -> Session:
    """Let a member authenticate. Raises HandshakeFailed, CarrierLost."""
    acceptor = Acceptor(identity, members, os.urandom)
    kind, body = first or await carrier.receive()
    return await _drive(acceptor, carrier, acceptor.on_message(kind, bytes(body)))


async def _drive(
    side: Dialler | Acceptor,
    carrier: Carrier,
    effects: list[Effect],
    learn: Callable[[bytes], object] = lambda _: None,
) -> Session:
    """Carry one side of a handshake to its end."""
    while True:
        for effect in effects:
            match effect:
                case Send(kind, message):
                    await carrier.send([handshake_record(kind, message)])
                case Learned(record):
                    learn(record)
                case Done():
                    return _session(effect, carrier)
                case Failed(reason):
                    raise HandshakeFailed(reason)
        kind, body = await carrier.receive()
        effects = side.on_message(kind, bytes(body))


def learn(register: RegisterPort, key_record: bytes) -> None:
    """Merge a peer's key record."""
    try:
        register.merge(key_record)
    except StoreFull:
        pass  # it holds for this process, and comes again with the next link


async def within(awaitable: Awaitable[T], seconds: float = HANDSHAKE_S) -> T:
    """Await a handshake; raise CarrierLost when it takes too long."""
    try:
        with trio.fail_after(seconds):
            return await awaitable
    except trio.TooSlowError as exc:
        raise CarrierLost("the handshake takes too long") from exc


def _session(done: Done, carrier: Carrier) -> Session:
    keys = session_keys(done.chaining_key, "tcp")
    ours, theirs = (
        (keys.initiator, keys.responder) if done.dialled else (keys.responder, keys.initiator)
    )
    return Session(
        done.peer,
        carrier,
        Sealer(ours, trio.current_time()),
        Opener(theirs),
        done.dialled,
        done.key,
        done.key_record,
        done.handshake_hash,
        session_keys(done.chaining_key, "udp"),
    )
