"""The site secret as a service of a node: read it, make it, seal it to new members.

What to do is decided in ``mesh/proto/site_secret.py``; this shell reads rows, opens what was
sealed to this node and writes rows. It knows no job and no DHCP. Rule: a secret is kept in
memory only; on disk it stands sealed, also to ourselves.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from mesh.errors import CodecError, StoreFull
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.identity import Identity
from mesh.ports import StorePort, TxPort
from mesh.proto.seal import open_sealed, seal
from mesh.proto.site_secret import (
    SECRET_BYTES,
    Make,
    Plan,
    Seal,
    SecretRow,
    Wait,
    candidates,
    epoch_least,
    plan,
    plausible,
    read_row,
    row_body,
    row_key,
    seal_info,
)
from mesh.proto.tables import SITE_SECRET, site_scope
from mesh.proto.trust import REVOKED
from mesh.register_store import RegisterStore
from mesh.room import LOOK_S

PATIENCE_S: Final = 30.0
"""How long a node waits for another one to seal the secret to it before it makes an epoch."""
PACE_S: Final = 1.0
"""Least time between two looks at the rows."""
OPENED_MAX: Final = 256

log = get_log("site-secret")


class SiteSecrets:
    """The secrets of the site that this node belongs to."""

    def __init__(
        self,
        store: StorePort,
        register: RegisterStore,
        identity: Identity,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._register = register
        self._identity = identity
        self._entropy = entropy
        self._opened: dict[bytes, bytes | None] = {}  # sealed bytes -> secret
        self._secrets: dict[int, tuple[str, bytes]] = {}  # epoch -> (origin, secret)
        self._waiting_since: float | None = None

    def current(self) -> tuple[int, bytes] | None:
        """Return (epoch, secret) that holds now, None before the site has one that we know."""
        self._read()
        epoch = max(self._secrets, default=None)
        return None if epoch is None else (epoch, self._secrets[epoch][1])

    def secret(self, epoch: int) -> bytes | None:
        """Return the secret of an epoch, None when it is unknown or refused."""
        self._read()
        found = self._secrets.get(epoch)
        return found[1] if found else None

    async def ensure(self) -> Plan:
        """Do the next thing that is to be done; return what it was."""
        rows = self._read()
        members = self._members()
        best = max(self._secrets, default=None)
        held = None if best is None else (best, self._secrets[best][0])
        now_s = trio.current_time()
        patient = self._waiting_since is None or now_s < self._waiting_since + PATIENCE_S
        step = plan(
            self._identity.node_id, members, rows, self._revoked(), held=held, patient=patient
        )
        if isinstance(step, Wait):
            self._waiting_since = now_s if self._waiting_since is None else self._waiting_since
        else:
            self._waiting_since = None
        match step:
            case Make(epoch) if self._identity.node_id in members:
                secret = self._entropy(SECRET_BYTES)
                await self._seal(epoch, self._identity.node_id, secret, tuple(members))
                log.info("site secret made", epoch=epoch, count=len(members))
            case Seal(recipients) if held is not None:
                secret = self._secrets[held[0]][1]
                await self._seal(*held, secret, recipients)
                log.info("site secret sealed", epoch=held[0], count=len(recipients))
            case _:
                pass
        return step

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the secret known to every member of the site until cancelled."""
        step: Plan | None
        while True:
            try:
                step = await self.ensure()
            except StoreFull:
                step = None
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            if step is None:  # nothing was sealed: look again when there may be room
                await trio.sleep(LOOK_S)
                continue
            await trio.sleep(PACE_S)
            with trio.move_on_after(PATIENCE_S if isinstance(step, Wait) else 600.0):
                await self._changed()

    async def _changed(self) -> None:
        """Wait until the store or the register changes."""
        await first_of(
            partial(self._store.wait_past, self._store.version),
            partial(self._register.wait_past, self._register.version),
        )

    def _read(self) -> list[SecretRow]:
        """Read every row of the site; open what is ours; return the rows."""
        scope = site_scope(self._site())
        found = self._store.authored(scope, SITE_SECRET)
        rows = plausible(
            [row for raw in found if (row := read_row(raw.author, raw.key, raw.body))]
        )
        revoked = self._revoked()
        least = epoch_least(rows, revoked)
        self._secrets = {e: s for e, s in self._secrets.items() if e >= least}
        for row in reversed(candidates(self._identity.node_id, rows, revoked)):
            secret = self._open(row)
            if secret is not None:
                self._secrets[row.epoch] = (row.origin, secret)
        return rows

    def _open(self, row: SecretRow) -> bytes | None:
        if row.sealed not in self._opened:
            if len(self._opened) >= OPENED_MAX:
                self._opened.clear()
            info = seal_info(self._register.register.root_fp, self._site(), row)
            private = self._identity.sealed_to(row.kem_epoch)
            try:
                secret = open_sealed(private, info, row.sealed) if private else b""
                self._opened[row.sealed] = secret if len(secret) == SECRET_BYTES else None
            except CodecError:
                self._opened[row.sealed] = None
        return self._opened[row.sealed]

    async def _seal(
        self, epoch: int, origin: str, secret: bytes, recipients: tuple[str, ...]
    ) -> None:
        register, site = self._register.register, self._site()
        rows: list[SecretRow] = []
        for recipient in recipients:
            member = register.member(recipient)
            if member is None or member.kem_public is None:
                continue
            blank = SecretRow(
                self._identity.node_id, recipient, epoch, origin, member.kem_epoch, b""
            )
            try:
                sealed = seal(
                    member.kem_public, seal_info(register.root_fp, site, blank), secret
                )
            except CodecError:
                log.warning("member has no usable key", peer=recipient)
                continue
            rows.append(
                SecretRow(blank.author, recipient, epoch, origin, member.kem_epoch, sealed)
            )

        def put(tx: TxPort) -> None:
            for row in rows:
                tx.put(
                    site_scope(site), SITE_SECRET, row_key(row.recipient, epoch), row_body(row)
                )

        await self._store.write(put)

    def _site(self) -> str:
        member = self._register.register.member(self._identity.node_id)
        return member.site if member else ""

    def _members(self) -> dict[str, int]:
        """Return the key epochs of the site's active nodes that have a key."""
        return {
            member.node_id: member.kem_epoch
            for member in self._register.register.site_members(self._site())
            if member.kem_public is not None
        }

    def _revoked(self) -> set[str]:
        members = self._register.register.members()
        return {member.node_id for member in members if member.status == REVOKED}
