"""Revoking, suspending, resuming members and letting them relay: what an operator asks.

It knows no HTTP. Rules: a hub speaks by its membership key, a node with role site-operator by
its own identity where the trust document names it as its site's key; the answer to a revocation
lists the secrets that the node could read; the last accepted heads of its sets stand in its
record when it ends, so that what it writes later is nobody's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from mesh.errors import Refused
from mesh.host.log import get_log
from mesh.membership import Voice, set_capability, set_status
from mesh.proto.register import Member, Register
from mesh.proto.relay import CAPABILITY
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.trust import (
    HEADS_MAX,
    LEFT,
    MEMBER,
    REVOKED,
    ROLE_HUB,
    ROLE_SITE_OPERATOR,
    SUSPENDED,
    Status,
)
from mesh.register_store import RegisterStore

VERBS: Final[Mapping[str, Status]] = {
    "revoke": REVOKED,
    "suspend": SUSPENDED,
    "resume": MEMBER,
}
log = get_log("members")


@dataclass(frozen=True, slots=True)
class Changed:
    """A member as it is now, and the secrets that it could ever read (when it was revoked)."""

    member: Member
    secrets: tuple[str, ...]


class MemberDesk:
    """Changes the status of members, with the key that this program has."""

    def __init__(
        self,
        register: RegisterStore,
        me: str,
        voice: Voice,
        heads: Callable[[], Mapping[SetId, SignedHead]],
        exposed: Callable[[str], list[str]],
    ) -> None:
        """``exposed`` returns the secrets that a node could read, as far as they are known
        here (mesh/secrets.py)."""
        self._register = register
        self._me = me
        self._voice = voice
        self._heads = heads
        self._exposed = exposed

    async def change(self, verb: str, text: str, by: str) -> Changed:
        """Do what a verb says to the node with this id or name; raises Refused."""
        await trio.lowlevel.checkpoint()
        status, register = VERBS[verb], self._register.register
        member = find_member(register, text)
        self._check(verb, member)
        heads = last_heads(self._heads(), member.node_id) if status == REVOKED else None
        set_status(self._voice, self._register, member.node_id, status, heads)
        changed = register.member(member.node_id)
        assert changed is not None
        if changed.status != status:
            raise Refused(
                f"node {changed.node_id} is {changed.status}, by a stronger key's word"
            )
        secrets = self._exposed(changed.node_id) if status == REVOKED else []
        log.warning("member changed", node=changed.node_id, state=status, user=by)
        return Changed(changed, tuple(secrets))

    async def let_relay(self, text: str, by: str, *, given: bool) -> Changed:
        """Let the node with this id or name relay for others, or no more; raises Refused."""
        await trio.lowlevel.checkpoint()
        member = find_member(self._register.register, text)
        if ROLE_HUB in member.roles:
            raise Refused("hubs always relay")
        self._check_right()
        set_capability(self._voice, self._register, member.node_id, CAPABILITY, given=given)
        changed = self._register.register.member(member.node_id)
        assert changed is not None
        if (CAPABILITY in changed.capabilities) != given:
            raise Refused(f"a stronger key's word about node {changed.node_id} stands")
        log.info("member relays" if given else "member relays no more", node=changed.node_id,
                 user=by)  # fmt: skip
        return Changed(changed, ())

    def _check(self, verb: str, member: Member) -> None:
        if member.node_id == self._me:
            raise Refused("nobody changes its own membership; do it on another hub or node")
        if verb == "resume" and member.status in (LEFT, REVOKED):
            raise Refused(f"node {member.node_id} is {member.status}: it must join anew")
        self._check_right()

    def _check_right(self) -> None:
        if not self._voice.site:
            return
        me = self._register.register.member(self._me)
        if me is None or me.status != MEMBER or ROLE_SITE_OPERATOR not in me.roles:
            raise Refused("this node has no role site-operator; do it at a hub")


def find_member(register: Register, text: str) -> Member:
    """Return the identity with this node id, or the one member of this name; raises Refused."""
    exact = register.member(text)
    if exact is not None:
        return exact
    named = [member for member in register.members() if member.name == text]
    alive = [member for member in named if member.status in (MEMBER, SUSPENDED)] or named
    if not alive:
        raise Refused(f"there is no node {text!r}; rackmesh node list shows all")
    if len(alive) > 1:
        ids = ", ".join(member.node_id for member in alive[:4])
        raise Refused(f"{len(alive)} nodes are called {text!r}; give the id: {ids}")
    return alive[0]


def last_heads(
    heads: Mapping[SetId, SignedHead], node_id: str
) -> dict[str, tuple[int, int, bytes]]:
    """Return the heads of a node's sets that are held here, those that most members share
    first where there are too many."""
    own = [signed.head for set_id, signed in heads.items() if set_id.author == node_id]
    own.sort(key=lambda head: (head.scope.startswith("pair:"), head.scope))
    return {head.scope: (head.epoch, head.seq, head.root) for head in own[:HEADS_MAX]}
