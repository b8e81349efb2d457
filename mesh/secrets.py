"""Passwords of devices: sealed by a hub to every node of a site, opened by a node in need.

It knows no device. Rules: a hub forgets the plaintext when ``set_secret`` returns; it stands
sealed in ``pair`` scopes, one row a node; the ledger row says for good which nodes could ever
read which secret, so that a lost node has a list of what to change. A node that joins later
gets existing secrets when somebody sets them again, or orders a node of the site that can open
them to seal them to it (SECRET_COPY rows in the site's scope: there nodes may write, and hubs
see who was given what).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError, Refused
from mesh.identity import Identity
from mesh.ports import StorePort, TxPort
from mesh.proto import fields
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.register import Register
from mesh.proto.seal import PLAINTEXT_BYTES_MAX, SealInfo, open_sealed, seal
from mesh.proto.tables import (
    HUBS,
    SECRET,
    SECRET_COPY,
    SECRET_INDEX,
    pair_scope,
    site_scope,
)

BMC_KIND: Final = "bmc"
"""Kind of a secret that is a BMC's login."""


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
        "retired_ms": None,
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
    """Return a secret's plaintext on a node that it was sealed to, the newest that opens.

    Keep it in the step that uses it and nowhere else. Raises Refused with one sentence.
    """
    return _newest(store, register, identity, secret_id)[0]


def copy_for(
    store: StorePort, register: Register, identity: Identity, node_id: str, secret_id: str
) -> dict[str, Any]:
    """Return the SECRET_COPY row that hands a secret of ours on to another node.

    Raises Refused with one sentence: it does not open here, the node has no key.
    """
    plaintext, body = _newest(store, register, identity, secret_id)
    member = register.member(node_id)
    if member is None or member.kem_public is None:
        raise Refused(f"node {node_id[:8]} has shown no key to seal to yet")
    version = fields.integer(body, "version")
    info = SealInfo(register.root_fp, node_id, member.kem_epoch, secret_id, version)
    try:
        sealed = seal(member.kem_public, info, plaintext)
    except CodecError as exc:
        raise Refused(f"node {node_id[:8]} has no usable key: {exc}") from exc
    return {
        "id": secret_id, "version": version, "kem_epoch": member.kem_epoch, "sealed": sealed,
        "kind": str(body.get("kind", "")),
    }  # fmt: skip


def make_copies(
    register: Register, site: str, secret_id: str, plaintext: bytes
) -> dict[str, dict[str, Any]]:
    """Return SECRET_COPY rows of a BMC's new login, by the active nodes of a site.

    A node without a usable key gets none. Raises Refused when nobody could open it.
    """
    found: dict[str, dict[str, Any]] = {}
    for member in register.site_members(site):
        info = SealInfo(register.root_fp, member.node_id, member.kem_epoch, secret_id, 1)
        try:
            if member.kem_public is not None:
                found[member.node_id] = {
                    "id": secret_id, "version": 1, "kem_epoch": member.kem_epoch,
                    "sealed": seal(member.kem_public, info, plaintext), "kind": BMC_KIND,
                }  # fmt: skip
        except CodecError:
            pass  # an unusable key
    if not found:
        raise Refused(f"no node of site {site} has shown a key to seal to")
    return found


def copy_key(node_id: str, secret_id: str) -> str:
    """Return the key of a SECRET_COPY row."""
    return f"{node_id}/{secret_id}"


def _newest(
    store: StorePort, register: Register, identity: Identity, secret_id: str
) -> tuple[bytes, Mapping[str, Any]]:
    """Return plaintext and row of the newest version that opens here."""
    found = _sealed_to(store, register, identity).get(secret_id)
    if not found:
        raise Refused(
            f"this node has no secret {secret_id!r}; set it again on the hub, or let it be"
            f" handed on: rackmesh secret release --node {identity.node_id}"
        )
    for body in found:
        plaintext = _opened(register, identity, secret_id, body)
        if plaintext is not None:
            return plaintext, body
    raise Refused(f"the secret {secret_id!r} does not open with this node's key; set it again")


def _sealed_to(
    store: StorePort, register: Register, identity: Identity
) -> dict[str, list[Mapping[str, Any]]]:
    """Return, by secret, the rows that are sealed to this node: newest first, hubs' before
    those of other nodes."""
    me = identity.node_id
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in store.rows(pair_scope(me), SECRET):
        if _is_sealed(row.body):
            found.setdefault(row.key, []).append(row.body)
    member = register.member(me)
    copies = store.authored(site_scope(member.site), SECRET_COPY) if member else ()
    for row in copies:
        node, _, secret_id = row.key.partition("/")
        if node == me and _is_sealed(row.body):
            found.setdefault(secret_id, []).append(row.body)
    for bodies in found.values():
        bodies.sort(key=lambda body: -_number(body.get("version")))
    return found


def _is_sealed(body: Mapping[str, Any]) -> bool:
    """Whether a row of anybody has the fields of a sealed secret."""
    numbers = all(isinstance(body.get(name), int) for name in ("version", "kem_epoch"))
    return numbers and isinstance(body.get("sealed"), bytes)


