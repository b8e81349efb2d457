"""What hub and node do alike about members, keys and state: calls in, answers out.

It knows neither server: each is given the same three services and binds these handlers to the
operations of the table.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from mesh.courier import Courier
from mesh.errors import Refused
from mesh.key_rotation import KeyRotation
from mesh.member_desk import Changed, MemberDesk
from mesh.proto.relay import may_relay
from mesh.rest.calls import Call
from mesh.rest.trust_types import KeyRotated, MemberChanged, StatePiece, StateTaken
from mesh.rest.types import Holdings

Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """The services behind."""

    node: str
    members: MemberDesk
    keys: KeyRotation
    courier: Courier
    holdings: Callable[[], Holdings]

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by operation."""
        return {
            "getHoldings": self._hold,
            "revokeNode": self._change("revoke"),
            "suspendNode": self._change("suspend"),
            "resumeNode": self._change("resume"),
            "allowRelay": self._relay(given=True),
            "denyRelay": self._relay(given=False),
            "rotateKey": self._rotate,
            "exportState": self._give,
            "importState": self._take,
        }

    def _change(self, verb: str) -> Handler:
        async def change(call: Call) -> MemberChanged:
            return _told(await self.members.change(verb, call.parts["node"], call.who))

        return change

    def _relay(self, *, given: bool) -> Handler:
        async def change(call: Call) -> MemberChanged:
            return _told(
                await self.members.let_relay(call.parts["node"], call.who, given=given)
            )

        return change

    async def _hold(self, _call: Call) -> Holdings:
        await trio.lowlevel.checkpoint()
        return self.holdings()

    async def _rotate(self, _call: Call) -> KeyRotated:
        await trio.lowlevel.checkpoint()
        return KeyRotated(node=self.node, epoch=self.keys.rotate("asked"))

    async def _give(self, call: Call) -> StatePiece:
        given = await self.courier.give(call.query.site, call.query.at)
        piece = base64.b64encode(given.piece).decode()
        return StatePiece(piece=piece, next=given.next, done=given.done, of=given.of)

    async def _take(self, call: Call) -> StateTaken:
        try:
            piece = base64.b64decode(call.body.piece, validate=True)
        except (binascii.Error, ValueError):
            raise Refused("the piece is no base64") from None
        taken = await self.courier.take(piece)
        return StateTaken(
            records=taken.records, sets=taken.sets, known=taken.known, refused=taken.refused
        )


def _told(done: Changed) -> MemberChanged:
    member = done.member
    return MemberChanged(
        id=member.node_id,
        name=member.name,
        site=member.site or None,
        status=member.status,
        relays=may_relay(member.roles, member.capabilities),
        secrets=list(done.secrets),
    )
