"""What a holder of assets tells and gives other members: PRESENCE rows and two calls.

It knows neither who wants what nor links. Rules: only verified bytes are given; a row is
written only when it says something new.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from cache.cache import Cache
from cache.errors import ChunkUnavailable
from cache.shelf import AssetState
from mesh.errors import Refused
from mesh.proto.beside import plain
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN
from mesh.proto.tables import FLEET, PRESENCE

CORE_PIECE_BYTES: Final = 1 << 20
"""A manifest goes out in pieces that fit a frame."""
COUNTS: Final = ("origin_bytes", "peer_bytes", "near_bytes")
"""What names of one content cost, which adds up."""
INDEX_MAX: Final = 1 << 32
OFFSET_MAX: Final = 1 << 50
WAIT_S: Final = 5.0
"""How long a fellow's call is kept until its chunk is here."""
WAITING_MAX: Final = 256
"""Calls that are kept at once; further ones are answered at once."""

Handler = Callable[[str, Any], Awaitable[Any]]


class Tx(Protocol):
    """The part of a store transaction that presence needs."""

    @property
    def now_ms(self) -> int: ...  # noqa: D102
    def put(self, scope: str, table: str, key: str, body: Mapping[str, Any], /) -> Any:
        """Write our row."""
        ...

    def drop(self, scope: str, table: str, key: str, /) -> Any:
        """Take our row back."""
        ...

    def authored(self, scope: str, table: str, /) -> Any:
        """Return every author's rows."""
        ...


def rpc_handlers(cache: Cache) -> dict[str, Handler]:
    """Return the calls with which members take manifests and chunks from here."""

    async def manifest(_peer: str, body: Any) -> Any:
        asset, offset = _asset_and(body, "offset")
        held = cache.manifest(asset)
        if held is None:
            raise Refused(f"{asset} is not here")
        piece = held.core[offset : offset + CORE_PIECE_BYTES]
        return {"total": len(held.core), "piece": piece}

    waiting = 0

    async def chunk(_peer: str, body: Any) -> Any:
        """Answer with bytes, to a fellow (``wait``) with ``{"have"}`` if they come later."""
        nonlocal waiting
        asset, index = _asset_and(body, "index")
        shared, first = body.get("wait") is True, body.get("first") is True
        try:
            if not shared:
                return await cache.read_chunk(asset, index)
            waiting += 1
            try:
                wait_s = WAIT_S if waiting <= WAITING_MAX else 0.0
                found = await cache.give_chunk(asset, index, wait_s, first)
            finally:
                waiting -= 1
        except ChunkUnavailable as exc:
            raise Refused(str(exc)) from exc
        return found if isinstance(found, bytes) else {"have": found.have}

    async def growing(_peer: str, body: Any) -> Any:
        """Answer with more of what is read from an origin here, or after a while without."""
        name = body.get("name") if isinstance(body, Mapping) else None
        if not isinstance(name, str) or not NAME_PATTERN.match(name):
            raise Refused("that call needs a name")
        found = await cache.growth(name, _number(body, "offset", OFFSET_MAX), WAIT_S)
        if found is None:
            raise Refused(f"{name} is not read from its origin here")
        return {
            "url": found.url, "validator": found.validator, "size": found.size,
            "piece": found.piece,
        }  # fmt: skip

    return {"cache.manifest": manifest, "cache.chunk": chunk, "cache.growing": growing}


def put_presence(tx: Tx, author: str, site: str, cache: Cache) -> None:
    """Let the author's PRESENCE rows say what the cache holds."""
    rows: dict[str, dict[str, Any]] = {}
    for state in cache.assets():
        beside = plain(state.name) != state.name
        if not NAME_PATTERN.match(plain(state.name)) or (beside and state.state != "verified"):
            continue
        key, body = state.asset or f"name:{state.name}", _presence(state, site)
        other = rows.get(key)  # the same content under another name
        if other is not None:
            better, worse = (other, body) if other["state"] == "verified" else (body, other)
            counts = {k: better[k] + worse[k] for k in COUNTS}
            body = {**better, **counts}
        rows[key] = body
    mine = {r.key: r.body for r in tx.authored(FLEET, PRESENCE) if r.author == author}
    for key in mine.keys() - rows.keys():
        tx.drop(FLEET, PRESENCE, key)
    for key, body in rows.items():
        said = {k: v for k, v in mine.get(key, {}).items() if k != "updated_ms"}
        if said != body:
            tx.put(FLEET, PRESENCE, key, {**body, "updated_ms": tx.now_ms})


def _presence(state: AssetState, site: str) -> dict[str, Any]:
    return {
        "name": plain(state.name), "site": site, "state": state.state, "have": state.have,
        "of": state.of, "origin_bytes": state.origin_bytes, "peer_bytes": state.peer_bytes,
        "near_bytes": state.near_bytes, "error": state.error,
    }  # fmt: skip


def _asset_and(body: Any, field: str) -> tuple[str, int]:
    asset = body.get("asset") if isinstance(body, Mapping) else None
    if not isinstance(asset, str) or not ASSET_PATTERN.match(asset):
        raise Refused("that call needs an asset id")
    return asset, _number(body, field, INDEX_MAX)


def _number(body: Mapping[str, Any], field: str, end: int) -> int:
    number = body.get(field)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < end:
        raise Refused(f"{field} must be a whole number")
    return number
