"""The hub's part in content: uploads, signed names, and chunks for nodes.

What operators say of names stands in ``hub/references.py``. It knows what to sign from
``hub/proto/naming.py`` and how bytes are kept from the cache. Rules: nothing gets a name but
what satisfies its reference; what was uploaded here is served to members over their links,
chunk by chunk, and verified by them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from cache.api import CacheError, put_presence, rpc_handlers
from hub.errors import Conflict, NotFound
from hub.proto.naming import Claim, Past, Sign, Wanted, decide, is_sha256, read_claim
from hub.references import AssetParts, References
from mesh.errors import Refused, StoreFull
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.content import LIVE
from mesh.proto.naming import SignedName
from mesh.proto.references import in_force, kind_of, period_of, sites_of
from mesh.proto.trust import ROLE_HUB
from mesh.store import Row, Tx

__all__ = ["AssetDesk", "AssetParts"]

PAUSE_S: Final = 0.1
PUBLISH_S: Final = 1.0
RETRY_S: Final = 5.0
"""After the store took no writes: its disk is full, or it was restored and met no peer yet."""
CONFLICTS_MAX: Final = 1000
log = get_log("assets")

Handler = Callable[[str, Any], Awaitable[Any]]


class AssetDesk(References):
    """References and content."""

    def __init__(self, parts: AssetParts) -> None:
        super().__init__(parts)
        self._told: set[tuple[str, str]] = set()
        self._uploading: set[str] = set()

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep content here and sign its name."""
        row = self._p.store.get(tables.FLEET, tables.REFERENCE, name)
        if row is None or row.body.get("removed_ms"):
            raise NotFound(f"there is no asset {name[:60]!r}; register it first")
        kind = kind_of(row.body)
        if kind == LIVE:
            raise Conflict(f"{name} is a live system; upload its members")
        if name in self._uploading:
            raise Conflict(f"{name} is being uploaded by somebody else")
        signed = self._signed(self._p.store.get(tables.FLEET, tables.NAME, name))
        declared = signed.published if signed is not None else _declared(row.body)
        made = signed.sha256 if signed is not None and signed.source_sha256 else None
        self._uploading.add(name)
        try:
            manifest = await self._p.cache.add_stream(name, chunks, declared, kind, made)
        except CacheError as exc:
            raise Conflict(str(exc)) from exc
        finally:
            self._uploading.discard(name)
        claim = Claim(
            self._p.node_id, None, 0, name, manifest.asset, manifest.size, manifest.sha256,
            self._p.cache.source_of(name),
        )  # fmt: skip
        if signed is None:
            await self._sign(claim, "declared-sha256" if declared else "upload")

    # -- names -------------------------------------------------------------------------------

    async def sign_claims(self) -> int:
        """Sign what may be signed now, report what contradicts; return how many names.

        A hub whose assets key is not named signs nothing: nobody would believe it.
        """
        store = self._p.store
        if self._p.key.public not in self._p.register.role_key("assets"):
            return 0
        references = {
            name: Wanted(_declared(body), frozenset(sites_of(body)), _moves(body))
            for name, body in in_force(store.rows(tables.FLEET, tables.REFERENCE)).items()
        }
        claims = [
            claim
            for row in store.authored(tables.FLEET, tables.ASSET)
            if (claim := self._claim(row)) is not None
        ]
        names = {name: (n.asset, n.sha256) for name, n in self.names().items()}
        count = 0
        pasts = {row.key: _past(row) for row in store.rows(tables.FLEET, tables.NAME)}
        for step in decide(references, names, claims, pasts):
            if isinstance(step, Sign):
                trust = "declared-sha256" if step.declared else "tofu"
                await self._sign(step.claim, trust)
                count += 1
            else:
                self._report(step.claim)
        return count

    def _claim(self, row: Row) -> Claim | None:
        member = self._p.register.member(row.author)
        if member is None or not self._p.register.active(row.author):
            return None
        site = None if ROLE_HUB in member.roles else member.site
        return read_claim(row.author, site, row.hlc, row.key, row.body)

    async def _sign(self, claim: Claim, trust: str) -> None:
        named = SignedName(
            claim.name, claim.asset, claim.size, claim.sha256, self._p.clock.now_ms(),
            claim.source_sha256,
        )  # fmt: skip
        await self._p.store.write(lambda tx: self._put_name(tx, named, trust, claim.author))
        log.info("name signed", name=claim.name, asset=claim.asset, node=claim.author)

    def _report(self, claim: Claim) -> None:
        """Tell people once that a node found something else than what holds."""
        if (claim.name, claim.asset) in self._told or len(self._told) >= CONFLICTS_MAX:
            return
        self._told.add((claim.name, claim.asset))
        log.warning("content differs", name=claim.name, asset=claim.asset, node=claim.author)
        self._p.bus.publish("asset", id=claim.name, conflict=claim.sha256, node=claim.author)

    def conflicts(self) -> list[str]:
        """Return the names of which a node found other content than what holds."""
        return sorted({name for name, _ in self._told})

    # -- for members -------------------------------------------------------------------------

    def rpc_handlers(self) -> dict[str, Handler]:
        """Return the calls with which nodes take chunks from here."""
        return rpc_handlers(self._p.cache)

    # -- the service -------------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Sign what comes in and say what is here, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            task_status.started()
            while True:
                version = self._p.store.version
                try:
                    await self.sign_claims()
                except (Refused, StoreFull) as exc:
                    log.warning("names not signed", error=exc)
                    await trio.sleep(RETRY_S)
                    continue
                await trio.sleep(PAUSE_S)
                await self._p.store.wait_past(version)

    async def _publish(self) -> None:
        """Let our PRESENCE rows follow the cache."""
        while True:
            version = self._p.cache.version
            try:
                await self._p.store.write(self._write_presence)
            except (Refused, StoreFull) as exc:
                log.warning("presence not said", error=exc)
                await trio.sleep(RETRY_S)
                continue
            await trio.sleep(PUBLISH_S)
            await self._p.cache.wait_past(version)

    def _write_presence(self, tx: Tx) -> None:
        put_presence(tx, self._p.node_id, "", self._p.cache)


def _moves(reference: Mapping[str, Any]) -> bool:
    return isinstance(reference.get("url"), str) and period_of(reference) is not None


def _past(row: Row) -> Past:
    replaced = row.body.get("replaced")
    texts = replaced if isinstance(replaced, list) else []
    return Past(row.hlc, frozenset(text for text in texts if isinstance(text, str)))


def _declared(reference: Mapping[str, Any]) -> str | None:
    sha256 = reference.get("sha256")
    return sha256.lower() if isinstance(sha256, str) and is_sha256(sha256.lower()) else None
