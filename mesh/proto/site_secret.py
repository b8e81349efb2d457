"""The site secret: 32 bytes that every node of a site knows and nobody else, by epoch.

A pure plan over rows; it knows no store and no private key. Rules: any node of the site may
make a secret and seals what it knows to every member that has no fitting row; of two secrets
the higher epoch holds, then the lower node id of who made it; once a member is revoked, the
epochs that it could read are refused and the next one is made; a node that finds others' rows
but none for itself waits for one, and only after its patience makes a new epoch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import NODE_ID_PATTERN
from mesh.proto.seal import SealInfo

SECRET_BYTES: Final = 32
EPOCH_MAX: Final = (1 << 32) - 1
"""Epochs fit the four bytes that a boot capability has for them."""
EPOCH_STEP_MAX: Final = 1 << 16
"""A row whose epoch is this far above all others is dropped: it would use the numbers up."""


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One author's copy of a secret, sealed to one member."""

    author: str
    recipient: str
    epoch: int
    origin: str  # node id of who made the secret
    kem_epoch: int
    sealed: bytes = field(repr=False)

    @property
    def rank(self) -> tuple[int, str]:
        """Sorts the secret that holds first."""
        return (-self.epoch, self.origin)


@dataclass(frozen=True, slots=True)
class Make:
    """Make a new secret of this epoch and seal it to every member."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the secret that we hold to these members."""

    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Another node holds the secret and has not sealed it to us yet."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing to do."""


Plan = Make | Seal | Wait | Settled


def row_key(recipient: str, epoch: int) -> str:
    """Return the key of a row in the table ``site_secret``."""
    return f"{recipient}/{epoch}"


def row_body(row: SecretRow) -> dict[str, Any]:
    """Return the fields of a row."""
    return {
        "epoch": row.epoch,
        "origin": row.origin,
        "kem_epoch": row.kem_epoch,
        "sealed": row.sealed,
    }


def read_row(author: str, key: str, body: Mapping[str, Any]) -> SecretRow | None:
    """Return a row as it was received, or None for garbage."""
    recipient, mark, epoch_text = key.partition("/")
    try:
        row = SecretRow(
            author=author,
            recipient=recipient,
            epoch=fields.integer(body, "epoch", least=1, most=EPOCH_MAX),
            origin=fields.text(body, "origin", chars_max=32),
            kem_epoch=fields.integer(body, "kem_epoch", least=1),
            sealed=fields.raw(body, "sealed", bytes_max=256),
        )
    except CodecError:
        return None
    if not mark or epoch_text != str(row.epoch):
        return None
    return (
        row if NODE_ID_PATTERN.match(recipient) and NODE_ID_PATTERN.match(row.origin) else None
    )


def seal_info(root_fp: bytes, site: str, row: SecretRow) -> SealInfo:
    """Return what a row's sealed bytes are bound to."""
    name = f"site-secret/{site}/{row.origin}"
    return SealInfo(root_fp, row.recipient, row.kem_epoch, name, row.epoch)


def epoch_least(rows: Collection[SecretRow], revoked: Collection[str]) -> int:
    """Return the lowest epoch that is accepted: above all that a revoked node could read."""
    exposed = [
        row.epoch
        for row in rows
        if row.recipient in revoked or row.author in revoked or row.origin in revoked
    ]
    return max(exposed, default=0) + 1


def plausible(rows: Sequence[SecretRow]) -> list[SecretRow]:
    """Drop rows whose epoch jumps so far that it can only be a mistake or sabotage."""
    kept: list[SecretRow] = []
    for row in sorted(rows, key=lambda row: row.epoch):
        if row.epoch <= (kept[-1].epoch if kept else 0) + EPOCH_STEP_MAX:
            kept.append(row)
    return kept


def candidates(
    me: str, rows: Collection[SecretRow], revoked: Collection[str]
) -> list[SecretRow]:
    """Return the rows that were sealed to us and are accepted, the one that holds first."""
    least = epoch_least(rows, revoked)
    ours = [row for row in rows if row.recipient == me and row.epoch >= least]
    return sorted(ours, key=lambda row: (row.rank, row.author))


def plan(
    me: str,
    members: Mapping[str, int],
    rows: Collection[SecretRow],
    revoked: Collection[str],
    *,
    held: tuple[int, str] | None,
    patient: bool,
) -> Plan:
    """Decide what this node does next.

    ``members``: the site's active nodes with the epoch of their X25519 key; ``held``: (epoch,
    origin) of the best secret that we could open; ``patient``: there is still time to wait.
    """
    least = epoch_least(rows, revoked)
    live = [row for row in rows if row.epoch >= least and row.author in members]
    if held is None or held[0] < least:
        if any(row.author != me for row in live) and patient:
            return Wait()
        return Make(max(max((row.epoch for row in rows), default=0) + 1, least))
    rank = (-held[0], held[1])
    if any(row.rank < rank for row in live):
        return Wait()
    served = {(row.recipient, row.kem_epoch) for row in live if row.rank == rank}
    needy = tuple(sorted(item[0] for item in members.items() if item not in served))
    return Seal(needy) if needy else Settled()
