"""The join exchange: how a new node and a hub come to trust each other, as two pure cores.

They know neither sockets nor Noise: ``mesh/link/join.py`` carries the four messages inside a
Noise XX handshake and hands over its final hash and the peer's static key. Rules: the node
sends nothing about itself before the hub has proved, by records signed from the root that the
token names, that the handshake's static key is a listed hub's; the request is signed twice (by
the token's one-time key and by the identity) over this handshake's hash, so it is worth nothing
on another one; every refusal is one sentence that says what to do.

    hub -> node   payload of XX message 2: {trust, roster, key} of the hub
    node -> hub   first transport record:  {b: request, s, k: by the identity, t: one-time key}
    hub -> node   second transport record: {ok, records, site} or {ok, code, detail}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.codec import pack, unpack_map
from mesh.proto.ids import NAME_PATTERN, node_id
from mesh.proto.register import Member, Register, Rejected
from mesh.proto.sign import RECORD_BYTES_MAX, Signed, Signer, split_record, verify
from mesh.proto.tables import TokenRow
from mesh.proto.token import Token
from mesh.proto.trust import LEFT, MEMBER, REVOKED, ROLE_HUB, SUSPENDED, open_key_record

JOIN: Final = "join"
PAYLOAD_BYTES_MAX: Final = 60_000
"""Bound of the hub's payload in message 2: most of it the trust document, in a large fleet."""
REPLY_BYTES_MAX: Final = 60_000
"""Bound of the hub's answer, so that it fits one transport record of 65,519 bytes. Records that
do not fit come with the register's own exchange, which goes first in every session."""


class JoinClientPort(Protocol):
    """What the carrier needs of the node's side."""

    def accept_hub(self, payload: bytes, static_key: bytes) -> None:
        """Judge the hub before message 3 is sent; raise Refused."""
        ...

    def request(self, handshake_hash: bytes) -> bytes:
        """Return the first transport record."""
        ...

    def finish(self, reply: bytes) -> "JoinResult":
        """Judge the answer; raise Refused with the hub's or our own sentence."""
        ...


