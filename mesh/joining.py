"""Joining with a token, whatever one joins as: the token's hubs are asked one after another.

It keeps nothing: what becomes of the answer is the role's own (``node/joining.py``,
``hub/joining.py``). Rule: a hub that cannot be reached is no reason to give up before the last
one; a hub that says no is. Whoever refuses connections is not there; one that does not answer,
or breaks off, may have much to do (a whole rack joins at once) and is asked again.
"""

import random
from typing import Final

import trio

from mesh.errors import Unreachable
from mesh.identity import Identity
from mesh.link.ws import join_over_websocket
from mesh.proto.join import JoinClient, JoinResult
from mesh.proto.token import Token

PATIENCE_S: Final = 45.0
"""How long hubs that do not answer are asked again."""
PAUSE_S: Final = 3.0
"""The longest pause before the next round; full jitter."""
JITTER: Final = random.SystemRandom()


async def join_by_token(token: Token, identity: Identity, name: str) -> JoinResult:
    """Return what a hub of the token granted; raises Refused or Unreachable."""
    began = trio.current_time()
    while True:
        unreachable: list[Unreachable] = []
        for url in token.urls:
            client = JoinClient(token, identity, identity.key_record, name)
            try:
                return await join_over_websocket(url, client, identity.kem_private)
            except Unreachable as exc:
                unreachable.append(exc)
        gone = all(map(_refused, unreachable))
        if gone or trio.current_time() - began > PATIENCE_S:
            break
        await trio.sleep(JITTER.random() * PAUSE_S)
    raise Unreachable(
        f"no hub of the token could be reached ({'; '.join(map(str, unreachable))}); is it up,"
        " and is its port open from here?"
    )


def _refused(exc: BaseException) -> bool:
    """Tell whether a dial failed because nobody listens there."""
    why: BaseException | None = exc
    while why is not None and not isinstance(why, ConnectionRefusedError):
        if isinstance(why, BaseExceptionGroup):
            return all(map(_refused, why.exceptions))
        why = why.__cause__
    return why is not None
