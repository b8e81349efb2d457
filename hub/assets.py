"""The hub's part in assets: references, uploads, signed names, and chunks for nodes.

It knows what to sign from ``hub/proto/naming.py`` and how bytes are kept from the cache. Rules:
nothing gets a name but what satisfies its reference; what was uploaded here is served to
members over their links, chunk by chunk, and verified by them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from cache.api import Cache, CacheError, put_presence, rpc_handlers
from hub.errors import BadRequest, Conflict, NotFound
from hub.live import EventBus
from hub.proto.naming import Claim, Sign, Wanted, contradiction, decide, is_sha256, read_claim
from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.naming import NameReader, SignedName, sign_name
from mesh.proto.register import Register
from mesh.proto.sign import KeySigner
from mesh.proto.trust import ROLE_HUB
from mesh.proto.urls import why_no_url
from mesh.store import MeshStore, Row, Tx

PAUSE_S: Final = 0.1
PUBLISH_S: Final = 1.0
RETRY_S: Final = 5.0
"""After the store took no writes: its disk is full, or it was restored and met no peer yet."""
WANT_MAX: Final = 1000
REFERENCES_MAX: Final = 10_000
CONFLICTS_MAX: Final = 1000
URL_CHARS_MAX: Final = 2048
log = get_log("assets")

Handler = Callable[[str, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetParts:
    """What the asset desk works with."""

    store: MeshStore
    cache: Cache
    register: Register
    key: KeySigner
    bus: EventBus
    clock: Clock
    node_id: str


class AssetDesk:
    """References and content."""

    def __init__(self, parts: AssetParts) -> None:
        self._p = parts
        self._told: set[tuple[str, str]] = set()
        self._uploading: set[str] = set()
        self._names = NameReader(parts.register, _refused)

    # -- what operators ask ------------------------------------------------------------------

    async def declare(
        self, name: str, url: str | None, sha256: str | None, want: list[str]
    ) -> None:
        """Make or change a reference; sites that wanted it before go on wanting it."""
        if url is not None:
            check_url(url)
        if sha256 is not None and not is_sha256(sha256.lower()):
            raise BadRequest(f"sha256 must be 64 hexadecimal digits, not {sha256[:70]!r}")
        self._check_sites(want)
        sha256 = sha256.lower() if sha256 else None

        def write(tx: Tx) -> None:
            old = tx.get(tables.FLEET, tables.REFERENCE, name)
            before = old.body if old else {}
            signed = self._signed(tx.get(tables.FLEET, tables.NAME, name))
            if signed is not None:
                had = before.get("url")
                refusal = contradiction(name, signed.sha256, had, url, sha256)
                if refusal is not None:
                    raise Conflict(refusal)
            if old is None and len(tx.rows(tables.FLEET, tables.REFERENCE)) >= REFERENCES_MAX:
                raise Conflict(f"there are {REFERENCES_MAX} assets already")
            body = {
                **before, "name": name, "url": url,
                "sha256": sha256 or (before.get("sha256") if signed else None),
                "kind": before.get("kind", "image"),
                "want": _union(before.get("want"), want),
                "created_ms": before.get("created_ms", tx.now_ms),
            }  # fmt: skip
            tx.put(tables.FLEET, tables.REFERENCE, name, body)

        await self._p.store.write(write)

    async def want(self, name: str, site: str) -> None:
        """Make a site hold the asset."""
        self._check_sites([site])

        def write(tx: Tx) -> None:
            old = tx.get(tables.FLEET, tables.REFERENCE, name)
            if old is None:
                raise NotFound(f"there is no asset {name[:60]!r}")
            body = {**old.body, "want": _union(old.body.get("want"), [site])}
            tx.put(tables.FLEET, tables.REFERENCE, name, body)

        await self._p.store.write(write)

    async def unwant(self, name: str, site: str) -> None:
        """Let a site drop the asset when it needs the room."""

        def write(tx: Tx) -> None:
            old = tx.get(tables.FLEET, tables.REFERENCE, name)
            if old is None:
                raise NotFound(f"there is no asset {name[:60]!r}")
            want = _union(old.body.get("want"), [])
            if site not in want:
                raise NotFound(f"site {site!r} does not want {name}")
            body = {**old.body, "want": [one for one in want if one != site]}
            tx.put(tables.FLEET, tables.REFERENCE, name, body)

        await self._p.store.write(write)

    def _check_sites(self, sites: list[str]) -> None:
        known = {row.key for row in self._p.store.rows(tables.FLEET, tables.SITE)}
        for site in sites:
            if site not in known:
                raise NotFound(f"there is no site {site!r}; see site list")

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep content here and sign its name."""
        reference = self._p.store.get(tables.FLEET, tables.REFERENCE, name)
        if reference is None:
            raise NotFound(f"there is no asset {name[:60]!r}; register it first")
        if name in self._uploading:
            raise Conflict(f"{name} is being uploaded by somebody else")
        signed = self._signed(self._p.store.get(tables.FLEET, tables.NAME, name))
        declared = signed.sha256 if signed is not None else _declared(reference)
        self._uploading.add(name)
        try:
            manifest = await self._p.cache.add_stream(name, chunks, declared)
        except CacheError as exc:
            raise Conflict(str(exc)) from exc
        finally:
            self._uploading.discard(name)
        claim = Claim(
            self._p.node_id, None, 0, name, manifest.asset, manifest.size, manifest.sha256
        )
        if signed is None:
            await self._sign(claim, "declared-sha256" if declared else "upload")

    # -- names -------------------------------------------------------------------------------

    def names(self) -> dict[str, SignedName]:
        """Return the names that the assets key of today signed."""
        rows = self._p.store.rows(tables.FLEET, tables.NAME)
        return {row.key: named for row in rows if (named := self._signed(row)) is not None}

    def _signed(self, row: Row | None) -> SignedName | None:
        """Return what the assets key says in a NAME row, None when it does not."""
        return self._names.read(row.key, row.body.get("signed")) if row else None

    async def sign_claims(self) -> int:
        """Sign what may be signed now, report what contradicts; return how many names."""
        store = self._p.store
        references = {
            row.key: Wanted(_declared(row), frozenset(_union(row.body.get("want"), [])))
            for row in store.rows(tables.FLEET, tables.REFERENCE)
        }
        claims = [
            claim
            for row in store.authored(tables.FLEET, tables.ASSET)
            if (claim := self._claim(row)) is not None
        ]
        names = {name: (n.asset, n.sha256) for name, n in self.names().items()}
        count = 0
        for step in decide(references, names, claims):
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
            claim.name, claim.asset, claim.size, claim.sha256, self._p.clock.now_ms()
        )
        signed = sign_name(self._p.key, self._p.register.root_fp, named)
        body = {
            "name": claim.name, "asset": claim.asset, "size": claim.size,
            "sha256": claim.sha256, "signed": signed, "trust": trust, "by": claim.author,
        }  # fmt: skip
        await self._p.store.write(
            lambda tx: tx.put(tables.FLEET, tables.NAME, claim.name, body)
        )
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


def _refused(name: str, reason: str) -> None:
    log.warning("name refused", name=name, error=reason)


def check_url(url: str) -> None:
    """Refuse what no node could fetch; credentials have no place in a shared reference."""
    wrong = why_no_url(url, URL_CHARS_MAX)
    if wrong is not None:
        raise BadRequest(f"url {wrong}")


def _union(before: Any, more: list[str]) -> list[str]:
    kept = (
        [site for site in before if isinstance(site, str)] if isinstance(before, list) else []
    )
    found = sorted({*kept, *more})
    if len(found) > WANT_MAX:
        raise BadRequest(f"at most {WANT_MAX} sites can want an asset")
    return found


def _declared(row: Row) -> str | None:
    sha256 = row.body.get("sha256")
    return sha256.lower() if isinstance(sha256, str) and is_sha256(sha256.lower()) else None
