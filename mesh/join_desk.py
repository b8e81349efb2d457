"""The hub's desk for newcomers: makes join tokens, and answers who comes with one.

The exchange's rules are ``mesh/proto/join.py``'s; the carrier is the link room's. It knows no
socket. Rules: the token is marked used, durably, before the roster record is signed, and that
is durable before the answer leaves; a crash between leaves a token that the same identity
repeats and nobody else; the hub keeps the public half of a token's key and never its secret.
"""

import base64
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from mesh.errors import Refused, StoreFull
from mesh.host.clock import Clock
from mesh.host.log import get_log
from mesh.hub_keys import HubKeys
from mesh.identity import Identity
from mesh.membership import admit
from mesh.ports import StorePort, TxPort
from mesh.proto.ids import SITE_PATTERN
from mesh.proto.join import (
    JoinRequest,
    Refusal,
    check_request,
    grant_reply,
    open_request,
    refusal_reply,
    reply_records,
    server_payload,
)
from mesh.proto.tables import FLEET, HUBS, SITE, TOKEN, TokenRow
from mesh.proto.token import (
    HUBS_MAX,
    SECRET_BYTES,
    TOKEN_ID_CHARS,
    TTL_MS_DEFAULT,
    make_token,
    parse_token,
)
from mesh.proto.trust import KEY, ROLE_HUB, ROLES, ROSTER, TRUST
from mesh.register_store import RegisterStore

TOKENS_MAX: Final = 10_000
KEEP_ENDED_MS: Final = 30 * 24 * 3600 * 1000
"""How long an expired token stays in the list before it is deleted."""
TTL_MS_MAX: Final = 30 * 24 * 3600 * 1000

log = get_log("join")


@dataclass(frozen=True, slots=True)
class Visit:
    """The last time that somebody came with a token."""

    at_ms: int
    refused: str | None
    """Why, in one sentence; None: admitted."""


