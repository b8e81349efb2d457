"""The handshake of two members: who is it, does the key still hold, and with which secret now.

Noise IK when the dialler knows the acceptor's X25519 key, XX when it knows none or one that the
acceptor has replaced. Both payloads are signed key records, judged against the roster.

    dialler                              acceptor
    IK 1 (its key record)        ->
                                 <-      IK 2 (its key record)            done
                                 <-      IK 2 (mark, the dialler's newer record)   refused
                                 <-      XX, empty: "I cannot read this, begin with XX"
    XX 1 (LINK)                  ->
                                 <-      XX 2 (its key record)
    XX 3 (its key record)        ->                                       done

It knows no carrier, no frames and no clock: the shell bounds it in time. Rules: the static key
of the handshake is the one in the record; a key record that is newer than the register's is
accepted, an older one never, and of two of one epoch the register's; whoever shows a key that
it has replaced (it was restored) is told so by its own record, which it alone could sign; the
dialler finds the very node it dialled and says nothing of itself before that in XX; one
fallback a connection. Whatever does not hold ends in Failed and nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mesh.errors import CodecError
from mesh.proto.ids import node_id
from mesh.proto.noise import Handshake, NoiseError
from mesh.proto.record import IK, XX
from mesh.proto.trust import KEY, KeyRecord, open_key_record

KEY_RECORD_BYTES_MAX: Final = 4096
IK_BYTES_MIN: Final = 96
"""Message 1 of IK without payload: shorter ones are not worth a fallback."""
LINK: Final = b"link"
"""Payload of XX 1 between members; that of a JOIN is empty (mesh/link/join.py)."""
REPLACED: Final = b"\x00replaced"
"""Begins the payload of IK 2 that says: you have replaced this key, here is your own word."""


class OwnKeys(Protocol):
    """Our side: mesh.identity.Identity."""

    @property
    def node_id(self) -> str:
        """Our node id."""
        ...

    @property
    def kem_private(self) -> bytes:
        """Our X25519 key: the static key of the handshake."""
        ...

    @property
    def key_record(self) -> bytes:
        """Our signed key record."""
        ...


class MemberLookup(Protocol):
    """What a handshake asks the register (mesh.proto.register.Register)."""

    def active(self, node_id: str, /) -> bool:
        """Tell whether a node is a member now."""
        ...

    def member(self, node_id: str, /) -> Any:
        """Return what is known of a node, with ``kem_public`` and ``kem_epoch``, or None."""
        ...

    def record(self, kind: str, node_id: str, /) -> bytes | None:
        """Return the signed record of a kind about a node."""
        ...


@dataclass(frozen=True, slots=True)
class Send:
    """Send a handshake message."""

    kind: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Learned:
    """A key record that holds and is newer than what the register says: merge it."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The peer is this member, and both sides have the same secret."""

    peer: str
    dialled: bool
    key: KeyRecord
    key_record: bytes
    handshake_hash: bytes
    chaining_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The handshake is over, the connection must be closed."""

    reason: str


Effect = Send | Learned | Done | Failed


class _Refused(Exception):
    """What the peer shows does not hold. Never leaves this module."""


class _Replaced(_Refused):
    """The key was the peer's once."""


class _Side:
    """What both sides have."""

    def __init__(
        self, own: OwnKeys, members: MemberLookup, entropy: Callable[[int], bytes]
    ) -> None:
        self._own = own
        self._members = members
        self._entropy = entropy
        self._noise: Handshake | None = None
        self.over = False

    def on_message(self, kind: int, body: bytes) -> list[Effect]:
        """Take the peer's next record, whatever it is."""
        if self.over:
            return []
        try:
            return self._on_message(kind, body)
        except (_Refused, NoiseError) as exc:
            return self._fail(str(exc))

    def _on_message(self, kind: int, body: bytes) -> list[Effect]:
        raise NotImplementedError

    def _fail(self, reason: str) -> list[Effect]:
        self.over = True
        return [Failed(reason)]

    def _handshake(self, pattern: Any, *, initiator: bool, remote: Any = None) -> Handshake:
        self._noise = Handshake(
            pattern,
            initiator=initiator,
            static_private=self._own.kem_private,
            ephemeral_private=self._entropy(32),
            remote_static=remote,
        )
        return self._noise

    def _opened(self, record: bytes, noise: Handshake) -> tuple[str, KeyRecord]:
        """Return who signed a key record that names the handshake's static key."""
        peer, key = _open(record)
        if key.kem_public != noise.remote_static:
            raise _Refused("the key record names another key")
        return peer, key

    def _is_newer(self, peer: str, key: KeyRecord) -> bool:
        """Tell whether a record says more than the register; refuse what it contradicts."""
        member = self._members.member(peer)
        if member is None or not self._members.active(peer):
            raise _Refused(f"{peer} is not an active member")
        if member.kem_public is None or key.kem_epoch > member.kem_epoch:
            return True
        if (key.kem_epoch, key.kem_public) != (member.kem_epoch, member.kem_public):
            raise _Replaced(f"{peer} shows a key that it has replaced")
        return False

    def _done(self, peer: str, key: KeyRecord, record: bytes, *, dialled: bool) -> Done:
        assert self._noise is not None
        self.over = True
        return Done(
            peer, dialled, key, record, self._noise.hash, chaining_key=self._noise.chaining_key
        )


