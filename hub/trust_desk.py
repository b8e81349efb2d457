"""What the trust document says of the hubs, and how the next one comes in.

It knows no root key: who holds it signs beside (``hub/root_commands.py``) and hands the
document over. Rules: a document is taken only when the organisation's root signed it and its
version is the next one, so two people who change it at once cannot undo each other; keys of a
hub are shown only as that hub's own signed record, which whoever signs checks again.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from hub.errors import BadRequest, Conflict
from mesh.errors import CodecError
from mesh.host.log import get_log
from mesh.hub_keys import HubKeys
from mesh.identity import Identity
from mesh.proto import tables
from mesh.proto.role_keys import RoleKeys, make_role_keys_record, open_role_keys_record
from mesh.proto.sign import RECORD_BYTES_MAX
from mesh.proto.trust import MEMBER, ROLE_HUB, TRUST, open_trust_document
from mesh.proto.void import open_kept_record
from mesh.register_store import RegisterStore
from mesh.rest.types import Hub, Region, Trust
from mesh.store import MeshStore, Tx

log = get_log("trust")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDesk:
    """The hubs of the organisation and what their keys are worth."""

    store: MeshStore
    register: RegisterStore
    keys: HubKeys
    identity: Identity

    def describe(self) -> Trust:
        """Return the trust document."""
        trust, document = self.register.register.trust, self._document()
        assert trust is not None, "a hub has a trust document before it serves"
        return Trust(
            version=trust.version,
            root_fingerprint=self.keys.root_fp.hex(),
            document=b64encode(document).decode(),
            membership=[key.hex() for key in trust.membership],
            assets=[key.hex() for key in trust.assets],
            regions=[
                Region(region=name, epoch=role.epoch, keys=[key.hex() for key in role.keys])
                for name, role in sorted(trust.orders.items())
            ],
        )

    async def replace(self, document: str, lists: Sequence[str] = ()) -> Trust:
        """Take the next trust document, with the lists that it names.

        Raises BadRequest or Conflict; nothing has changed then.
        """
        register = self.register.register
        try:
            data = b64decode(document, validate=True)
            if len(data) > RECORD_BYTES_MAX:
                raise CodecError("it is too long")
            trust = open_trust_document(data, self.keys.root_fp)
            kept = [b64decode(one, validate=True) for one in lists]
            given = {open_kept_record(one, self.keys.root_fp)[0] for one in kept}
        except (CodecError, ValueError) as exc:
            raise BadRequest(f"this is no trust document of this organisation: {exc}") from exc
        have = register.trust.version if register.trust else 0
        if trust.version != have + 1:
            raise Conflict(
                f"trust document {have} is in force, so the next one is {have + 1} and not"
                f" {trust.version}; do it again"
            )
        missing = {name for void in trust.void.values() for name in void.lists} - given
        if missing - register.lists():
            raise BadRequest("lists are missing that the trust document names")
        self.register.merge_all([data, *kept])
        log.info("trust document taken", version=trust.version)
        return self.describe()

    def read_only(self) -> str | None:
        """Say why this hub only reads, None when its keys are named."""
        trust, own = self.register.register.trust, self.identity.node_id
        if self.keys.role_keys(own).named_in(trust):
            return None
        return (
            "this hub only reads: no trust document names its keys; where the root key is:"
            f" rackmesh hub root admit {own}"
        )

    def waiting(self) -> list[Hub]:
        """Return the other hubs whose keys wait for the root."""
        own = self.identity.node_id
        return [hub for hub in self.hubs() if hub["state"] == "waits" and hub["id"] != own]

    def write_own(self, tx: Tx) -> None:
        """Say our role keys, unless that stands already."""
        own = self.identity.node_id
        record = make_role_keys_record(
            self.identity.signer, self.keys.root_fp, self.keys.role_keys(own)
        )
        there = tx.own(tables.HUBS, tables.HUB_KEYS, own)
        if there is None or there.body.get("signed") != record:
            tx.put(tables.HUBS, tables.HUB_KEYS, own, {"signed": record})

    def _document(self) -> bytes:
        document = self.register.register.record(TRUST, "")
        assert document is not None
        return document

    def hubs(self) -> list[Hub]:
        """Return the hubs, whatever their status."""
        register = self.register.register
        addresses = {hub.node_id: hub for hub in register.hubs()}
        found: list[Hub] = []
        for member in register.members():
            if ROLE_HUB not in member.roles:
                continue
            said, record = self._said(member.node_id)
            address = addresses.get(member.node_id)
            named = said is not None and said.named_in(register.trust)
            found.append(
                Hub(
                    id=member.node_id,
                    name=member.name,
                    region=said.region if said else (address.region if address else ""),
                    urls=list(address.urls) if address else [],
                    state=member.status if member.status != MEMBER else _state(said, named),
                    keys=[key.hex() for key in said.all] if said else [],
                    record=b64encode(record).decode() if record else None,
                )
            )
        return found

    def _said(self, hub: str) -> tuple[RoleKeys | None, bytes | None]:
        """Return a hub's role keys as it signed them."""
        for row in self.store.authored(tables.HUBS, tables.HUB_KEYS, hub):
            record = row.body.get("signed")
            if row.author != hub or not isinstance(record, bytes):
                continue
            try:
                said = open_role_keys_record(record, self.keys.root_fp)
            except CodecError:
                continue
            if said.hub_id == hub:
                return said, record
        return None, None


def _state(said: RoleKeys | None, named: bool) -> str:
    if said is None:
        return "silent"
    return "named" if named else "waits"
