"""Asks origins whether they have other content, and has names moved to it.

It decides nothing itself (node/proto/revalidation.py, cache/proto/revalidation.py). Rules: what
an origin said stands in our CHECK rows, so whoever takes over asks on from there; new content
is read beside the old, which is served until a hub has signed that the name stands for the new;
a check that fails changes nothing but what people are told.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import trio

from cache.api import (
    Cache,
    CacheError,
    Checked,
    OriginError,
    Seen,
    check_origin,
    differs,
    seen_in,
)
from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto.beside import next_of
from mesh.proto.naming import SignedName
from mesh.proto.references import in_force, kind_of
from mesh.proto.tables import ASSET, CHECK, FLEET, REFERENCE
from node.proto.revalidation import (
    Check,
    Watched,
    due,
    integer,
    latest,
    watched,
    why_not_switched,
)

LOOK_S: Final = 20.0
"""How often it is looked which checks are due."""
CHECKS_MAX: Final = 4
"""Origins that are asked, or read, at the same time; the others wait."""
STALE_CHARS_MAX: Final = 500
log = get_log("assets")

Body = Mapping[str, Any]
Row = dict[str, Any]


class Revalidation:
    """The service of one node; ``signed`` returns what an assets key says of a name."""

    def __init__(
        self,
        *,
        node: str,
        site: str,
        cache: Cache,
        store: Any,
        clock: Clock,
        alive: Callable[[], list[str]],
        signed: Callable[[str], SignedName | None],
        site_of: Callable[[str], str | None],
        period_s_max: int = 0,
    ) -> None:
        """``period_s_max``: see ``node.config.Cache.revalidate_s_max``."""
        self._node, self._site, self._cache, self._store = node, site, cache, store
        self._clock, self._alive, self._signed, self._site_of = clock, alive, signed, site_of
        self._period_ms_max = period_s_max * 1000 or None
        self._look_s = min(LOOK_S, period_s_max / 4 or LOOK_S)
        self._busy: set[str] = set()
        self._limit = trio.CapacityLimiter(CHECKS_MAX)

    async def run(self) -> None:
        """Look what is due, and ask, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._look_s)
                for name, reference, named in self.due_now():
                    self._busy.add(name)
                    nursery.start_soon(self.carry_out, name, reference, named)
                try:
                    await self._end_old()
                except (StoreFull, Refused) as exc:
                    log.warning("checks not ended", error=exc)

    def due_now(self) -> list[tuple[str, Watched, SignedName]]:
        """Return the names to ask the origins of now, with what is known of them."""
        said: dict[str, list[Body]] = {}
        for row in self._store.authored(FLEET, CHECK):
            if self._site_of(row.author) == self._site:
                said.setdefault(row.key, []).append(row.body)
        same = {name: integer(latest(rows)[0].get("same")) for name, rows in said.items()}
        references = in_force(self._store.rows(FLEET, REFERENCE))
        found = watched(references, self._site, same, self._period_ms_max)
        named = {n: signed for n in found if (signed := self._signed(n)) is not None}
        checks = {
            name: [
                Check(signed.version),
                *(Check(integer(b.get("at_ms")), b.get("failed") is True)
                  for b in said.get(name, ())),
            ]
            for name, signed in named.items()
        }  # fmt: skip
        ours = {name: found[name] for name in named}
        names = due(
            self._node, [*self._alive(), self._node], ours, checks, self._clock.now_ms()
        )
        return [(name, found[name], named[name]) for name in names if name not in self._busy]

    async def _end_old(self) -> None:
        """End our rows of names that this site does not ask for any more."""
        references = in_force(self._store.rows(FLEET, REFERENCE))
        found = watched(references, self._site, {})
        rows = self._store.authored(FLEET, CHECK)
        old = [row.key for row in rows if row.author == self._node and row.key not in found]
        if old:
            await self._store.write(partial(_drop, names=old))

    async def carry_out(self, name: str, reference: Watched, named: SignedName) -> None:
        """Make one check that is due; never raises for an origin."""
        try:
            async with self._limit:
                await self._check(name, reference, named)
        except (StoreFull, Refused) as exc:
            log.warning("check not kept", name=name, error=exc)
        finally:
            self._busy.discard(name)

    async def _check(self, name: str, reference: Watched, named: SignedName) -> None:
        """Ask once, and do what follows."""
        rows = latest(
            row.body
            for row in self._store.authored(FLEET, CHECK)
            if row.key == name and self._site_of(row.author) == self._site
        )
        seen = _seen(named, rows)
        now_ms = self._clock.now_ms()
        heard = max((integer(row.get("ok_ms")) for row in rows), default=0) or None
        row: Row = {
            **_row(named.asset, seen), "at_ms": now_ms, "ok_ms": heard, "failed": False,
            "stale": None, "next": None, "same": 0,
        }  # fmt: skip
        try:
            checked = await check_origin(reference.url, seen)
        except OriginError as exc:
            log.warning("origin not asked", name=name, error=exc)
            row |= {"failed": True, "stale": f"its origin could not be asked: {exc}"}
            await self._save(name, row)
            return
        row["ok_ms"] = now_ms
        log.info("origin asked", name=name, state="changed" if checked.changed else "same")
        if not checked.changed:
            await self._save(name, row | _row(named.asset, checked.seen))
        elif (why := why_not_switched(name, reference)) is not None:
            await self._save(name, row | {"stale": why})
        else:
            await self._read_new(name, reference, named, checked, rows, row)

    async def _read_new(
        self,
        name: str,
        reference: Watched,
        named: SignedName,
        checked: Checked,
        rows: list[Body],
        row: Row,
    ) -> None:
        """Read what the origin has now, and claim it; the old content goes on being served."""
        beside = next_of(name)
        claimed = rows[0].get("next") if rows else None
        said = _read_seen(claimed)
        here = {state.asset for state in self._cache.assets() if state.name == beside}
        ours = isinstance(claimed, Mapping) and claimed.get("asset") in here
        if not ours or said is None or differs(said, checked.seen):
            self._cache.set_aside(beside)  # whole, but not what the origin has now
        kind = kind_of(self._reference(name))
        try:
            manifest = await self._cache.resolve(beside, reference.url, None, kind)
        except CacheError as exc:
            log.warning("new content not had", name=name, error=exc)
            stale = f"its origin has other content, which could not be had: {exc}"
            row |= {"failed": True, "stale": stale, "at_ms": self._clock.now_ms()}
            await self._save(name, row)
            return
        row["at_ms"] = self._clock.now_ms()
        if manifest.asset == named.asset:
            self._cache.set_aside(beside)
            count = integer(rows[0].get("same")) + 1 if rows else 1
            await self._save(name, row | _row(named.asset, checked.seen) | {"same": count})
            return
        log.info("origin has new content", name=name, asset=manifest.asset)
        row |= {
            "next": _row(manifest.asset, checked.seen),
            "stale": "its origin has other content, which is here and waits for a hub to"
            " sign the name",
        }
        claim = {
            "name": name, "asset": manifest.asset, "size": manifest.size,
            "sha256": manifest.sha256, "chunk_bytes": manifest.chunk_bytes, "trust": "tofu",
            "source_sha256": self._cache.source_of(beside), "replaces": named.asset,
        }  # fmt: skip
        await self._save(name, row, claim)

    def _reference(self, name: str) -> Body:
        row = self._store.get(FLEET, REFERENCE, name)
        body: Body = row.body if row is not None else {}
        return body

    async def _save(self, name: str, row: Row, claim: Row | None = None) -> None:
        stale = row["stale"]
        row = {**row, "stale": stale and stale[:STALE_CHARS_MAX]}
        await self._store.write(partial(_put, name=name, row=row, claim=claim))


