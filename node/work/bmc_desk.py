"""What a server's BMC says now, read when somebody asks.

It knows rows and BMCs, and starts no work: nothing here changes a server. Rules: one reading of
a BMC at a time and none within FRESH_S of the last, whoever asks; a login that was refused is
not tried again for REFUSED_S unless the secret changes, so that a page which is opened again
and again locks no account.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import trio

from drivers.api import Attempt, Bmc, Certificate, Events, Reading, always
from drivers.errors import DriverError, LoginRefused
from mesh.errors import Refused, RemoteRefused, Unreachable
from mesh.rest.health_types import BmcCertificate
from mesh.rest.health_view import (
    ASKED,
    CALL_S,
    LOOK,
    METHOD,
    NODE_S,
    Asked,
    checked,
    checked_certificate,
)
from node.work.ports import Credentials, OpenBmc, Peers
from node.work.rows import SiteRows

Look = Callable[[str], Awaitable[Certificate]]
URL_CHARS_MAX: Final = 512
FRESH_S: Final = 5.0
REFUSED_S: Final = 600.0
AT_ONCE_MAX: Final = 4
"""BMCs that are read at once; jobs have a limit of their own."""
WAITING_MAX: Final = 32
KEPT_MAX: Final = 64
"""Newest answers that are remembered."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at_s: float
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Held:
    """A login that was refused: not to be tried before ``until_s``."""

    login: bytes
    until_s: float
    sentence: str


class NotHere(Refused):
    """This node cannot ask; another one of the site may."""


