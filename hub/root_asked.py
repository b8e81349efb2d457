"""What a hub is asked for before the root signs: the present document, the hubs, the register.

It knows no passphrase and signs nothing. Rule: the register is put together here from the
signed records themselves, so whatever hub was asked can only leave out, never make up.
"""

from base64 import b64decode
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mesh.cli.errors import CONFLICT, NOT_FOUND, Failure
from mesh.errors import CodecError, Refused
from mesh.member_desk import find_member
from mesh.proto.courier import open_piece
from mesh.proto.ids import NODE_ID_PATTERN
from mesh.proto.register import Member, Register
from mesh.proto.sync_wire import Records
from mesh.proto.trust import MEMBER, ROLE_SITE_OPERATOR


@dataclass(frozen=True)
class Asked:
    """The answers of one hub."""

    client: Any
    root_fp: bytes
    item: dict[str, Any]  # of GET /trust
    hubs: list[dict[str, Any]]

    @cached_property
    def register(self) -> Register:
        """The register as this hub has it."""
        register, at = Register(self.root_fp), None
        while True:
            given = self.client.get("/state", at=at)["item"]
            try:
                message = open_piece(b64decode(given["piece"]))
            except (CodecError, ValueError) as exc:
                raise Failure(f"the hub's register cannot be read: {exc}") from exc
            if not isinstance(message, Records):
                return register
            for record in message.records:
                register.merge(record)
            at = given["next"]
            if at is None:
                return register

    def site_node(self, node: str) -> Member:
        """Return a node of a site by its whole id; Failure with what is wrong."""
        if not NODE_ID_PATTERN.match(node):
            raise Failure(f"{node!r} is no id: give all 32 characters (rackmesh node list)", 2)
        member = self.register.member(node)
        if member is None or not member.site:
            raise Failure(f"there is no node {node} of a site", NOT_FOUND)
        return member

    def operator(self, node: str) -> Member:
        """Return a node that may speak for its site; Failure with what is wrong."""
        member = self.site_node(node)
        if member.status != MEMBER or ROLE_SITE_OPERATOR not in member.roles:
            raise Failure(f"node {node} is no active site-operator of its site", CONFLICT)
        return member

    def standing(self, key: bytes, but: tuple[str, ...]) -> list[bytes]:
        """Return the digests of the roster records that a key has signed, but those about
        some nodes (ids or names)."""
        try:
            left_out = {find_member(self.register, text).node_id for text in but}
        except Refused as exc:
            raise Failure(str(exc), NOT_FOUND) from exc
        signed = self.register.signed_by(key)
        return [digest for node, digest in signed if node not in left_out]
