"""Noise IK between two members over a carrier: who is it, and with which keys do we go on.

It knows no frames. Rules: message 1 carries the dialler's signed key record, message 2 the
acceptor's; the static key of the handshake must be the one in the record and not one that the
register knows as replaced, the record's identity must be an active member, and the dialler must
find the node it dialled. First byte 2 (XX) between members is kept for stale keys; until then
it serves the JOIN alone (mesh/link/join.py). Every handshake ends within HANDSHAKE_S.
"""

import os
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import trio

from mesh.errors import CodecError, RemoteError, Unreachable
from mesh.link.carrier import Carrier, CarrierLost
from mesh.proto.ids import node_id
from mesh.proto.noise import Handshake
from mesh.proto.record import IK, Opener, Sealer, handshake_record, session_keys
from mesh.proto.trust import KeyRecord, open_key_record

HANDSHAKE_S: Final = 10.0
KEY_RECORD_BYTES_MAX: Final = 4096

T = TypeVar("T")


class HandshakeFailed(RemoteError):
    """The peer could not show that it is the member it should be; the connection is dropped."""


class LinkIdentity(Protocol):
    """What a link needs of mesh.identity.Identity."""

    @property
    def node_id(self) -> str:
        """Our node id."""
        ...

    @property
    def kem_private(self) -> bytes:
        """Our X25519 key: the static key of the handshakes."""
        ...

    @property
    def key_record(self) -> bytes:
        """Our signed key record."""
        ...


class MemberLookup(Protocol):
    """What a link asks the register (mesh.proto.register.Register)."""

    def active(self, node_id: str, /) -> bool:
        """Tell whether a node is a member now."""
        ...

    def member(self, node_id: str, /) -> Any:
        """Return what is known of a node, with ``kem_public`` and ``kem_epoch``, or None."""
        ...

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
    key_record: bytes
    handshake_hash: bytes


def check_key_record(record: bytes) -> tuple[str, KeyRecord]:
    """Return node id and key of a signed key record; raise HandshakeFailed."""
    if len(record) > KEY_RECORD_BYTES_MAX:
        raise HandshakeFailed("the key record is too long")
    try:
        key = open_key_record(record)
    except CodecError as exc:
        raise HandshakeFailed(f"the key record does not hold: {exc}") from exc
    return node_id(key.identity_public), key


async def dial_session(
    carrier: Carrier, identity: LinkIdentity, members: MemberLookup, peer: str
) -> Session:
    """Authenticate to a node and it to us. Raises HandshakeFailed, CarrierLost, Unreachable."""
    member = members.member(peer)
    if member is None or member.kem_public is None or not members.active(peer):
        raise Unreachable(f"{peer} is no active member whose key is known here")
    noise = Handshake(
        "IK",
        initiator=True,
        static_private=identity.kem_private,
        ephemeral_private=os.urandom(32),
        remote_static=member.kem_public,
    )
    await carrier.send([handshake_record(IK, noise.write(identity.key_record))])
    kind, body = await carrier.receive()
    if kind != IK:
        raise HandshakeFailed("the answer is no IK message")
    record = noise.read(bytes(body))
    found, key = check_key_record(record)
    if found != peer or key.kem_public != noise.remote_static:
        raise HandshakeFailed("the answer is another node's")
    return _session(noise, carrier, peer, record, dialled=True)


async def accept_session(
    carrier: Carrier,
    identity: LinkIdentity,
    members: MemberLookup,
    first: tuple[int, memoryview] | None = None,
) -> Session:
    """Let a member authenticate. Raises HandshakeFailed, CarrierLost."""
    kind, body = first or await carrier.receive()
    if kind != IK:
        raise HandshakeFailed("the first record is no IK message")
    noise = Handshake(
        "IK",
        initiator=False,
        static_private=identity.kem_private,
        ephemeral_private=os.urandom(32),
    )
    record = noise.read(bytes(body))
    peer, key = check_key_record(record)
    if key.kem_public != noise.remote_static:
        raise HandshakeFailed("the key record names another key")
    if peer == identity.node_id:
        raise HandshakeFailed("we dialled ourselves")
    known = members.member(peer)
    if known is None or not members.active(peer):
        raise HandshakeFailed(f"{peer} is not an active member")
    if known.kem_public not in (None, key.kem_public) and key.kem_epoch <= known.kem_epoch:
        raise HandshakeFailed(f"{peer} shows a key that it has replaced")
    await carrier.send([handshake_record(IK, noise.write(identity.key_record))])
    return _session(noise, carrier, peer, record, dialled=False)


async def within(awaitable: Awaitable[T], seconds: float = HANDSHAKE_S) -> T:
    """Await a handshake; raise CarrierLost when it takes too long."""
    try:
        with trio.fail_after(seconds):
            return await awaitable
    except trio.TooSlowError as exc:
        raise CarrierLost("the handshake takes too long") from exc


def _session(
    noise: Handshake, carrier: Carrier, peer: str, record: bytes, *, dialled: bool
) -> Session:
    keys = session_keys(noise.chaining_key, "tcp")
    ours, theirs = (
        (keys.initiator, keys.responder) if dialled else (keys.responder, keys.initiator)
    )
    sealer, opener = Sealer(ours, trio.current_time()), Opener(theirs)
    return Session(peer, carrier, sealer, opener, dialled, record, noise.hash)
