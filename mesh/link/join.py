"""Carrier of the JOIN: Noise XX inside the hub's WebSocket, then one request and one reply.

It knows no token and no trust: the bytes come from and go to the ports of mesh/proto/join.py.
Order: XX message 1 (empty), message 2 with the hub's payload, the client's check of it, message
3 (empty), then, as the first transport records, the request and the reply. Rule: the client
says nothing about itself before its check of the hub has passed; whatever goes wrong ends this
connection alone. Every exchange ends within JOIN_S.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.host.log import get_log
from mesh.link.carrier import Carrier
from mesh.proto.join import JoinClientPort, JoinResult, JoinServerPort
from mesh.proto.noise import Handshake
from mesh.proto.record import XX, Opener, Sealer, handshake_record, session_keys

JOIN_S: Final = 30.0

_LOG = get_log("join")


@dataclass(frozen=True, slots=True, repr=False)
class JoinService:
    """A hub's side of joins: its decisions and the X25519 key of its identity, as it is now."""

    port: JoinServerPort
    static_private: Callable[[], bytes]


async def request_join(
    carrier: Carrier, client: JoinClientPort, static_private: bytes
) -> JoinResult:
    """Join over an open carrier, with the identity's X25519 key; the carrier is closed.

    Raises Refused (the hub's sentence, or ours about the hub) or Unreachable.
    """
    try:
        with trio.fail_after(JOIN_S):
            reply = await _request_join(carrier, client, static_private)
    except (trio.TooSlowError, RemoteError) as exc:
        why = str(exc) or "it takes too long"
        raise Unreachable(f"the hub at {carrier.address} breaks the join off: {why}") from exc
    finally:
        with trio.CancelScope(shield=True):
            await carrier.aclose()
    return client.finish(reply)


async def _request_join(
    carrier: Carrier, client: JoinClientPort, static_private: bytes
) -> bytes:
    noise = _handshake(static_private, initiator=True)
    await carrier.send([handshake_record(XX, noise.write())])
    client.accept_hub(noise.read(await _expect(carrier)), noise.remote_static)
    await carrier.send([handshake_record(XX, noise.write())])
    keys = session_keys(noise.chaining_key, "tcp")
    sealer = Sealer(keys.initiator, trio.current_time())
    await carrier.send(sealer.seal(client.request(noise.hash), trio.current_time()))
    return await _message(carrier, Opener(keys.responder))


async def answer_join(
    carrier: Carrier, service: JoinService, first: tuple[int, memoryview]
) -> None:
    """Serve one join; ``first`` is the received XX message 1. Nothing of the peer's raises."""
    try:
        with trio.fail_after(JOIN_S):
            await _answer_join(carrier, service, bytes(first[1]))
    except (RemoteError, trio.TooSlowError) as exc:
        _LOG.warning("join broken off", address=carrier.address, error=str(exc) or "too slow")


async def _answer_join(carrier: Carrier, service: JoinService, message: bytes) -> None:
    noise = _handshake(service.static_private(), initiator=False)
    noise.read(message)
    await carrier.send([handshake_record(XX, noise.write(service.port.server_payload()))])
    noise.read(await _expect(carrier))
    keys = session_keys(noise.chaining_key, "tcp")
    request = await _message(carrier, Opener(keys.initiator))
    reply = await service.port.answer(request, noise.hash, noise.remote_static)
    sealer = Sealer(keys.responder, trio.current_time())
    await carrier.send(sealer.seal(reply, trio.current_time()))
    await _until_closed(carrier)


def _handshake(static_private: bytes, *, initiator: bool) -> Handshake:
    return Handshake(
        "XX",
        initiator=initiator,
        static_private=static_private,
        ephemeral_private=os.urandom(32),
    )


async def _expect(carrier: Carrier) -> bytes:
    kind, body = await carrier.receive()
    if kind != XX:
        raise RemoteError("not an XX message")
    return bytes(body)


async def _message(carrier: Carrier, opener: Opener) -> bytes:
    while True:
        kind, body = await carrier.receive()
        message = opener.open(kind, body)
        if message is not None:
            return bytes(message)


async def _until_closed(carrier: Carrier) -> None:
    """Leave the closing to the client, so that the reply is not lost on the way."""
    try:
        await carrier.receive()
    except RemoteError:
        pass
