"""The node's assets: watches what is wanted, keeps transfers going, says what is here.

It knows the store's rows, the links and the cache, and decides nothing itself
(node/proto/residency.py). Rules: one transfer per name; our PRESENCE rows follow the cache
within a second; a NAME counts only under the organisation's assets key.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

import trio

from cache.api import Cache, CacheError, ContentMismatch, Manifest, Members, put_presence
from mesh.errors import StoreFull
from mesh.host.first_of import first_of
from mesh.host.log import get_log
from mesh.proto.naming import SignedName
from mesh.proto.references import in_force, sites_of
from mesh.proto.tables import ASSET, FLEET, NAME, PRESENCE, REFERENCE
from node.holders import Holders
from node.proto.eviction import evictable
from node.proto.residency import (
    Fetch,
    Follow,
    Holder,
    Order,
    Resolve,
    View,
    decide,
    sharing,
    waits_for,
)

PUBLISH_S: Final = 1.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
MISMATCH_S: Final = 3600.0
"""Pause after an origin gave other bytes than were declared, unless the reference changes: the
same bytes would most likely come again, all of them."""
WANTED_MAX: Final = 256
SUMMON_S: Final = 50.0
"""How long a machine waits for an asset to begin to arrive; below ``HttpLimits.handler_s``."""
SUMMONED_MAX: Final = 8
log = get_log("assets")

Name = dict[str, Any]


class Assets:
    """The service; ``want`` makes it fetch a name for local work."""

    def __init__(
        self,
        *,
        node: str,
        site: str,
        cache: Cache,
        store: Any,
        peers: Any,
        alive: Callable[[], Sequence[str]],
        read_name: Callable[[str, object], SignedName | None],
        site_of: Callable[[str], str | None],
        site_nodes: Callable[[], Collection[str]],
        clear: bool = True,
    ) -> None:
        """``site_of``: where the roster has an active member, None for anybody else;
        ``site_nodes``: the active nodes that it has at our site, alive or not; ``clear``:
        take chunks from these in clear."""
        self._node, self._site, self._cache, self._store = node, site, cache, store
        self._peers, self._alive, self._read_name = peers, alive, read_name
        self._site_of, self._site_nodes = site_of, site_nodes
        self._clear = clear
        self._busy: dict[str, trio.CancelScope] = {}
        self._for_site: set[str] = set()
        """Of what is busy, what the site wanted when it began."""
        self._failures: dict[str, tuple[int, float]] = {}
        self._mismatched: dict[str, tuple[Resolve, float]] = {}
        self._wanted: Counter[str] = Counter()
        self._begun: Counter[tuple[str, str]] = Counter()
        self._summoned: Counter[str] = Counter()
        self._bell = trio.Event()

    # -- for local work ----------------------------------------------------------------------

    def named(self) -> dict[str, str]:
        """Return the asset ids behind all signed names."""
        return {name: str(body["asset"]) for name, body in self._names().items()}

    def asset_of(self, name: str) -> str | None:
        """Return the asset id behind one signed name."""
        found = self.signed(name)
        return found.asset if found is not None else None

    def signed(self, name: str) -> SignedName | None:
        """Return what an assets key of today says of one name."""
        row = self._store.get(FLEET, NAME, name)
        return self._read_name(name, row.body.get("signed")) if row is not None else None

    async def want(
        self, name: str, asset: str, progress: Callable[[int, int], Awaitable[None]]
    ) -> None:
        """Return when the asset is whole here; fetch it first. Never gives up by itself."""
        assert len(self._wanted) < WANTED_MAX
        self._wanted[name] += 1
        self._begun[name, asset] += 1
        self._bell.set()
        try:
            while not self._cache.holds(asset):
                version = self._cache.version
                for state in self._cache.assets():
                    if state.asset == asset:
                        await progress(state.have, state.of)
                await self._cache.wait_past(version)
        finally:
            self._wanted -= Counter([name])
            self._begun -= Counter([(name, asset)])

    async def summon(self, asset: str) -> Callable[[], None] | None:
        """Let an asset be brought here that a machine asks for (``node/boot/ports.py``).

        Waits until it is here or arrives chunk by chunk, or ``SUMMON_S``. Machines ask without
        a word of who they are, so only what hubs have signed comes, a few names at a time.
        """
        name = next((n for n, found in self.named().items() if found == asset), None)
        if name is None or (name not in self._summoned and len(self._summoned) >= SUMMONED_MAX):
            return None
        for counted in (self._summoned, self._wanted):
            counted[name] += 1
        self._bell.set()

        def done() -> None:
            for counted in (self._summoned, self._wanted):
                counted[name] -= 1
                if not counted[name]:
                    del counted[name]

        try:
            with trio.move_on_after(SUMMON_S):
                while self._cache.reader(asset) is None:
                    await self._cache.wait_past(self._cache.version)
        except BaseException:
            done()
            raise
        return done

    def trouble(self, name: str) -> str | None:
        """Return why a name does not come forward, in one sentence."""
        for state in self._cache.assets():
            if state.name == name and state.error:
                return state.error
        return None

    def waits_for(self, name: str) -> str | None:
        """Return what a wanted name waits for before it is on its way here, if anything."""
        return waits_for(self.view(), name)

    def evictable(self, in_use: Collection[str]) -> list[str]:
        """Return what may go when the disk is short; ``in_use``: what jobs work with."""
        states = sorted(self._cache.assets(), key=lambda state: state.updated_ms)
        shelf = [(s.asset, s.name) for s in states if s.asset and self._cache.holds(s.asset)]
        return evictable(self.view(), shelf, in_use)

    # -- the service -------------------------------------------------------------------------

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep transfers going until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            task_status.started()
            while True:
                version = self._store.version
                self._bell = trio.Event()
                view = self.view()
                for name in view.names.keys() - self._busy.keys():
                    self._cache.settle(name, str(view.names[name]["asset"]))
                self._let_go(view)
                for order in decide(view):
                    if self._due(order):
                        self._busy[order.name] = trio.CancelScope()
                        if self._site in sites_of(view.references.get(order.name, {})):
                            self._for_site.add(order.name)
                        nursery.start_soon(self._carry_out, order)
                with trio.move_on_after(RETRY_FIRST_S):
                    await first_of(partial(self._store.wait_past, version), self._bell.wait)

    def _let_go(self, view: View) -> None:
        """End what was begun for the site, which does not want it any more, nor work here."""
        for name in self._for_site - self._wanted.keys():
            if self._site not in sites_of(view.references.get(name, {})):
                self._busy[name].cancel()

    def _due(self, order: Order) -> bool:
        now = trio.current_time()
        wrong, wrong_until = self._mismatched.get(order.name, (None, 0.0))
        if wrong == order and now < wrong_until:
            return False
        _, rest_until = self._failures.get(order.name, (0, 0.0))
        return order.name not in self._busy and now >= rest_until

    def view(self) -> View:
        """Return all that the decisions about assets rest on, as it is now."""
        return View(
            node=self._node,
            site=self._site,
            alive=[*self._alive(), self._node],
            site_nodes=self._site_nodes(),
            references=in_force(self._store.rows(FLEET, REFERENCE)),
            names=self._names(),
            holders=self._holders(),
            held=[
                state.asset
                for state in self._cache.assets()
                if state.asset and self._cache.holds(state.asset)
            ],
            wanted=frozenset(self._wanted),
            claimed={
                row.key: str(row.body.get("source_sha256") or row.body.get("sha256"))
                for row in self._store.authored(FLEET, ASSET)
                if row.author == self._node
            },
            failed=self._said("failed"),
            reading=self._said("fetching"),
            begun=frozenset(self._begun),
        )

    def _names(self) -> dict[str, Name]:
        names: dict[str, Name] = {}
        for row in self._store.rows(FLEET, NAME):
            found = self._read_name(row.key, row.body.get("signed"))
            if found is not None:
                names[row.key] = {
                    "asset": found.asset, "sha256": found.sha256,
                    "source_sha256": found.source_sha256,
                }  # fmt: skip
        return names

    def _holders(self) -> dict[str, list[Holder]]:
        found: dict[str, list[Holder]] = {}
        for row in self._store.authored(FLEET, PRESENCE):
            have, of = row.body.get("have"), row.body.get("of")
            if not (isinstance(have, int) and isinstance(of, int) and have > 0):
                continue
            site = self._site_of(row.author)
            if site is not None:
                found.setdefault(row.key, []).append(Holder(row.author, site, have == of))
        return found

    def _said(self, state: str) -> set[tuple[str, str]]:
        """Return (node, name) of our site where a name has a state."""
        return {
            (row.author, str(row.body.get("name")))
            for row in self._store.authored(FLEET, PRESENCE)
            if row.body.get("state") == state and self._site_of(row.author) == self._site
        }

    async def _carry_out(self, order: Order) -> None:
        try:
            with self._busy[order.name]:
                if isinstance(order, Follow):
                    await self._follow(order)
                else:
                    await self._get(order)
        finally:
            self._for_site.discard(order.name)
            del self._busy[order.name]
            self._bell.set()

    async def _follow(self, order: Follow) -> None:
        """Keep up with whoever reads the origin; ends with that, and a while later again."""
        name = order.name
        try:
            async with Holders(self, name, "").open() as holders:
                took = await self._cache.mirror(name, partial(holders.growth, order.node, name))
            log.info("followed", name=name, peer=order.node, bytes=took)
        except (CacheError, StoreFull) as exc:
            log.info("not followed", name=name, peer=order.node, error=exc)
        self._failures[name] = (0, trio.current_time() + RETRY_FIRST_S)

    async def _get(self, order: Resolve | Fetch) -> None:
        name = order.name
        try:
            if isinstance(order, Resolve):
                manifest = await self._cache.resolve(
                    name, order.url, order.sha256, order.kind, order.made_sha256
                )
                await self._claim(name, manifest.asset, manifest.size, manifest.sha256, order)
            else:
                async with Holders(self, name, order.asset).open() as holders:
                    await self._cache.fetch(name, order.asset, holders, order.sha256)
            self._failures.pop(name, None)
        except (CacheError, StoreFull) as exc:
            if isinstance(exc, ContentMismatch) and isinstance(order, Resolve):
                until = trio.current_time() + MISMATCH_S
                self._mismatched[name] = (order, until)
            count = self._failures.get(name, (0, 0.0))[0] + 1
            span = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(count - 1, 10))
            pause = span * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret
            self._failures[name] = (count, trio.current_time() + pause)
            log.warning("asset not had", name=name, attempt=count, error=exc, s=round(pause, 1))

    async def _claim(
        self, name: str, asset: str, size: int, sha256: str, order: Resolve
    ) -> None:
        """Say what the reference turned out to be; a hub signs the name."""
        body = {
            "name": name, "asset": asset, "size": size, "sha256": sha256,
            "chunk_bytes": 1 << 20, "trust": "declared-sha256" if order.sha256 else "tofu",
            "source_sha256": self._cache.source_of(name),
        }  # fmt: skip

        def write(tx: Any) -> None:
            tx.put(FLEET, ASSET, name, body)

        await self._store.write(write)

    async def _publish(self) -> None:
        """Let our PRESENCE rows follow the cache."""
        while True:
            version = self._cache.version
            try:
                await self._store.write(self._write_presence)
            except StoreFull as exc:
                log.warning("presence not said", error=exc)
                await trio.sleep(RETRY_MAX_S)
                continue
            await trio.sleep(PUBLISH_S)
            await self._cache.wait_past(version)

    def _write_presence(self, tx: Any) -> None:
        put_presence(tx, self._node, self._site, self._cache)

    def members_of(self, name: str, asset: str) -> Members:
        """Return from whom an asset is taken now, and with whom that is shared."""
        found = sharing(self.view(), name, asset)
        return Members(self._node, found.sources, found.fellows, found.ring)

    def is_near(self, node: str) -> bool:
        """Tell whether the roster has a node at our own site."""
        return self._site_of(node) == self._site

    def manifest(self, asset: str) -> Manifest | None:
        """Return what an asset is, once that is known here."""
        return self._cache.manifest(asset)

    def in_clear(self, node: str) -> bool:
        """Tell whether chunks may be taken from a node in clear."""
        return self._clear and self.is_near(node)

    def open_bulk(self, node: str) -> Any:
        """Return the context manager of a bulk link to a node."""
        return self._peers.bulk(node)