class JoinDesk:
    """Tokens and admissions of one hub; it is the carrier's ``JoinServerPort``."""

    def __init__(
        self,
        store: StorePort,
        register: RegisterStore,
        keys: HubKeys,
        identity: Identity,
        clock: Clock,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._register = register
        self._keys = keys
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self.counters: Counter[str] = Counter()
        self.visits: dict[str, Visit] = {}
        """By token id; of tokens that exist, since this desk was made."""
        self.on_change: Callable[[str], None] = lambda _token_id: None
        """Told the id of a token that was made, revoked, or that somebody came with."""

    # -- tokens ----------------------------------------------------------------------------

    async def create_token(
        self,
        site: str,
        roles: Sequence[str] = ("node",),
        *,
        ttl_ms: int = TTL_MS_DEFAULT,
        urls: Sequence[str] | None = None,
    ) -> tuple[str, TokenRow]:
        """Return a token's text, which exists nowhere else, and its row.

        ``urls`` overrides the addresses of the register (a hub behind another name).
        """
        wanted = frozenset(roles)
        _check_bounds(site, wanted, ttl_ms)
        own = self._identity.node_id
        hubs = sorted(self._register.register.hubs(), key=lambda hub: hub.node_id != own)
        hubs = hubs[:HUBS_MAX]  # this one first: it surely knows the token
        addresses = urls or [url for hub in hubs for url in hub.urls]
        trust = self._register.register.trust
        if not hubs or not addresses or trust is None:
            raise Refused("the hub does not know its own address; start it with --url")
        now_ms = self._clock.now_ms()
        token_id = base64.b32encode(self._entropy(8)).decode().lower()[:TOKEN_ID_CHARS]
        text = make_token(
            urls=list(addresses)[:HUBS_MAX],
            hub_ids=[hub.node_id for hub in hubs],
            root_fp=self._keys.root_fp,
            trust_version=trust.version,
            token_id=token_id,
            site=site,
            roles=wanted,
            expires_ms=now_ms + ttl_ms,
            secret=self._entropy(SECRET_BYTES),
        )
        row: TokenRow = {
            "id": token_id,
            "site": site,
            "roles": sorted(wanted),
            "public": parse_token(text).one_time_key().public,
            "created_ms": now_ms,
            "expires_ms": now_ms + ttl_ms,
            "used_by": None,
            "used_ms": None,
            "revoked": False,
        }

        def put(tx: TxPort) -> None:
            kept = _prune(tx, now_ms)
            if kept >= TOKENS_MAX:
                raise Refused(f"there are {kept} join tokens already; revoke some first")
            tx.put(HUBS, TOKEN, token_id, cast("dict[str, Any]", row))

        await self._store.write(put)
        log.info("join token made", token=token_id, site=site)
        self.on_change(token_id)
        return text, row

    def tokens(self) -> list[TokenRow]:
        """Return every token, the newest first."""
        rows = [cast("TokenRow", row.body) for row in self._store.rows(HUBS, TOKEN)]
        return sorted(rows, key=lambda row: row.get("created_ms", 0), reverse=True)

    async def revoke_token(self, token_id: str) -> None:
        """Make a token worthless; who joined with it stays a member."""

        def put(tx: TxPort) -> None:
            row = tx.get(HUBS, TOKEN, token_id)
            if row is None:
                raise Refused(f"there is no join token {token_id!r}")
            tx.put(HUBS, TOKEN, token_id, {**row.body, "revoked": True})

        await self._store.write(put)
        log.info("join token revoked", token=token_id)
        self.on_change(token_id)

    # -- the exchange ----------------------------------------------------------------------

    def server_payload(self) -> bytes:
        """Return what proves this hub to a newcomer: the payload of XX message 2."""
        register, own = self._register.register, self._identity.node_id
        trust = register.record(TRUST, "")
        roster, key = register.record(ROSTER, own), register.record(KEY, own)
        assert trust is not None, "the hub was founded before it listens"
        assert roster is not None
        assert key is not None
        return server_payload(trust, roster, key)

    async def answer(self, request: bytes, handshake_hash: bytes, static_key: bytes) -> bytes:
        """Judge a join request and return the answer; the newcomer is a member before that."""
        opened = open_request(request, handshake_hash, static_key, self._keys.root_fp)
        if isinstance(opened, JoinRequest):
            try:
                refusal = await self._use_token(opened)
                if refusal is None:
                    self._note(opened.token_id, None)
                    return self._admit(opened)
            except StoreFull:
                refusal = Refusal("hub", "the hub's disk is full: free some space, join again")
            except Refused as exc:  # it was restored, and may not write yet
                refusal = Refusal("hub", f"the hub cannot admit members now: {exc}")
        else:
            refusal = opened
        self.counters[f"refused {refusal.code}"] += 1
        self.counters["alarm"] += refusal.alarm
        node = opened.node_id if isinstance(opened, JoinRequest) else None
        say = log.error if refusal.alarm else log.warning
        say("join refused", reason=refusal.code, node=node)
        if isinstance(opened, JoinRequest):
            self._note(opened.token_id, refusal.detail)
        return refusal_reply(refusal)

    def _note(self, token_id: str, refused: str | None) -> None:
        """Keep for people how it went with a token of ours."""
        if self._store.get(HUBS, TOKEN, token_id) is None:
            return
        self.visits.pop(token_id, None)
        self.visits[token_id] = Visit(self._clock.now_ms(), refused)
        if len(self.visits) > TOKENS_MAX:
            del self.visits[next(iter(self.visits))]
        self.on_change(token_id)

    async def _use_token(self, request: JoinRequest) -> Refusal | None:
        """Mark the token used by this identity, durably, or say why not."""
        known = self._register.register.member(request.node_id)
        now_ms, root_fp = self._clock.now_ms(), self._keys.root_fp

        def use(tx: TxPort) -> Refusal | None:
            row = tx.get(HUBS, TOKEN, request.token_id)
            token = cast("TokenRow", dict(row.body)) if row else None
            refusal = check_request(request, token, known, now_ms, root_fp)
            if refusal is None and token is not None and token.get("used_by") is None:
                used = {**token, "used_by": request.node_id, "used_ms": now_ms}
                tx.put(HUBS, TOKEN, request.token_id, used)
            return refusal

        return await self._store.write(use)

    def _admit(self, request: JoinRequest) -> bytes:
        try:
            admit(
                self._keys,
                self._register,
                request.identity_public,
                site=request.site,
                roles=request.roles,
                name=request.name,
            )
        except Refused as exc:
            self.counters["refused hub"] += 1
            log.error("join refused", reason="hub", node=request.node_id, error=exc)
            self._note(request.token_id, str(exc))
            return refusal_reply(Refusal("hub", f"the hub cannot admit members now: {exc}"))
        self._register.merge(request.key_record)
        self.counters["admitted"] += 1
        log.info("node joined", node=request.node_id, site=request.site)
        register = self._register.register
        return grant_reply(
            reply_records(register, request.node_id, request.site),
            self._site_info(request.site),
        )

    def _site_info(self, site: str) -> dict[str, Any]:
        row = self._store.get(FLEET, SITE, site)
        body = row.body if row else {}
        return {
            "site": site,
            "title": body.get("title", site),
            "region": body.get("region", ""),
        }


def _check_bounds(site: str, roles: frozenset[str], ttl_ms: int) -> None:
    if not roles or roles - ROLES:
        raise Refused(f"roles of a join token: one or more of {', '.join(sorted(ROLES))}")
    if site and not SITE_PATTERN.match(site):
        raise Refused(f"{site!r} is no site name; use small letters, digits and dashes")
    if ROLE_HUB in roles and (site or len(roles) > 1):
        raise Refused("a join token for a hub names no site and no other role")
    if not site and ROLE_HUB not in roles:
        raise Refused("a join token for a node needs a site")
    if not 0 < ttl_ms <= TTL_MS_MAX:
        raise Refused("a join token lives between one second and 30 days")


def _prune(tx: TxPort, now_ms: int) -> int:
    """Delete tokens that ended long ago; return how many are left."""
    rows = tx.rows(HUBS, TOKEN)
    old = [row for row in rows if row.body.get("expires_ms", 0) + KEEP_ENDED_MS < now_ms]
    for row in old:
        tx.delete(HUBS, TOKEN, row.key)
    return len(rows) - len(old)
