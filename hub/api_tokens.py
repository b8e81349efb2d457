"""API tokens: ``id.secret`` for programs, each with a name, a role and perhaps an end.

Rows in scope ``hubs``, so every hub knows them; it knows no HTTP. Rules: of a secret only its
SHA-256 is kept (it has 256 bits, so nothing slower is needed) and it is shown once; a revoked
or expired token opens nothing; the hub's own token of ``DATA/api-token`` is an admin at this
hub alone, for whoever may read that file.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hub.desk import Desk, same_text
from hub.errors import BadRequest, Conflict, NotFound
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.ports import StorePort, TxPort
from mesh.proto.ids import NAME_PATTERN
from mesh.proto.tables import API_TOKEN, HUBS
from mesh.rest import types
from mesh.rest.roles import ROLES, Role

TOKENS_MAX: Final = 1000
SECRET_BYTES: Final = 32
KEEP_ENDED_MS: Final = 30 * 24 * 3600 * 1000
"""How long a token that has ended stays in the list before it is deleted."""
HUB_TOKEN: Final = "api-token"
log = get_log("accounts")


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a token stands for."""

    author: str
    role: Role


class ApiTokens:
    """All API tokens, and the hub's own."""

    def __init__(self, store: StorePort, uses: Desk, hub_token: str, clock: Clock) -> None:
        """``uses`` remembers when a token was used here; ``hub_token``: of DATA/api-token."""
        self._store, self._uses, self._clock = store, uses, clock
        self._hub_token = hub_token

    def __repr__(self) -> str:
        """Never show the hub's token."""
        return "ApiTokens()"

    def check(self, text: str) -> Bearer | None:
        """Return whom a token stands for now; None for a wrong, revoked or expired one."""
        if same_text(text, self._hub_token):
            return Bearer(HUB_TOKEN, "admin")
        token_id, dot, secret = text.partition(".")
        if not dot or not 0 < len(token_id) <= 64:
            return None
        row = self._store.get(HUBS, API_TOKEN, token_id)
        now_ms = self._clock.now_ms()
        if row is None or _state(row.body, now_ms) != "active":
            return None
        digest, role = row.body.get("digest"), _role(row.body)
        if not isinstance(digest, bytes) or role is None:
            return None
        if not secrets.compare_digest(digest, _digest(secret)):
            return None
        self._uses.used(token_id, now_ms)
        return Bearer(f"token:{row.body.get('name', token_id)}", role)

    def list(self) -> list[types.ApiToken]:
        """Return what is known of all tokens, the newest first."""
        used, now_ms = self._uses.last_used(), self._clock.now_ms()
        found = [
            _shown(row.key, row.body, used.get(row.key), now_ms)
            for row in self._store.rows(HUBS, API_TOKEN)
        ]
        return sorted(found, key=lambda token: (-token["created_ms"], token["id"]))

    async def create(
        self, name: str, role: str, ttl_s: int | None, author: str
    ) -> tuple[types.ApiToken, str]:
        """Make a token; return what it is and its text, which exists nowhere else."""
        if not NAME_PATTERN.match(name):
            raise BadRequest(
                "a token's name is 1 to 63 letters, digits, dots, dashes, underscores,"
                f" not {name[:80]!r}"
            )
        if role not in ROLES:
            raise BadRequest(f"role must be one of {', '.join(ROLES)}, not {role[:60]!r}")
        now_ms = self._clock.now_ms()
        token_id = base64.b32encode(os.urandom(10)).decode().lower()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        body = {
            "id": token_id, "name": name, "role": role, "digest": _digest(secret),
            "created_ms": now_ms, "created_by": author, "revoked_ms": None,
            "expires_ms": None if ttl_s is None else now_ms + 1000 * ttl_s,
        }  # fmt: skip

        def put(tx: TxPort) -> None:
            if _prune(tx, now_ms) >= TOKENS_MAX:
                raise Conflict(f"there are {TOKENS_MAX} API tokens already; revoke some first")
            rows = [row.body for row in tx.rows(HUBS, API_TOKEN)]
            if any(r.get("name") == name and _state(r, now_ms) == "active" for r in rows):
                raise Conflict(f"there is an API token {name!r} already; revoke it first")
            tx.put(HUBS, API_TOKEN, token_id, body)

        await self._store.write(put)
        log.info("api token made", token=token_id, name=name, role=role, user=author)
        return _shown(token_id, body, None, now_ms), f"{token_id}.{secret}"

    async def revoke(self, token_id: str) -> types.ApiToken:
        """Make a token worthless; NotFound when there is none."""
        now_ms = self._clock.now_ms()

        def put(tx: TxPort) -> None:
            row = tx.get(HUBS, API_TOKEN, token_id)
            if row is None:
                raise NotFound(f"there is no API token {token_id[:60]!r}")
            if row.body.get("revoked_ms") is None:
                tx.put(HUBS, API_TOKEN, token_id, {**row.body, "revoked_ms": now_ms})

        await self._store.write(put)
        log.info("api token revoked", token=token_id)
        return next(token for token in self.list() if token["id"] == token_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _state(body: Mapping[str, Any], now_ms: int) -> str:
    if body.get("revoked_ms") is not None:
        return "revoked"
    expires_ms = body.get("expires_ms")
    return "expired" if isinstance(expires_ms, int) and expires_ms <= now_ms else "active"


def _role(body: Mapping[str, Any]) -> Role | None:
    return next((role for role in ROLES if body.get("role") == role), None)


def _shown(
    token_id: str, body: Mapping[str, Any], used_ms: int | None, now_ms: int
) -> types.ApiToken:
    return types.ApiToken(
        id=token_id, name=str(body.get("name", "")), role=str(body.get("role", "")),
        state=_state(body, now_ms), created_ms=int(body.get("created_ms") or 0),
        created_by=str(body.get("created_by", "")), expires_ms=body.get("expires_ms"),
        last_used_ms=used_ms,
    )  # fmt: skip


def _prune(tx: TxPort, now_ms: int) -> int:
    """Delete tokens that ended long ago; return how many are left."""
    rows = tx.rows(HUBS, API_TOKEN)
    ends = {row.key: _ended_ms(row.body) for row in rows}
    old = [key for key, at_ms in ends.items() if at_ms and at_ms + KEEP_ENDED_MS < now_ms]
    for key in old:
        tx.delete(HUBS, API_TOKEN, key)
    return len(rows) - len(old)


def _ended_ms(body: Mapping[str, Any]) -> int | None:
    found = [body.get("revoked_ms"), body.get("expires_ms")]
    return min((at_ms for at_ms in found if isinstance(at_ms, int)), default=None)