class BmcDesk:
    """Reads BMCs of the site's servers for whoever asks."""

    def __init__(
        self,
        rows: SiteRows,
        open_bmc: OpenBmc,
        look: Look | None,
        credentials: Credentials,
        peers: Peers,
        now_ms: Callable[[], int],
    ) -> None:
        """``look`` gives a BMC's certificate; None: nobody can here."""
        self._rows = rows
        self._open_bmc = open_bmc
        self._credentials = credentials
        self._peers = peers
        self._now_ms = now_ms
        self._look = look
        self._slots = trio.CapacityLimiter(AT_ONCE_MAX)
        self._locks: dict[str, trio.Lock] = {}
        self._waiting = 0
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._held: dict[str, _Held] = {}

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the calls that members may make on us."""
        return {METHOD: self._rpc, LOOK: self._rpc_look}

    async def _rpc_look(self, peer: str, body: Any) -> Any:
        self._rows.check_near_or_hub(peer)
        url = body.get("url") if isinstance(body, Mapping) else None
        if not isinstance(url, str) or len(url) > URL_CHARS_MAX:
            raise Refused(f"{LOOK} takes {{url: text}}")
        return await self.certificate(url)

    async def certificate(self, url: str) -> dict[str, Any]:
        """Return what an address shows, from here; no login is sent."""
        if self._look is None:
            raise Refused("this node drives no BMCs")
        try:
            async with self._slots:
                return asdict(await self._look(url))
        except DriverError as exc:
            raise Refused(str(exc)) from exc

    async def shown_certificate(self, site: str, url: str) -> BmcCertificate:
        """Answer the API of this node."""
        if site != self._rows.site:
            raise Refused(f"this node is of site {self._rows.site}, not {site[:40]!r}")
        node = self._rows.node_id
        found = checked_certificate(url, node, await self.certificate(url))
        assert found is not None
        return found

    async def _rpc(self, peer: str, body: Any) -> Any:
        self._rows.check_near_or_hub(peer)
        server = body.get("server") if isinstance(body, Mapping) else None
        what = body.get("what") if isinstance(body, Mapping) else None
        if not isinstance(server, str) or what not in ASKED:
            raise Refused(f"{METHOD} takes {{server: id, what: one of {', '.join(ASKED)}}}")
        try:
            return await self.read_here(server, what)
        except NotHere as exc:
            return {"elsewhere": str(exc)}

    async def read(self, server: str, what: Asked) -> Any:
        """Read here or, when this node has not the login, by another node of the site."""
        try:
            return checked(what, server, self._rows.node_id, await self.read_here(server, what))
        except NotHere as exc:
            refusal: Refused = exc
        others = sorted(set(self._rows.site_nodes()) & set(self._peers.connected()))
        for node in others:
            if node == self._rows.node_id:
                continue
            body = {"server": server, "what": what}
            try:
                answer = await self._peers.rpc(node, METHOD, body, CALL_S)
            except (Unreachable, RemoteRefused) as exc:
                refusal = Refused(str(exc))
                continue
            found = checked(what, server, node, answer)
            if found is not None:
                return found
        raise refusal

    async def read_here(self, server: str, what: Asked) -> dict[str, Any]:
        """Read a server's BMC from here; raises Refused with one sentence."""
        row = self._rows.server(server)
        if row is None:
            raise Refused(f"there is no server {server[:100]!r} at this site")
        name, bmc = str(row.get("name")), row.get("bmc")
        if not isinstance(bmc, Mapping) or not bmc.get("url"):
            raise Refused(f"{name} has no BMC: nobody can ask it")
        if not bmc.get("secret"):
            raise Refused(f"the BMC of {name} has no secret: give its user name and password")
        try:
            login = self._credentials(str(bmc["secret"]))
        except Refused as exc:
            raise NotHere(str(exc)) from exc
        url = str(bmc["url"])
        if self._waiting >= WAITING_MAX:
            raise Refused(f"{WAITING_MAX} readings of BMCs are under way here: try again soon")
        self._waiting += 1
        try:
            with trio.fail_after(NODE_S):
                return await self._in_turn(server, url, login, what)
        except trio.TooSlowError as exc:
            raise Refused(f"the BMC of {name} did not answer within {NODE_S:g} s") from exc
        finally:
            self._waiting -= 1

    async def _in_turn(
        self, server: str, url: str, login: Mapping[str, object], what: Asked
    ) -> dict[str, Any]:
        lock = self._locks.setdefault(url, trio.Lock())
        try:
            async with lock:
                kept = self._kept.get((server, what))
                if kept is not None and trio.current_time() < kept.at_s + FRESH_S:
                    return kept.answer
                self._check_held(url, login)
                async with self._slots:
                    answer = await self._ask(url, login, what)
                self._keep((server, what), answer)
                return answer
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(url, None)

    async def _ask(self, url: str, login: Mapping[str, object], what: Asked) -> dict[str, Any]:
        try:
            async with self._open_bmc(url, login, always) as bmc:
                found = await _VERBS[what](bmc)
                attempts = [_attempt(one) for one in bmc.attempts]
        except LoginRefused as exc:
            until_s = trio.current_time() + REFUSED_S
            self._held[url] = _Held(_digest(login), until_s, str(exc))
            raise Refused(str(exc)) from exc
        except DriverError as exc:
            raise Refused(str(exc)) from exc
        return {**found, "read_ms": self._now_ms(), "attempts": attempts}

    def _check_held(self, url: str, login: Mapping[str, object]) -> None:
        now_s = trio.current_time()
        self._held = {u: one for u, one in self._held.items() if now_s < one.until_s}
        held = self._held.get(url)
        if held is not None and held.login == _digest(login):
            raise Refused(
                f"{held.sentence}; it is not tried again for {held.until_s - now_s:.0f} s or"
                " until its secret changes, so that the account is not locked"
            )

    def _keep(self, key: tuple[str, str], answer: dict[str, Any]) -> None:
        self._kept.pop(key, None)
        self._kept[key] = _Kept(trio.current_time(), answer)
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]


def _digest(login: Mapping[str, object]) -> bytes:
    """Return what tells one login from another; the login itself is not kept."""
    return hashlib.blake2b(json.dumps(login, sort_keys=True, default=str).encode()).digest()


async def _sensors(bmc: Bmc) -> dict[str, Any]:
    return {"readings": [_reading(one) for one in await bmc.sensors()]}


async def _events(bmc: Bmc) -> dict[str, Any]:
    found: Events = await bmc.events()
    return {"entries": [asdict(one) for one in found.entries], "more": found.more}


async def _firmware(bmc: Bmc) -> dict[str, Any]:
    return {"components": [asdict(one) for one in await bmc.firmware()]}


async def _bios(bmc: Bmc) -> dict[str, Any]:
    found = await bmc.bios()
    return {"current": dict(found.current), "pending": dict(found.pending)}


_VERBS: Final[Mapping[Asked, Callable[[Bmc], Awaitable[dict[str, Any]]]]] = {
    "sensors": _sensors, "events": _events, "firmware": _firmware, "bios": _bios,
}  # fmt: skip


def _reading(one: Reading) -> dict[str, Any]:
    flat = asdict(one)
    limits: dict[str, Any] = flat.pop("thresholds")
    return {**flat, **limits}


def _attempt(one: Attempt) -> dict[str, Any]:
    return asdict(one)
