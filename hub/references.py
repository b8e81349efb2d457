"""References: the names under which operators register content, and which sites want it.

It knows rows, no bytes. Rules: what a name was signed for it stands for for good, so whatever
would change that is refused with the sentence that says what to do instead; a name goes only
when nothing rests on it; the parts of a live system are references of their own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cache.api import Cache
from hub.errors import BadRequest, Conflict, NotFound
from hub.live import EventBus
from hub.ports import Declaration
from hub.proto.naming import contradiction, is_sha256
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.proto import tables
from mesh.proto.content import FILE, IMAGE, ISO, KINDS, LIVE
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.naming import NameReader, SignedName, sign_name
from mesh.proto.references import (
    KERNEL,
    MEMBERS_MAX,
    PERIOD_MS_MAX,
    PERIOD_MS_MIN,
    ROLES,
    in_force,
    kind_of,
    members_of,
    parents,
    pinned_at,
    sites_of,
    why_no_cmdline,
)
from mesh.proto.register import Register
from mesh.proto.sign import KeySigner
from mesh.proto.urls import why_no_url
from mesh.store import MeshStore, Row, Tx

WANT_MAX: Final = 1000
REFERENCES_MAX: Final = 10_000
URL_CHARS_MAX: Final = 2048
REPLACED_MAX: Final = 8
"""Assets that a name stood for before, which are told from conflicts; older ones are not."""
_OVER: Final = frozenset({"succeeded", "failed", "cancelled", "refused"})
log = get_log("assets")


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


class References:
    """Takes what operators say of names."""

    def __init__(self, parts: AssetParts) -> None:
        self._p = parts
        self._names = NameReader(parts.register, _refused)

    async def declare(self, asked: Declaration) -> None:
        """Make or change a reference; sites that wanted it before go on wanting it."""
        _check_form(asked)
        self._check_sites(asked.want)
        asked = replace(asked, sha256=asked.sha256.lower() if asked.sha256 else None)

        def write(tx: Tx) -> None:
            old = tx.get(tables.FLEET, tables.REFERENCE, asked.name)
            before = old.body if old else {}
            signed = self._signed(tx.get(tables.FLEET, tables.NAME, asked.name))
            kind = asked.kind or (kind_of(before) if before else IMAGE)
            _check_parts(asked, kind, in_force(tx.rows(tables.FLEET, tables.REFERENCE)))
            if signed is not None:
                _check_signed(asked, before, signed, kind)
            elif before and not before.get("removed_ms") and LIVE in (kind, kind_of(before)):
                _check_live(asked, before, kind)
            if old is None and len(tx.rows(tables.FLEET, tables.REFERENCE)) >= REFERENCES_MAX:
                raise Conflict(f"there are {REFERENCES_MAX} assets already")
            body = {
                "name": asked.name, "url": asked.url,
                "sha256": asked.sha256 or (before.get("sha256") if signed else None),
                "kind": kind, "want": _union(sites_of(before), asked.want),
                "pin": [] if before.get("removed_ms") else pinned_at(before),
                "created_ms": before.get("created_ms", tx.now_ms),
            } | _revalidation(asked, before)  # fmt: skip
            if kind == LIVE:
                body |= {"members": [dict(m) for m in asked.members], "cmdline": asked.cmdline}
            tx.put(tables.FLEET, tables.REFERENCE, asked.name, body)

        await self._p.store.write(write)

    async def want(self, name: str, site: str) -> None:
        """Make a site hold the asset."""
        await self._add(name, site, "want", sites_of)

    async def unwant(self, name: str, site: str) -> None:
        """Let a site drop the asset when it needs the room."""

        def write(tx: Tx) -> None:
            body = _there(tx, name)
            references = in_force(tx.rows(tables.FLEET, tables.REFERENCE))
            whole = [p for p in parents(references, name) if site in references[p]["want"]]
            if whole:
                raise Conflict(f"{site} wants {name} as a part of {whole[0]}; unwant that")
            if site not in sites_of(body):
                raise NotFound(f"site {site!r} does not want {name}")
            want = [wanting for wanting in sites_of(body) if wanting != site]
            tx.put(tables.FLEET, tables.REFERENCE, name, {**body, "want": want})

        await self._p.store.write(write)

    async def pin(self, name: str, site: str) -> None:
        """Let what a site holds of the asset stay there, whether it wants it or not."""
        await self._add(name, site, "pin", pinned_at)

    async def unpin(self, name: str, site: str) -> None:
        """Take a pin away again."""

        def write(tx: Tx) -> None:
            body = _there(tx, name)
            if site not in pinned_at(body):
                raise NotFound(f"{name} is not pinned at {site!r}")
            pin = [pinned for pinned in pinned_at(body) if pinned != site]
            tx.put(tables.FLEET, tables.REFERENCE, name, {**body, "pin": pin})

        await self._p.store.write(write)

    async def _add(
        self, name: str, site: str, field: str, read: Callable[[Mapping[str, Any]], list[str]]
    ) -> None:
        """Add a site to one of the lists of sites of a reference."""
        self._check_sites([site])

        def write(tx: Tx) -> None:
            body = _there(tx, name)
            put = {**body, field: _union(read(body), [site])}
            tx.put(tables.FLEET, tables.REFERENCE, name, put)

        await self._p.store.write(write)

    async def clone(self, old: str, new: str, want: list[str], cmdline: str | None) -> None:
        """Make another name for the same content, with its own sites and command line."""
        self._check_sites(want)

        def write(tx: Tx) -> None:
            body = _there(tx, old)
            there = tx.get(tables.FLEET, tables.REFERENCE, new)
            if there is not None:
                raise Conflict(f"{new} is taken; take another name")
            if cmdline is not None and kind_of(body) != LIVE:
                raise BadRequest(f"{old} is no live system, so it has no command line")
            signed = tx.get(tables.FLEET, tables.NAME, old)
            named = self._signed(signed)
            if named is None and kind_of(body) != LIVE and body.get("url") is None:
                raise Conflict(f"nothing was uploaded for {old} yet")
            made = {**body, "name": new, "want": want, "pin": [], "created_ms": tx.now_ms}
            if cmdline is not None:
                made["cmdline"] = cmdline
            tx.put(tables.FLEET, tables.REFERENCE, new, made)
            if named is not None and signed is not None:
                trust, by = signed.body.get("trust"), signed.body.get("by")
                self._put_name(tx, _renamed(named, new, self._p.clock.now_ms()), trust, by)

        if cmdline is not None:
            _check_cmdline(cmdline)
        await self._p.store.write(write)

    async def remove(self, name: str) -> None:
        """Take a name away, unless something rests on it; it stays the name of its content."""

        def write(tx: Tx) -> None:
            body = _there(tx, name)
            used = list(self._users(tx, name, kind_of(body)))
            if used:
                more = f" and {len(used) - 3} more" if len(used) > 3 else ""
                raise Conflict(f"{name} is in use by {', '.join(used[:3])}{more}")
            put = {**body, "want": [], "pin": [], "removed_ms": tx.now_ms}
            tx.put(tables.FLEET, tables.REFERENCE, name, put)

        await self._p.store.write(write)

    def _users(self, tx: Tx, name: str, kind: str) -> Iterable[str]:
        """Yield what rests on a name: live systems, jobs, servers that boot it each time."""
        references = in_force(tx.rows(tables.FLEET, tables.REFERENCE))
        whole = parents(references, name)
        yield from (f"the live system {parent}" for parent in whole)
        sites = {member.site for member in self._p.register.members() if member.site}
        for site in sorted(sites):
            scope = tables.site_scope(site)
            for row in tx.rows(scope, tables.JOB):
                params = row.body.get("params")
                named = params.get("image") if isinstance(params, Mapping) else None
                if named == name and row.body.get("state") not in _OVER:
                    yield f"job {row.key} at {site}"
            for row in tx.rows(scope, tables.SERVER) if kind in (LIVE, ISO) else ():
                if row.body.get("image") == name and row.body.get("state") != "available":
                    yield f"server {row.body.get('name')} at {site}, which boots it"

    def _check_sites(self, sites: Iterable[str]) -> None:
        known = {row.key for row in self._p.store.rows(tables.FLEET, tables.SITE)}
        for site in sites:
            if site not in known:
                raise NotFound(f"there is no site {site!r}; see site list")

    # -- names -------------------------------------------------------------------------------

    def names(self) -> dict[str, SignedName]:
        """Return the names that the assets key of today signed."""
        rows = self._p.store.rows(tables.FLEET, tables.NAME)
        return {row.key: named for row in rows if (named := self._signed(row)) is not None}

    def _signed(self, row: Row | None) -> SignedName | None:
        """Return what the assets key says in a NAME row, None when it does not."""
        return self._names.read(row.key, row.body.get("signed")) if row else None

    def _put_name(self, tx: Tx, named: SignedName, trust: Any, by: Any) -> None:
        """Sign a name and write its row."""
        row = tx.get(tables.FLEET, tables.NAME, named.name)
        before = self._signed(row)
        replaced = list(row.body.get("replaced") or []) if row is not None else []
        if before is not None:
            named = replace(named, version=max(named.version, before.version + 1))
            if before.asset != named.asset:
                replaced = [before.asset, *(a for a in replaced if a != before.asset)]
        replaced = [asset for asset in replaced if asset != named.asset][:REPLACED_MAX]
        signed = sign_name(self._p.key, self._p.register.root_fp, named)
        body = {
            "name": named.name, "asset": named.asset, "size": named.size,
            "sha256": named.sha256, "source_sha256": named.source_sha256,
            "signed": signed, "trust": trust, "by": by,
            "replaced": replaced,
        }  # fmt: skip
        tx.put(tables.FLEET, tables.NAME, named.name, body)


def _revalidation(asked: Declaration, before: Mapping[str, Any]) -> dict[str, int]:
    """Return how often sites ask the origin, as it is said now or was before."""
    if asked.revalidate_s is not None:
        return {"revalidate_ms": asked.revalidate_s * 1000}
    return {"revalidate_ms": before["revalidate_ms"]} if "revalidate_ms" in before else {}


def _renamed(named: SignedName, new: str, now_ms: int) -> SignedName:
    return SignedName(new, named.asset, named.size, named.sha256, now_ms, named.source_sha256)


def _refused(name: str, reason: str) -> None:
    log.warning("name refused", name=name, error=reason)


def _there(tx: Tx, name: str) -> Mapping[str, Any]:
    row = tx.get(tables.FLEET, tables.REFERENCE, name)
    if row is None or row.body.get("removed_ms"):
        raise NotFound(f"there is no asset {name[:60]!r}")
    body: Mapping[str, Any] = row.body
    return body


def _check_form(asked: Declaration) -> None:
    """Refuse what cannot be meant, whatever there is already."""
    if asked.kind is not None and asked.kind not in KINDS:
        raise BadRequest(f"kind must be one of {', '.join(KINDS)}, not {asked.kind[:60]!r}")
    if asked.url is not None:
        check_url(asked.url)
    if asked.sha256 is not None and not is_sha256(asked.sha256.lower()):
        raise BadRequest(f"sha256 must be 64 hexadecimal digits, not {asked.sha256[:70]!r}")
    if asked.cmdline is not None:
        _check_cmdline(asked.cmdline)
    seconds = asked.revalidate_s
    if seconds is not None and asked.url is None:
        raise BadRequest("only what has a url is revalidated")
    if seconds and not PERIOD_MS_MIN <= seconds * 1000 <= PERIOD_MS_MAX:
        raise BadRequest(
            f"revalidate_s must be 0 (never) or {PERIOD_MS_MIN // 1000} to"
            f" {PERIOD_MS_MAX // 1000}, not {seconds}"
        )
    if asked.kind == LIVE:
        if asked.url is not None or asked.sha256 is not None:
            raise BadRequest("a live system has no content of its own, its members have")
        if sum(member["role"] == KERNEL for member in asked.members) != 1:
            raise BadRequest("a live system has one kernel among its members")
        if len(asked.members) > MEMBERS_MAX:
            raise BadRequest(f"a live system has at most {MEMBERS_MAX} members")
    elif asked.members or asked.cmdline is not None:
        raise BadRequest("only a live system has members and a command line")


def _check_cmdline(cmdline: str) -> None:
    wrong = why_no_cmdline(cmdline)
    if wrong is not None:
        raise BadRequest(wrong)


def _check_parts(
    asked: Declaration, kind: str, references: Mapping[str, Mapping[str, Any]]
) -> None:
    for member in asked.members:
        role, name = member["role"], member["name"]
        if role not in ROLES or not NAME_PATTERN.match(name):
            raise BadRequest(f"{role[:30]!r} {name[:60]!r} is no member of a live system")
        part = references.get(name)
        if part is None:
            raise NotFound(f"there is no asset {name}, which shall be the {role}")
        if kind_of(part) != FILE:
            raise Conflict(f"{name} is of kind {kind_of(part)}; a {role} is of kind file")
    if kind != FILE and parents(references, asked.name):
        raise Conflict(f"{asked.name} is a part of a live system, so it is of kind file")


def _check_signed(
    asked: Declaration, before: Mapping[str, Any], signed: SignedName, kind: str
) -> None:
    if before and kind != kind_of(before):
        raise Conflict(
            f"{asked.name} is of kind {kind_of(before)} already; take another name for {kind}"
        )
    refusal = contradiction(
        asked.name, signed.published, before.get("url"), asked.url, asked.sha256
    )
    if refusal is not None:
        raise Conflict(refusal)


def _check_live(asked: Declaration, before: Mapping[str, Any], kind: str) -> None:
    """A live system's members and command line hold for good, as signed content does."""
    had = [{"role": member.role, "name": member.name} for member in members_of(before)]
    same = sorted(had, key=str) == sorted((dict(m) for m in asked.members), key=str)
    if kind != kind_of(before) or not same or asked.cmdline != before.get("cmdline"):
        raise Conflict(f"{asked.name} is there already; take another name, or clone it")


def check_url(url: str) -> None:
    """Refuse what no node could fetch; credentials have no place in a shared reference."""
    wrong = why_no_url(url, URL_CHARS_MAX)
    if wrong is not None:
        raise BadRequest(f"url {wrong}")


def _union(kept: Iterable[str], more: Iterable[str]) -> list[str]:
    found = sorted({*kept, *more})
    if len(found) > WANT_MAX:
        raise BadRequest(f"at most {WANT_MAX} sites can want an asset")
    return found
