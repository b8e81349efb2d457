"""Replacing this node's X25519 key: monthly, on demand, and after a restore.

It knows no link; ``renew_links`` is told when new ones are to be made. Rules: the new private
key is on disk before anybody sees its record; the record goes into the register at once, so it
is out with the next exchange, and every later handshake shows it; replaced keys stay as long
as a secret opens with them alone, and for KEPT_MS. When the register knows a later key of ours
than we do (we were restored, or run twice), a still later one is made, one in RESTORED_S.
"""

import math
import os
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import trio

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.identity import Identity
from mesh.ports import StorePort, TxPort
from mesh.proto.key_age import is_due, may_go
from mesh.proto.tables import SECRET_COPY, site_scope
from mesh.proto.trust import KEY
from mesh.register_store import RegisterStore
from mesh.secrets import sealed_anew, to_seal_anew

CHECK_S: Final = 3600.0
RESTORED_S: Final = 3600.0
SETTLE_S: Final = 1.0
"""Pause between two looks at the register."""

log = get_log("keys")


class KeyRotation:
    """The X25519 key of one identity, over its life."""

    def __init__(
        self,
        identity: Identity,
        register: RegisterStore,
        store: StorePort,
        clock: Clock,
        renew_links: Callable[[str], None],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._identity = identity
        self._register = register
        self._store = store
        self._clock = clock
        self._renew_links = renew_links
        self._entropy = entropy
        self._spread = identity.public[0] / 255
        self._restored_at = -RESTORED_S

    def rotate(self, why: str) -> int:
        """Make a new key, durably, and show it; return its epoch. Raises Refused."""
        identity = self._identity
        known = self._register.register.member(identity.node_id)
        try:
            identity.renew(known.kem_epoch if known else 0, self._clock.now_ms(), self._entropy)
        except OSError as exc:
            raise Refused(
                f"the new key cannot be written ({exc.strerror}); the old one is still in use"
            ) from exc
        self._show()
        log.info("key replaced", epoch=identity.kem_epoch, reason=why)
        self._renew_links("this node has a new key")
        return identity.kem_epoch

    def check(self) -> None:
        """Show our record if the register lacks it; replace the key when that is due."""
        identity = self._identity
        known = self._register.register.member(identity.node_id)
        if known is not None:
            ours, theirs = identity.kem_epoch, known.kem_epoch
            lost = theirs > ours or (theirs == ours and known.kem_public != identity.kem_public)
            if lost:
                self._after_restore()
            elif self._register.register.record(KEY, identity.node_id) != identity.key_record:
                self._show()
        if is_due(identity.kem_made_ms, self._clock.now_ms(), self._spread):
            self._try_rotate("its time has come")

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the key fresh until cancelled; started when that was looked at once."""
        self.check()
        task_status.started()
        tidied: tuple[int, float] = (0, -math.inf)
        while True:
            version, now_s = self._register.version, trio.current_time()
            if tidied[0] != self._identity.kem_epoch or now_s >= tidied[1] + CHECK_S:
                tidied = (self._identity.kem_epoch, now_s)
                await self._tidy()
            with trio.move_on_after(CHECK_S):
                await self._register.wait_past(version)
            await trio.sleep(SETTLE_S)
            self.check()

    async def _tidy(self) -> None:
        """Seal to the key of today what a replaced one opens; forget keys that open nothing."""
        store, register, identity = self._store, self._register.register, self._identity
        member = register.member(identity.node_id)
        if not identity.replaced() or member is None:
            return
        rows = sealed_anew(store, register, identity) if member.site else {}
        scope = site_scope(member.site)

        def put(tx: TxPort) -> None:
            for key, body in rows.items():
                tx.put(scope, SECRET_COPY, key, body)

        try:
            if rows:
                await store.write(put)
                log.info("secrets sealed anew", count=len(rows), epoch=identity.kem_epoch)
        except (Refused, StoreFull):
            pass  # restored or full: the next look does it
        needed = set(to_seal_anew(store, register, identity).values())
        made = {**identity.replaced(), identity.kem_epoch: identity.kem_made_ms}
        order = sorted(made)
        now_ms = self._clock.now_ms()
        gone = [
            epoch
            for epoch, after in pairwise(order)
            if epoch not in needed and may_go(made[after], now_ms)
        ]
        try:
            identity.forget(gone)
        except OSError as exc:
            log.warning("old keys not deleted", error=exc.strerror)

    def _after_restore(self) -> None:
        if trio.current_time() < self._restored_at + RESTORED_S:
            return  # not again and again: somebody else runs with this identity
        self._restored_at = trio.current_time()
        log.warning(
            "the register knows a later key of this node", epoch=self._identity.kem_epoch
        )
        self._try_rotate("a later key of this node is known")

    def _try_rotate(self, why: str) -> None:
        try:
            self.rotate(why)
        except Refused as exc:
            log.error("key not replaced", error=str(exc))

    def _show(self) -> None:
        try:
            self._register.merge(self._identity.key_record)
        except StoreFull:
            pass  # it holds for this process; the file of keys shows it after a restart
