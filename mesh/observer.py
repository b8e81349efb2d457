"""What a running member can say of the mesh: links, who is away, how fresh, who sees whom.

It knows neither HTTP nor pages. Rules: nothing of it is kept; others are asked only when
somebody wants to see (``gather``, or ``run`` while a page is open); a peer that does not answer
in time is left out and shown as not heard.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from mesh.errors import RemoteError, Unreachable
from mesh.holdings import scope_digests
from mesh.host.clock import Clock
from mesh.proto.hlc import milliseconds
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.tables import FLEET, NODE
from mesh.rest.mesh_types import Mesh, MeshAway, MeshLink, MeshSite, Topology
from mesh.rest.mesh_view import heard, said, topology

METHOD: Final = "mesh.links"
ASK_S: Final = 3.0
"""A peer has so long to say what it sees."""
ASKED_MAX: Final = 512
"""Peers that are asked for one topology."""
FRESH_S: Final = 5.0
"""A topology this young is not gathered again."""
SAMPLE_S: Final = 10.0
"""How often bytes are looked at, to tell rates."""
INTEREST_S: Final = 60.0
"""So long after the last look the topology is kept fresh."""
HUB_ROLE: Final = "hub"


class PeersPort(Protocol):
    """The part of ``mesh/link/peers.py`` that this asks."""

    def connected(self) -> Mapping[str, Any]: ...  # noqa: D102
    def statistics(self) -> Any: ...  # noqa: D102
    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any: ...  # noqa: D102


class ReplicationPort(Protocol):
    """The part of ``mesh/sync.py`` that this asks."""

    def ages(self) -> Mapping[str, int]: ...  # noqa: D102
    def statistics(self) -> Mapping[str, int]: ...  # noqa: D102


class StorePort(Protocol):
    """The part of ``mesh/store.py`` that this asks."""

    @property
    def heads(self) -> Mapping[SetId, SignedHead]: ...  # noqa: D102
    def authored(self, scope: str, table: str) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """The member that answers."""

    node: str
    name: str
    site: str  # "" for a hub
    role: str  # hub | node


class Observer:
    """Answers for one member."""

    def __init__(
        self,
        who: Who,
        *,
        register: Any,
        store: StorePort,
        peers: PeersPort,
        replication: ReplicationPort,
        clock: Clock,
        gateways: Callable[[], Collection[str]] = tuple,
        unreachable: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """``register`` as in ``mesh/proto/register.py``; ``unreachable``: since when (ms)."""
        self._who = who
        self._register = register
        self._store = store
        self._peers = peers
        self._replication = replication
        self._clock = clock
        self._gateways = gateways
        self._unreachable = unreachable
        self._samples: dict[str, tuple[float, int, int]] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._left_ms: dict[str, int] = {}
        self._seen: set[str] = set()
        self._gathered: tuple[float, int, Topology] | None = None
        self._looked_s = float("-inf")
        self._wanted = trio.Event()
        self._gathering = trio.Lock()

    def rpc_handlers(self) -> dict[str, Callable[[str, Any], Awaitable[Any]]]:
        """Return the call with which other members ask."""

        async def links(_peer: str, _body: Any) -> Any:
            return said(self.links(), self._is_gateway, self._clock.now_ms())

        return {METHOD: links}

    # -- this member -------------------------------------------------------------------------

    def links(self) -> list[MeshLink]:
        """Return the main links, by site and name."""
        ages, facts, connected = (
            self._replication.ages(),
            self._facts(),
            self._peers.connected(),
        )
        found = [
            MeshLink(
                node=node,
                name=facts[node]["name"],
                site=facts[node]["site"],
                role=facts[node]["role"],
                path=str(info.path).partition(" ")[0],
                address=info.address,
                dialled=info.dialled,
                since_ms=info.since_ms,
                round_trip_ms=info.round_trip_ms,
                bytes_in=info.bytes_in,
                bytes_out=info.bytes_out,
                in_per_s=self._rates.get(node, (None, None))[0],
                out_per_s=self._rates.get(node, (None, None))[1],
                synced_ms=ages.get(node),
            )
            for node, info in connected.items()
            if node in facts
        ]
        return sorted(found, key=lambda link: (link["site"], link["name"], link["node"]))

    def mesh(self) -> Mesh:
        """Return the mesh as it looks from here."""
        links, away = self.links(), self._away()
        members = Counter(str(m.status) for m in self._register.members())
        others = members["member"] - 1
        near = [one for one in away if one["by"] == "site" or one["site"] == self._who.site]
        alone = others > 0 and not links
        return Mesh(
            node=self._who.node,
            name=self._who.name,
            site=self._who.site,
            role=self._who.role,
            healthy=not near and not alone,
            sentence=_sentence(self._who, len(links), others, len(near)),
            gateways=sorted(self._gateways()),
            members=dict(members),
            links=links,
            away=away,
            sites=self._sites(links, away),
            sets=len(self._store.heads),
            digests=scope_digests(self._store.heads),
            register=self._register.digest().hex(),
            counters={**self._peers.statistics().counters, **self._replication.statistics()},
        )

    @property
    def _is_gateway(self) -> bool:
        return self._who.node in self._gateways()

    def _facts(self) -> dict[str, dict[str, str]]:
        """Return name, site and role of every active member."""
        rows = self._store.authored(FLEET, NODE)
        names = {row.author: row.body.get("name") for row in rows if row.author == row.key}
        return {
            m.node_id: {
                "name": str(names.get(m.node_id) or m.name or m.node_id[:8]),
                "site": m.site,
                "role": HUB_ROLE if HUB_ROLE in m.roles else "node",
            }
            for m in self._register.members()
            if m.status == "member"
        }

    def _away(self) -> list[MeshAway]:
        """Return members out of reach: declared so by their site, or without a link here.

        A node of another site needs no link to us; for a hub every member does.
        """
        declared, facts = self._unreachable(), self._facts()
        connected = {self._who.node, *self._peers.connected()}
        found: list[MeshAway] = []
        for node, about in facts.items():
            since: int | None = declared.get(node)
            by = "here" if since is None else "site"
            if since is None and (node in connected or not self._should_link(about)):
                continue
            since = self._left_ms.get(node) if since is None else since
            found.append(
                MeshAway(
                    node=node, name=about["name"], site=about["site"], role=about["role"],
                    since_ms=since, by=by,
                )
            )  # fmt: skip
        return sorted(found, key=lambda one: (one["site"], one["name"], one["node"]))

    def _should_link(self, about: Mapping[str, str]) -> bool:
        return self._who.role == HUB_ROLE or about["site"] == self._who.site

    def _sites(self, links: list[MeshLink], away: list[MeshAway]) -> list[MeshSite]:
        facts = self._facts()
        newest: dict[str, int] = {}
        for signed in self._store.heads.values():
            about = facts.get(signed.head.author)
            if about is not None:
                at_ms = milliseconds(signed.head.floor)
                newest[about["site"]] = max(at_ms, newest.get(about["site"], 0))
        members = Counter(about["site"] for about in facts.values())
        linked = Counter(link["site"] for link in links)
        gone = Counter(one["site"] for one in away)
        return [
            MeshSite(
                site=site, members=members[site], linked=linked[site], away=gone[site],
                newest_ms=newest.get(site),
            )
            for site in sorted(members)
        ]  # fmt: skip

    # -- all of them -------------------------------------------------------------------------

    def looked(self) -> tuple[int, Topology] | None:
        """Return the topology as of (Unix ms) the last gathering, and keep it fresh a while."""
        self._looked_s = trio.current_time()
        self._wanted.set()
        return self._gathered[1:] if self._gathered is not None else None

    async def gather(self) -> Topology:
        """Ask everybody with a link to us for theirs; a young answer is used again."""
        async with self._gathering:
            known = self._gathered
            if known is not None and trio.current_time() - known[0] < FRESH_S:
                return known[2]
            now_ms = self._clock.now_ms()
            own = heard(said(self.links(), self._is_gateway, now_ms))
            assert own is not None
            views: dict[str, tuple[int, Mapping[str, Any]]] = {self._who.node: (now_ms, own)}
            asked = sorted(self._peers.connected())[:ASKED_MAX]
            async with trio.open_nursery() as nursery:
                for node in asked:
                    nursery.start_soon(self._ask, node, views)
            found = topology(self._who.node, self._facts(), views, len(asked))
            self._gathered = (trio.current_time(), now_ms, found)
            return found

    async def _ask(self, node: str, views: dict[str, tuple[int, Mapping[str, Any]]]) -> None:
        try:
            view = heard(await self._peers.rpc(node, METHOD, {}, ASK_S))
        except (RemoteError, Unreachable):
            return  # not heard
        if view is not None:
            views[node] = (self._clock.now_ms(), view)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tell rates and departures; gather while somebody looks. Until cancelled."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample)
            while True:
                self._wanted = trio.Event()
                if trio.current_time() - self._looked_s > INTEREST_S:
                    await self._wanted.wait()
                await self.gather()
                await trio.sleep(FRESH_S)

    async def _sample(self) -> None:
        while True:
            self.sample(trio.current_time())
            await trio.sleep(SAMPLE_S)

    def sample(self, now: float) -> None:
        """Look at the counters of bytes and at who has gone since the last time."""
        connected = self._peers.connected()
        for node, info in connected.items():
            before = self._samples.get(node)
            if before is not None and info.bytes_in >= before[1] and now > before[0]:
                taken, went = info.bytes_in - before[1], info.bytes_out - before[2]
                span_s = now - before[0]
                self._rates[node] = (round(taken / span_s, 1), round(went / span_s, 1))
            else:
                self._rates.pop(node, None)
        self._samples = {n: (now, i.bytes_in, i.bytes_out) for n, i in connected.items()}
        here = set(connected)
        for node in self._seen - here:
            self._left_ms[node] = self._clock.now_ms()
            self._rates.pop(node, None)
        for node in here:
            self._left_ms.pop(node, None)
        self._seen = here


def _sentence(who: Who, links: int, others: int, away: int) -> str:
    where = "this hub" if who.role == HUB_ROLE else f"node {who.name} of site {who.site}"
    linked = f"{where} has {links} link{'' if links == 1 else 's'}"
    known = f"knows {others} other member{'' if others == 1 else 's'}"
    gone = f"; {away} out of reach" if away else ""
    return f"{linked} and {known}{gone}"
