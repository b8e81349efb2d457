"""Passwords of devices: sealed by a hub to every node of a site, opened by a node in need.

It knows no device. Rules: a hub forgets the plaintext when ``set_secret`` returns; it stands
sealed in ``pair`` scopes, one row a node; the ledger row says for good which nodes could ever
read which secret, so that a lost node has a list of what to change. A node that joins later
gets existing secrets only when somebody sets them again.
"""

from dataclasses import dataclass
from typing import Any

from mesh.errors import CodecError, Refused
from mesh.identity import Identity
from mesh.ports import StorePort, TxPort
from mesh.proto import fields
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.register import Register
from mesh.proto.seal import PLAINTEXT_BYTES_MAX, SealInfo, open_sealed, seal
from mesh.proto.tables import HUBS, SECRET, SECRET_INDEX, pair_scope


@dataclass(frozen=True, slots=True)
class Released:
    """What ``set_secret`` did: who can read the version now, and who has no key to seal to."""

    version: int
    nodes: tuple[str, ...]
    without_key: tuple[str, ...]


def set_secret(
    tx: TxPort, register: Register, secret_id: str, kind: str, plaintext: bytes, *, site: str
) -> Released:
    """Seal a secret to every active node of a site, inside a hub's write transaction.

    Raises Refused with one sentence: bad id, too long, no node to seal to, id of another site.
    """
    if not NAME_PATTERN.match(secret_id):
        raise Refused(
            f"{secret_id!r} is no name for a secret; use letters, digits, dots, dashes"
        )
    if not 0 < len(plaintext) <= PLAINTEXT_BYTES_MAX:
        raise Refused(f"a secret has 1 to {PLAINTEXT_BYTES_MAX} bytes")
    old = tx.get(HUBS, SECRET_INDEX, secret_id)
    before = old.body if old else {}
    if before and before.get("site") != site:
        raise Refused(
            f"secret {secret_id} belongs to site {before.get('site')}; take another id"
        )
    version = _number(before.get("version")) + 1
    given: list[str] = []
    without_key: list[str] = []
    for member in register.site_members(site):
        info = SealInfo(register.root_fp, member.node_id, member.kem_epoch, secret_id, version)
        try:
            if member.kem_public is None:
                raise CodecError("no key record yet")
            sealed = seal(member.kem_public, info, plaintext)
        except CodecError:
            without_key.append(member.node_id)
            continue
        body = {
            "id": secret_id,
            "version": version,
            "kem_epoch": member.kem_epoch,
            "sealed": sealed,
            "kind": kind,
        }
        tx.put(pair_scope(member.node_id), SECRET, secret_id, body)
        given.append(member.node_id)
    if not given:
        raise Refused(f"site {site} has no node that could keep the secret; let one join first")
    released = sorted({*before.get("released", []), *given})
    entry = {
        "id": secret_id,
        "kind": kind,
        "site": site,
        "version": version,
        "released": released,
        "changed_ms": tx.now_ms,
    }
    tx.put(HUBS, SECRET_INDEX, secret_id, {**before, **entry})
    return Released(version, tuple(given), tuple(without_key))


def read_secret(
    store: StorePort, register: Register, identity: Identity, secret_id: str
) -> bytes:
    """Return a secret's plaintext on the node that it was sealed to.

    Keep it in the step that uses it and nowhere else. Raises Refused with one sentence.
    """
    row = store.get(pair_scope(identity.node_id), SECRET, secret_id)
    if row is None:
        raise Refused(f"this node has no secret {secret_id!r}; set it again on the hub")
    try:
        kem_epoch = fields.integer(row.body, "kem_epoch")
        version = fields.integer(row.body, "version")
        sealed = fields.raw(row.body, "sealed")
        info = SealInfo(register.root_fp, identity.node_id, kem_epoch, secret_id, version)
        return open_sealed(identity.kem_private, info, sealed)
    except CodecError as exc:
        raise Refused(
            f"the secret {secret_id!r} does not open with this node's key; set it again"
        ) from exc


class Readable:
    """Which secrets a node can open, by trying; a row is tried once."""

    def __init__(self, store: StorePort, register: Register, identity: Identity) -> None:
        self._store, self._register, self._identity = store, register, identity
        self._tried: dict[str, tuple[Any, bool]] = {}

    def versions(self) -> dict[str, int]:
        """Return the ids of all secrets that open now, with their versions."""
        tried: dict[str, tuple[Any, bool]] = {}
        found: dict[str, int] = {}
        for row in self._store.rows(pair_scope(self._identity.node_id), SECRET):
            sealed = row.body.get("sealed"), row.body.get("version"), row.body.get("kem_epoch")
            before = self._tried.get(row.key)
            opens = before[1] if before and before[0] == sealed else self._opens(row.key)
            tried[row.key] = (sealed, opens)
            if opens:
                found[row.key] = _number(row.body.get("version"))
        self._tried = tried
        return found

    def _opens(self, secret_id: str) -> bool:
        try:
            read_secret(self._store, self._register, self._identity, secret_id)
        except Refused:
            return False
        return True


def exposed_secrets(store: StorePort, node_id: str) -> list[str]:
    """Return the ids of all secrets that a node could ever read: to change when it is lost."""
    return sorted(
        row.key
        for row in store.rows(HUBS, SECRET_INDEX)
        if node_id in row.body.get("released", [])
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