def _opened(
    register: Register, identity: Identity, secret_id: str, body: Mapping[str, Any]
) -> bytes | None:
    try:
        kem_epoch = fields.integer(body, "kem_epoch")
        version = fields.integer(body, "version")
        sealed = fields.raw(body, "sealed")
        info = SealInfo(register.root_fp, identity.node_id, kem_epoch, secret_id, version)
        private = identity.sealed_to(kem_epoch)
        return open_sealed(private, info, sealed) if private else None
    except CodecError:
        return None


def to_seal_anew(store: StorePort, register: Register, identity: Identity) -> dict[str, int]:
    """Return the secrets that open here with a replaced key alone, and the epoch of that key.

    The newest version that opens is what counts; an older one nobody reads.
    """
    found: dict[str, int] = {}
    for secret_id, bodies in _sealed_to(store, register, identity).items():
        opening = (b for b in bodies if _opened(register, identity, secret_id, b) is not None)
        newest = next(opening, None)
        if newest is None:
            continue
        same = [newest, *(b for b in opening if b["version"] == newest["version"])]
        epochs = {int(body["kem_epoch"]) for body in same}
        if identity.kem_epoch not in epochs:
            found[secret_id] = max(epochs)
    return found


def sealed_anew(
    store: StorePort, register: Register, identity: Identity
) -> dict[str, dict[str, Any]]:
    """Return rows that seal to our key of today what opens with a replaced one alone, by key.

    They are copies in the site's scope (SECRET_COPY), like those that a node gives to another:
    what a hub sets later has a higher version and is read first.
    """
    me = identity.node_id
    return {
        copy_key(me, secret_id): copy_for(store, register, identity, me, secret_id)
        for secret_id in to_seal_anew(store, register, identity)
    }


class Readable:
    """Which secrets a node can open, by trying; a row is tried once."""

    def __init__(self, store: StorePort, register: Register, identity: Identity) -> None:
        self._store, self._register, self._identity = store, register, identity
        self._tried: dict[tuple[Any, ...], bool] = {}

    def versions(self) -> dict[str, int]:
        """Return the ids of all secrets that open now, with their versions."""
        tried: dict[tuple[Any, ...], bool] = {}
        found: dict[str, int] = {}
        sealed_to = _sealed_to(self._store, self._register, self._identity)
        for secret_id, bodies in sealed_to.items():
            for body in bodies:
                mark = (secret_id, *(body.get(k) for k in ("sealed", "version", "kem_epoch")))
                opens = self._tried.get(mark)
                if opens is None:
                    plain = _opened(self._register, self._identity, secret_id, body)
                    opens = plain is not None
                tried[mark] = opens
                if opens:
                    found[secret_id] = _number(body.get("version"))
                    break
        self._tried = tried
        return found


def note_made(tx: TxPort, secret_id: str, site: str, nodes: Collection[str]) -> None:
    """Write a login that a node made into the ledger, inside a hub's transaction."""
    if tx.get(HUBS, SECRET_INDEX, secret_id) is None:
        body = {
            "id": secret_id, "kind": BMC_KIND, "site": site, "version": 1,
            "released": sorted(nodes), "changed_ms": tx.now_ms,
        }  # fmt: skip
        tx.put(HUBS, SECRET_INDEX, secret_id, body)


def note_retired(tx: TxPort, secret_id: str) -> None:
    """Write into the ledger that a login opens nothing any more."""
    row = tx.get(HUBS, SECRET_INDEX, secret_id)
    if row is not None and not row.body.get("retired_ms"):
        tx.put(HUBS, SECRET_INDEX, secret_id, {**row.body, "retired_ms": tx.now_ms})


def note_released(tx: TxPort, secret_id: str, site: str, node_id: str) -> None:
    """Write into the ledger, inside a hub's transaction, that a node can read a secret."""
    row = tx.get(HUBS, SECRET_INDEX, secret_id)
    if row is None or row.body.get("site") != site:
        return
    released = set(row.body.get("released", []))
    if node_id not in released:
        body = {**row.body, "released": sorted({*released, node_id})}
        tx.put(HUBS, SECRET_INDEX, secret_id, body)


def exposed_secrets(store: StorePort, node_id: str) -> list[str]:
    """Return the ids of all secrets that a node could ever read: to change when it is lost."""
    return sorted(
        row.key
        for row in store.rows(HUBS, SECRET_INDEX)
        if node_id in row.body.get("released", []) and not row.body.get("retired_ms")
    )


def exposed_at_site(
    store: StorePort, readable: Callable[[], Mapping[str, int]], site: str, node_id: str
) -> list[str]:
    """Return the secrets that a node of our site could read, as far as a site knows it.

    The ledger is the hubs'. Here: what was handed on to it, and what this node can open (a hub
    seals to every node of a site alike), which may be some too many, never one too few.
    """
    copies = store.authored(site_scope(site), SECRET_COPY)
    given = {s for node, _, s in (row.key.partition("/") for row in copies) if node == node_id}
    return sorted({*given, *readable()})


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