def _put(tx: Any, name: str, row: Row, claim: Row | None) -> None:
    tx.put(FLEET, CHECK, name, row)
    if claim is not None:
        tx.put(FLEET, ASSET, name, claim)


def _drop(tx: Any, names: list[str]) -> None:
    for name in names:
        tx.drop(FLEET, CHECK, name)


def _row(asset: str, seen: Seen) -> Row:
    return {"asset": asset, "etag": seen.etag, "modified": seen.modified, "size": seen.size}


def _seen(named: SignedName, rows: list[Body]) -> Seen:
    """Return what the origin last said of the content that the name stands for.

    When nobody at the site knows: its size, unless it is that of something made from it.
    """
    for row in rows:
        for body in (row, row.get("next")):
            if isinstance(body, Mapping) and body.get("asset") == named.asset:
                found = _read_seen(body)
                if found is not None:
                    return found
    return Seen(size=None if named.source_sha256 else named.size)


def _read_seen(body: object) -> Seen | None:
    """Return what a row says that an origin said."""
    if not isinstance(body, Mapping):
        return None
    fields = {"etag": body.get("etag"), "last-modified": body.get("modified")}
    texts = {name: text for name, text in fields.items() if isinstance(text, str)}
    return seen_in({**texts, "content-length": str(integer(body.get("size")))})


def revalidation_of(node: Any) -> Revalidation:
    """Return the service of a ``node.main.Node``."""
    return Revalidation(
        node=node.identity.node_id, site=node.joined.site, cache=node.cache, store=node.store,
        clock=node.clock, alive=node.alive, signed=node.assets.signed, site_of=node.site_of,
        period_s_max=node.config.cache.revalidate_s_max,
    )  # fmt: skip
