"""Tokens and secrets as the API offers them, over the trust room's desks.

It knows no HTTP. Rules: a token's text is returned once and kept nowhere; a secret's plaintext
lives as long as the call that seals it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from hub.errors import BadRequest, NotFound
from hub.store import ReportStore
from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.join_desk import JoinDesk
from mesh.proto import tables
from mesh.proto.ids import parse_mac
from mesh.proto.order import PASSWORD
from mesh.proto.register import Register
from mesh.proto.trust import ROLES
from mesh.rest import verdicts
from mesh.rest.types import Pending, Secret, Token
from mesh.secrets import BMC_KIND, note_made, note_released, note_retired, set_secret
from mesh.store import MeshStore, Tx

SITES_MAX: Final = 10_000


class TokenDesk:
    """Join tokens."""

    def __init__(self, desk: JoinDesk, store: MeshStore, clock: Clock, region: str) -> None:
        self._desk = desk
        self._store = store
        self._clock = clock
        self._region = region

    async def create(self, site: str, roles: list[str], ttl_s: int) -> tuple[Token, str]:
        """Make a token; the first one for a site makes the site."""
        unknown = set(roles) - ROLES
        if unknown:
            known = ", ".join(sorted(ROLES))
            raise BadRequest(f"there is no role {sorted(unknown)[0][:40]!r}; known: {known}")
        text, row = await self._desk.create_token(site, roles, ttl_ms=ttl_s * 1000)
        await self._store.write(lambda tx: _name_site(tx, site, self._region))
        return self._token(row), text

    def list(self) -> list[Token]:
        """Return all tokens, newest first."""
        return [self._token(row) for row in self._desk.tokens()]

    async def revoke(self, token_id: str) -> Token:
        """Make a token worthless."""
        if self._store.get(tables.HUBS, tables.TOKEN, token_id) is None:
            raise NotFound(f"there is no token {token_id[:60]!r}")
        await self._desk.revoke_token(token_id)
        return next(token for token in self.list() if token["id"] == token_id)

    def _token(self, row: tables.TokenRow) -> Token:
        visit = self._desk.visits.get(row.get("id", ""))
        return Token(
            id=row.get("id", ""),
            site=row.get("site", ""),
            roles=list(row.get("roles", [])),
            state=token_state(row, self._clock.now_ms()),
            created_ms=row.get("created_ms", 0),
            expires_ms=row.get("expires_ms", 0),
            used_by=row.get("used_by"),
            used_ms=row.get("used_ms"),
            contacted_ms=visit.at_ms if visit else None,
            refused=visit.refused if visit else None,
            refused_ms=visit.at_ms if visit and visit.refused else None,
        )


def token_state(row: tables.TokenRow, now_ms: int) -> str:
    """Return open, used, revoked or expired."""
    if row.get("used_by"):
        return "used"
    if row.get("revoked"):
        return "revoked"
    return "expired" if now_ms > row.get("expires_ms", 0) else "open"


def _name_site(tx: Tx, site: str, region: str) -> None:
    if site and tx.get(tables.FLEET, tables.SITE, site) is None:
        body = {"title": site, "region": region, "created_ms": tx.now_ms}
        tx.put(tables.FLEET, tables.SITE, site, body)


class VerdictDesk:
    """Machines that were put aside."""

    def __init__(self, store: MeshStore, reports: ReportStore) -> None:
        self._store = store
        self._reports = reports

    async def give(self, machine: str, site: str | None, rejected: bool, by: str) -> Pending:
        """Write the verdict into the site of the machine."""
        pending = cast(list[Pending], self._reports.find("pending", parse_mac(machine) or ""))
        seen = verdicts.meant(pending, machine, site)

        def write(tx: Tx) -> Pending:
            after, body = verdicts.judged(seen, rejected, by, tx.now_ms)
            tx.put(tables.site_scope(seen["site"]), tables.VERDICT, seen["mac"], body)
            return after

        return await self._store.write(write)


def replaced(jobs: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the logins instead of which finished jobs have set another."""
    found: set[str] = set()
    for job in jobs:
        if job.get("kind") == PASSWORD and job.get("state") == "succeeded":
            for step in job.get("steps") or ():
                evidence = step.get("evidence") if isinstance(step, Mapping) else None
                old = evidence.get("instead") if isinstance(evidence, Mapping) else None
                found |= {old} if isinstance(old, str) else set()
    return found