class JoinServerPort(Protocol):
    """What the carrier needs of the hub's side."""

    def server_payload(self) -> bytes:
        """Return the payload of message 2."""
        ...

    async def answer(self, request: bytes, handshake_hash: bytes, static_key: bytes) -> bytes:
        """Return the second transport record; never raises for what the peer sent."""
        ...


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What a node has after it was admitted; write it to the register store first of all."""

    root_fp: bytes
    hub_id: str
    site: str
    roles: frozenset[str]
    site_info: Mapping[str, Any]
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A request of which all is proved but the one-time signature: that needs the store."""

    token_id: str
    node_id: str
    identity_public: bytes
    key_record: bytes
    site: str
    roles: frozenset[str]
    name: str
    body: bytes = field(repr=False)
    one_time_signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The hub's no: a constant code, a sentence for the node's terminal, its own concern."""

    code: str
    detail: str
    alarm: bool = False


# -- the node's side -----------------------------------------------------------------------


class JoinClient:
    """One attempt to join with one token."""

    def __init__(
        self, token: Token, identity: Signer, key_record: bytes, name: str = ""
    ) -> None:
        assert open_key_record(key_record).identity_public == identity.public
        self._token = token
        self._identity = identity
        self._key_record = key_record
        self._name = name
        self._register = Register(token.root_fp)
        self._hub: Member | None = None

    def accept_hub(self, payload: bytes, static_key: bytes) -> None:
        """Take the hub's three records; raise Refused unless they prove this very handshake."""
        token = self._token
        try:
            body = unpack_map(payload, PAYLOAD_BYTES_MAX)
            records = [fields.raw(body, name) for name in ("trust", "roster", "key")]
            hub_id = node_id(split_record(records[2]).public)
        except CodecError as exc:
            raise Refused("what answered is not a Rackmesh hub; check the address") from exc
        if isinstance(self._register.merge(records[0]), Rejected):
            raise Refused(
                "this hub belongs to another organisation than the join token;"
                " use a token that was made on this hub"
            )
        for record in records[1:]:
            self._register.merge(record)
        trust, hub = self._register.trust, self._register.member(hub_id)
        assert trust is not None
        if trust.version < token.trust_version:
            raise Refused(
                f"this hub shows trust document {trust.version} and the token asks for"
                f" {token.trust_version} or later; let the hub catch up or try another one"
            )
        if hub is None or hub.status != MEMBER or ROLE_HUB not in hub.roles:
            raise Refused(
                "what answered is not an active hub of this organisation; try another"
            )
        if hub_id not in token.hub_ids:
            raise Refused(
                f"hub {hub_id} is not one that the join token names; make a new token"
            )
        if hub.kem_public != static_key:
            raise Refused(
                "the hub's key record does not match the connection; something stands between"
            )
        self._hub = hub

    def request(self, handshake_hash: bytes) -> bytes:
        """Return the join request, bound to the finished handshake."""
        assert self._hub is not None, "accept_hub comes first"
        token = self._token
        body = pack(
            {
                "hash": handshake_hash,
                "node": node_id(self._identity.public),
                "site": token.site,
                "roles": sorted(token.roles),
                "token": token.id,
                "name": self._name,
                "key_record": self._key_record,
            }
        )
        one_time = token.one_time_key()
        return pack(
            {
                "b": body,
                "s": self._identity.sign(JOIN, 1, token.root_fp, body),
                "k": self._identity.public,
                "t": one_time.sign(JOIN, 1, token.root_fp, body),
            }
        )

    def finish(self, reply: bytes) -> JoinResult:
        """Check the hub's answer against the token; raise Refused when it is a no, or wrong."""
        assert self._hub is not None, "accept_hub comes first"
        token, own = self._token, node_id(self._identity.public)
        broken = "the hub's answer is broken; try again, and report it if it stays"
        try:
            body = unpack_map(reply, RECORD_BYTES_MAX)
            if not fields.flag(body, "ok"):
                raise Refused(_printable(fields.text(body, "detail", chars_max=500)))
            records = fields.items(body, "records", count_max=4096)
            site_info = fields.mapping(body, "site", count_max=64, default={})
            fields.check_plain(site_info)
        except CodecError as exc:
            raise Refused(broken) from exc
        for record in records:
            if isinstance(record, bytes):
                self._register.merge(record)
        member = self._register.member(own)
        if member is None or member.status != MEMBER:
            raise Refused(broken)
        if member.site != token.site or member.roles != token.roles:
            raise Refused(
                "the hub admitted this node with another site or other roles than the token"
                " names; make a new token"
            )
        return JoinResult(
            root_fp=token.root_fp,
            hub_id=self._hub.node_id,
            site=token.site,
            roles=token.roles,
            site_info=site_info,
            records=tuple(self._register.records()),
        )


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


# -- the hub's side ------------------------------------------------------------------------


def server_payload(trust: bytes, roster: bytes, key: bytes) -> bytes:
    """Return the hub's payload of XX message 2."""
    payload = pack({"trust": trust, "roster": roster, "key": key})
    assert len(payload) <= PAYLOAD_BYTES_MAX
    return payload


def open_request(
    data: bytes, handshake_hash: bytes, static_key: bytes, root_fp: bytes
) -> JoinRequest | Refusal:
    """Check everything in a request that needs no store: signatures, handshake, static key."""
    garbage = Refusal("garbage", "the join request cannot be read; update this node or the hub")
    try:
        record = split_record(data)
        if not verify(record.public, record.signature, JOIN, 1, root_fp, record.body):
            return Refusal("signature", "the signature of the join request does not hold")
        return _read_request(data, record, handshake_hash, static_key)
    except CodecError:
        return garbage