class Dialler(_Side):
    """The side that made the connection, to a node that it names."""

    def __init__(
        self,
        peer: str,
        own: OwnKeys,
        members: MemberLookup,
        entropy: Callable[[int], bytes],
    ) -> None:
        super().__init__(own, members, entropy)
        self._peer = peer
        self._pattern = IK

    def start(self) -> list[Effect]:
        """Return what to send first."""
        member = self._members.member(self._peer)
        if member is None or not self._members.active(self._peer):
            return self._fail(f"{self._peer} is not an active member")
        if member.kem_public is None:
            return self._begin_xx()
        try:
            noise = self._handshake("IK", initiator=True, remote=member.kem_public)
            return [Send(IK, noise.write(self._own.key_record))]
        except NoiseError:
            return self._begin_xx()  # a key that nobody can use: the next one will do

    def _begin_xx(self) -> list[Effect]:
        self._pattern = XX
        return [Send(XX, self._handshake("XX", initiator=True).write(LINK))]

    def _on_message(self, kind: int, body: bytes) -> list[Effect]:
        assert self._noise is not None
        if kind == XX and self._pattern == IK and not body:
            return self._begin_xx()
        if kind != self._pattern:
            raise _Refused("the answer is of another handshake")
        noise = self._noise
        record = noise.read(body)
        if self._pattern == IK and record.startswith(REPLACED):
            return self._on_replaced(record[len(REPLACED) :])
        peer, key = self._opened(record, noise)
        if peer != self._peer:
            raise _Refused("the answer is another node's")
        effects: list[Effect] = [Learned(record)] if self._is_newer(peer, key) else []
        if self._pattern == XX:
            effects.append(Send(XX, noise.write(self._own.key_record)))
        return [*effects, self._done(peer, key, record, dialled=True)]

    def _on_replaced(self, record: bytes) -> list[Effect]:
        """The peer knows a later key of ours: we were restored, or run twice."""
        whose, key = _open(record)
        ours = open_key_record(self._own.key_record)
        later = key.kem_epoch >= ours.kem_epoch and key.kem_public != ours.kem_public
        if whose != self._own.node_id or not later:
            raise _Refused("the peer refuses our key without showing a later one")
        return [Learned(record), *self._fail("the peer knows a later key of this node")]


class Acceptor(_Side):
    """The side that somebody connected to."""

    def __init__(
        self, own: OwnKeys, members: MemberLookup, entropy: Callable[[int], bytes]
    ) -> None:
        super().__init__(own, members, entropy)
        self._state = "first"

    def _on_message(self, kind: int, body: bytes) -> list[Effect]:
        if self._state == "first" and kind == IK:
            return self._on_ik(body)
        if self._state in ("first", "xx") and kind == XX:
            return self._on_xx_first(body)
        if self._state == "third" and kind == XX:
            return self._on_xx_third(body)
        raise _Refused("not the message that is due")

    def _on_ik(self, body: bytes) -> list[Effect]:
        noise = self._handshake("IK", initiator=False)
        try:
            record = noise.read(body)
        except NoiseError:
            if len(body) < IK_BYTES_MIN:
                raise
            self._state = "xx"
            return [Send(XX, b"")]
        try:
            peer, key = self._judged(record, noise)
        except _Replaced as exc:
            return self._tell_replaced(record, noise, str(exc))
        sent = Send(IK, noise.write(self._own.key_record))
        return [sent, self._done(peer, key, record, dialled=False)]

    def _on_xx_first(self, body: bytes) -> list[Effect]:
        noise = self._handshake("XX", initiator=False)
        if noise.read(body) != LINK:
            raise _Refused("not the first message of a link")
        self._state = "third"
        return [Send(XX, noise.write(self._own.key_record))]

    def _on_xx_third(self, body: bytes) -> list[Effect]:
        assert self._noise is not None
        record = self._noise.read(body)
        peer, key = self._judged(record, self._noise)
        return [self._done(peer, key, record, dialled=False)]

    def _judged(self, record: bytes, noise: Handshake) -> tuple[str, KeyRecord]:
        """Return whose key this is.

        Nothing is learned yet: message 1 of IK can be a replay, and who sent it has shown its
        key only when HELLO comes under the session's keys.
        """
        peer, key = self._opened(record, noise)
        if peer == self._own.node_id:
            raise _Refused("we dialled ourselves")
        self._is_newer(peer, key)
        return peer, key

    def _tell_replaced(self, record: bytes, noise: Handshake, reason: str) -> list[Effect]:
        peer, _ = _open(record)
        later = self._members.record(KEY, peer)
        failed = self._fail(reason)
        if later is None:
            return failed
        return [Send(IK, noise.write(REPLACED + later)), *failed]


def _open(record: bytes) -> tuple[str, KeyRecord]:
    if len(record) > KEY_RECORD_BYTES_MAX:
        raise _Refused("the key record is too long")
    try:
        key = open_key_record(record)
    except CodecError as exc:
        raise _Refused(f"the key record does not hold: {exc}") from exc
    return node_id(key.identity_public), key