def gone_logins(
    store: MeshStore, scope: str, index: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return logins of the ledger that a job has replaced and no server names any more.

    Jobs are read only when some login is used by nobody: this runs at every change of a site.
    """
    bmcs = [row.body.get("bmc") for row in store.rows(scope, tables.SERVER)]
    used = {bmc.get("secret") for bmc in bmcs if isinstance(bmc, Mapping)}
    idle = {secret for secret, body in index.items() if not body.get("retired_ms")} - used
    return idle & replaced(row.body for row in store.rows(scope, tables.JOB)) if idle else idle


class SecretDesk:
    """Secrets of sites."""

    def __init__(self, store: MeshStore, register: Register) -> None:
        self._store = store
        self._register = register

    async def set(self, secret_id: str, site: str, kind: str, value: str) -> Secret:
        """Seal a value to every node of a site."""
        plaintext = value.encode()

        def write(tx: Tx) -> None:
            set_secret(tx, self._register, secret_id, kind, plaintext, site=site)

        await self._store.write(write)
        return next(secret for secret in self.list() if secret["id"] == secret_id)

    async def run(self) -> None:
        """Keep the release ledger: nodes hand secrets on at their site, hub or no hub."""
        version = 0
        while True:
            changes = self._store.changes_since(version) if version else None
            version = self._store.version
            sets = self._store.heads if changes is None else changes
            for scope in sorted({s.scope for s in sets if s.scope.startswith("site:")}):
                await self._note(scope)
            await self._store.wait_past(version)

    async def _note(self, scope: str) -> None:
        """Write down what the nodes of a site did: handed on, made anew, replaced."""
        site = scope.removeprefix("site:")
        index = {
            row.key: row.body
            for row in self._store.rows(tables.HUBS, tables.SECRET_INDEX)
            if row.body.get("site") == site
        }
        members = {member.node_id for member in self._register.site_members(site)}
        handed_on: set[tuple[str, str]] = set()
        made: dict[str, set[str]] = {}
        for row in self._store.authored(scope, tables.SECRET_COPY):
            node, _, secret = row.key.partition("/")
            if secret in index:
                if node in members and node not in index[secret].get("released", []):
                    handed_on.add((node, secret))
            elif row.body.get("kind") == BMC_KIND:
                made.setdefault(secret, set()).add(node)
        gone = gone_logins(self._store, scope, index)
        if not (handed_on or made or gone):
            return

        def write(tx: Tx) -> None:
            for node, secret in sorted(handed_on):
                note_released(tx, secret, site, node)
            for secret, nodes in made.items():
                note_made(tx, secret, site, nodes)
            for secret in gone:
                note_retired(tx, secret)

        try:
            await self._store.write(write)
        except (Refused, StoreFull):
            pass  # restored or full: the rows stay, the next change of the site tells it

    def list(self) -> list[Secret]:
        """Return what is known of all secrets."""
        rows = self._store.rows(tables.HUBS, tables.SECRET_INDEX)
        found = [
            Secret(
                id=row.key,
                kind=str(row.body.get("kind", "")),
                site=str(row.body.get("site", "")),
                version=int(row.body.get("version", 0)),
                released=[str(node) for node in row.body.get("released", [])],
                changed_ms=int(row.body.get("changed_ms", 0)),
                retired_ms=row.body.get("retired_ms"),
            )
            for row in rows
        ]
        return sorted(found, key=lambda secret: secret["id"])