def _read_request(
    data: bytes, record: Signed, handshake_hash: bytes, static_key: bytes
) -> JoinRequest | Refusal:
    body = unpack_map(record.body, RECORD_BYTES_MAX)
    own = node_id(record.public)
    if fields.raw(body, "hash") != handshake_hash:
        return Refusal(
            "replayed", "the join request belongs to another connection; join again", alarm=True
        )
    key_record = fields.raw(body, "key_record")
    key = open_key_record(key_record)
    if fields.text(body, "node") != own or key.identity_public != record.public:
        return Refusal("identity", "the join request and its identity do not match")
    if key.kem_public != static_key:
        return Refusal("identity", "the node's key record does not match the connection")
    name = fields.text(body, "name", default="", chars_max=63)
    if name and not NAME_PATTERN.match(name):
        return Refusal("name", "the node's name may hold letters, digits, dots and dashes only")
    return JoinRequest(
        token_id=fields.text(body, "token", chars_max=64),
        node_id=own,
        identity_public=record.public,
        key_record=key_record,
        site=fields.text(body, "site", chars_max=31),
        roles=frozenset(fields.texts(body, "roles", count_max=16)),
        name=name,
        body=record.body,
        one_time_signature=fields.raw(unpack_map(data), "t", bytes_max=64),
    )


def check_request(
    request: JoinRequest,
    token: TokenRow | None,
    known: Member | None,
    now_ms: int,
    root_fp: bytes,
) -> Refusal | None:
    """Return why a request is refused, or None: admit it.

    ``token`` is the hub's own row of that token, ``known`` what the register says of the node.
    """
    again = "make a new one on the hub"
    if token is None:
        return Refusal("unknown", f"the hub does not know this join token; {again}")
    public = token.get("public", b"")
    if not verify(public, request.one_time_signature, JOIN, 1, root_fp, request.body):
        return Refusal("wrong", f"the join token's secret is wrong; {again}", alarm=True)
    used_by = token.get("used_by")
    if used_by == request.node_id and known is not None and known.status == LEFT:
        return Refusal("used", f"the join token was used before this node left; {again}")
    if used_by is not None and used_by != request.node_id:
        return Refusal(
            "used",
            f"the join token was used by another node ({used_by}); {again},"
            " and find out who used it if that was not you",
            alarm=True,
        )
    if token.get("revoked", False):
        return Refusal("revoked", f"the join token was revoked; {again}")
    if used_by is None and now_ms >= token.get("expires_ms", 0):
        return Refusal("expired", f"the join token has expired; {again}")
    if request.site != token.get("site") or request.roles != frozenset(token.get("roles", [])):
        return Refusal("bounds", f"the join token is for another site or other roles; {again}")
    if known is not None and known.status == SUSPENDED:
        return Refusal("suspended", "this node is suspended; resume it on the hub")
    if known is not None and known.status == REVOKED:
        return Refusal(
            "node-revoked",
            "this node's identity is revoked for good; move its data folder away, join anew",
        )
    return None


def grant_reply(records: Iterable[bytes], site_info: Mapping[str, Any]) -> bytes:
    """Return the answer that admits a node; the most important records come first."""
    room = (
        REPLY_BYTES_MAX - len(pack({"ok": True, "records": [], "site": dict(site_info)})) - 64
    )
    chosen: list[bytes] = []
    for record in records:
        room -= len(record) + 5
        if room < 0:
            break
        chosen.append(record)
    return pack({"ok": True, "records": chosen, "site": dict(site_info)})


def refusal_reply(refusal: Refusal) -> bytes:
    """Return the answer that refuses a node."""
    return pack({"ok": False, "code": refusal.code, "detail": refusal.detail})


def reply_records(register: Register, own: str, site: str) -> list[bytes]:
    """Return what a new member needs first: root, itself, the hubs, its site, then all."""
    order = [own, *(hub.node_id for hub in register.hubs())]
    order += [member.node_id for member in register.site_members(site)]
    order += [member.node_id for member in register.members()]
    subjects = [("trust", "")]
    for subject in dict.fromkeys(order):
        subjects += [(kind, subject) for kind in ("roster", "key", "hub")]
    found = (register.record(kind, subject) for kind, subject in subjects)
    return [record for record in found if record is not None]
