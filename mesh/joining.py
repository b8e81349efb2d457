"""Joining with a token, whatever one joins as: the token's hubs are asked one after another.

It keeps nothing: what becomes of the answer is the role's own (``node/joining.py``,
``hub/joining.py``). Rule: a hub that cannot be reached is no reason to give up before the last
one; a hub that says no is.
"""

from mesh.errors import Unreachable
from mesh.identity import Identity
from mesh.link.ws import join_over_websocket
from mesh.proto.join import JoinClient, JoinResult
from mesh.proto.token import Token


async def join_by_token(token: Token, identity: Identity, name: str) -> JoinResult:
    """Return what a hub of the token granted; raises Refused or Unreachable."""
    unreachable: list[str] = []
    for url in token.urls:
        client = JoinClient(token, identity, identity.key_record, name)
        try:
            return await join_over_websocket(url, client, identity.kem_private)
        except Unreachable as exc:
            unreachable.append(str(exc))
    raise Unreachable(
        f"no hub of the token could be reached ({'; '.join(unreachable)}); is it up, and is"
        " its port open from here?"
    )
