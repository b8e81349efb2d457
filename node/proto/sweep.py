"""Which rows have had their time: a pure decision over the rows of one site.

It knows no store. Rules: what still has a use never goes, however full it is: jobs that have
not ended, the last job of each server, orders that could still be carried out again, machines
that are servers or about to become some. What nobody will ask for goes by age, and beyond a
number the oldest goes first. Rows of a merged table are deleted by the site's owner for all; a
row that is read author by author is dropped by its author alone.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.proto import tables
from mesh.proto.hlc import milliseconds
from mesh.proto.order import JOB_VERBS
from node.proto.job import TERMINAL

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
JOBS_KEPT_MS: Final = 30 * DAY_MS
JOBS_KEPT_MAX: Final = 1_000
"""Ended jobs of a site; older ones go before their time, but not before their order is void."""
ORDER_LIFE_MS: Final = 25 * HOUR_MS
"""Longest time in which a copy of a signed order could be taken for a new one, and an hour."""
BUDGET_KEPT_MS: Final = 2 * HOUR_MS
"""The budget counts works of the last hour; twice that covers clocks that differ."""
MACHINES_KEPT_MS: Final = 7 * DAY_MS
MACHINES_KEPT_MAX: Final = 2_000
"""Machines of a site that were seen and not accepted."""
CLAIM_KEPT_MS: Final = DAY_MS
SWEEP_MAX: Final = 500
"""Rows of one kind that one sweep ends; the next one goes on."""


class RowLike(Protocol):
    """A row of the store."""

    @property
    def author(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def hlc(self) -> int: ...  # noqa: D102
    @property
    def body(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that the decision rests on."""

    node: str
    owner: bool
    """Whether this node deletes what is merged."""
    now_ms: int
    jobs: Collection[RowLike]
    orders: Collection[RowLike]
    servers: Collection[RowLike]
    inventories: Collection[RowLike]
    sightings: Collection[RowLike]
    """Of all authors."""
    budgets: Collection[RowLike]
    claims: Collection[RowLike]
    """ASSET rows of all authors."""
    named: Mapping[str, str]
    """Asset id by name, of verified names."""
    alive: frozenset[str] = frozenset()
    """Nodes of the site that count now."""
    archive_ms: int = 0
    """Age at which an ended job leaves the lists; 0: never."""
    bmcs: Collection[RowLike] = ()
    """BMC_SIGHTING rows of all authors."""


@dataclass(frozen=True, slots=True)
class Gone:
    """One row that may go, unless it has changed since (``hlc``)."""

    table: str
    key: str
    hlc: int


def decide(known: Known) -> list[Gone]:
    """Return the rows that this node shall end now, each kind's oldest first."""
    machines = _machines(known)
    drop = _budgets(known) + _sightings(known, machines) + _claims(known) + _bmcs(known)
    if not known.owner:
        return drop
    return _jobs(known) + _inventories(known, machines) + drop


def _jobs(known: Known) -> list[Gone]:
    """Ended jobs with their orders, and orders that never became a job."""
    kept = _last_of_servers(known)
    ended = [row for row in known.jobs if str(row.body.get("state")) in TERMINAL]
    ended.sort(key=lambda row: (_ended_ms(row), row.key), reverse=True)
    orders = {row.key: row for row in known.orders}
    gone: list[Gone] = []
    for place, row in enumerate(ended):
        age_ms = known.now_ms - _ended_ms(row)
        old = age_ms > JOBS_KEPT_MS or place >= JOBS_KEPT_MAX
        if old and row.key not in kept and _void(row, known.now_ms):
            gone.append(_gone(tables.JOB, row))
    gone = gone[::-1][:SWEEP_MAX]
    with_orders = [_gone(tables.ORDER, orders[g.key]) for g in gone if g.key in orders]
    taken = {row.key for row in known.jobs}
    refused = [
        _gone(tables.ORDER, row)
        for row in sorted(known.orders, key=_created_ms)
        if row.key not in taken and known.now_ms - _created_ms(row) > JOBS_KEPT_MS
    ]
    return gone + with_orders + refused[:SWEEP_MAX]


def to_archive(known: Known) -> list[Gone]:
    """Return the ended jobs that this node shall put out of the lists now, oldest first.

    Each node its own: only a job's runner changes its row, so that no retry is lost; of nodes
    that left the site, the owner.
    """
    old = [
        row
        for row in known.jobs
        if known.archive_ms
        and str(row.body.get("state")) in TERMINAL
        and not row.body.get("archived_ms")
        and known.now_ms - _ended_ms(row) > known.archive_ms
        and (
            row.body.get("runner") == known.node
            or (known.owner and row.body.get("runner") not in known.alive)
        )
    ]
    old.sort(key=lambda row: (_ended_ms(row), row.key))
    return [_gone(tables.JOB, row) for row in old[:SWEEP_MAX]]


def _last_of_servers(known: Known) -> set[str]:
    """Return the jobs that say how a server came to be what it is."""
    kept = {str(row.body.get("job")) for row in known.servers}
    boots = [row.body.get("boot") for row in known.servers]
    kept |= {str(boot.get("job")) for boot in boots if isinstance(boot, Mapping)}
    last: dict[str, RowLike] = {}
    for row in known.jobs:
        server = row.body.get("server")
        if isinstance(server, str) and row.body.get("kind") not in JOB_VERBS:
            best = last.get(server)
            if best is None or (_created_ms(best), best.key) < (_created_ms(row), row.key):
                last[server] = row
    present = {row.key for row in known.servers}
    return kept | {row.key for server, row in last.items() if server in present}


def _void(row: RowLike, now_ms: int) -> bool:
    """Whether nobody could carry out this job's order again."""
    until = _ms(row.body.get("order_until_ms")) or _ms(row.body.get("not_after_ms"))
    until = until or _created_ms(row) + ORDER_LIFE_MS
    return now_ms > until + HOUR_MS


def _budgets(known: Known) -> list[Gone]:
    """Our entries that count no more, and those of a clock that has been set back since."""
    ours = ((row, _ms(row.body.get("at_ms"))) for row in known.budgets
            if row.author == known.node)  # fmt: skip
    return [
        _gone(tables.BUDGET, row)
        for row, at_ms in ours
        if 0 < at_ms < known.now_ms - BUDGET_KEPT_MS or at_ms > known.now_ms + BUDGET_KEPT_MS
    ][:SWEEP_MAX]


def _machines(known: Known) -> set[str]:
    """Return the MACs that stay, whatever their age: of servers, and of jobs under way."""
    macs = {mac for row in known.servers for mac in _texts(row.body.get("macs"))}
    for row in known.jobs:
        params = row.body.get("params")
        if str(row.body.get("state")) not in TERMINAL and isinstance(params, Mapping):
            macs.add(str(params.get("machine")))
    return macs


def _sightings(known: Known, machines: Collection[str]) -> list[Gone]:
    """Our sightings of machines that nobody has seen for long, or of too many of them."""
    last: dict[str, int] = {}
    for row in known.sightings:
        if row.key not in machines:
            last[row.key] = max(last.get(row.key, 0), _ms(row.body.get("last_ms")))
    old = set(_old(last, known.now_ms))
    ours = [row for row in known.sightings if row.author == known.node and row.key in old]
    ours.sort(key=lambda row: last[row.key])
    return [_gone(tables.SIGHTING, row) for row in ours][:SWEEP_MAX]


def _bmcs(known: Known) -> list[Gone]:
    """Our sightings of BMCs that no scan has found for long, or of too many of them."""
    last: dict[str, int] = {}
    for row in known.bmcs:
        last[row.key] = max(last.get(row.key, 0), _ms(row.body.get("last_ms")))
    ours = {row.key: row for row in known.bmcs if row.author == known.node}
    old = [ours[key] for key in _old(last, known.now_ms) if key in ours]
    return [_gone(tables.BMC_SIGHTING, row) for row in old][:SWEEP_MAX]


def _inventories(known: Known, machines: Collection[str]) -> list[Gone]:
    rows = {row.key: row for row in known.inventories if row.key not in machines}
    ages = {key: _ms(row.body.get("at_ms")) for key, row in rows.items()}
    return [_gone(tables.INVENTORY, rows[key]) for key in _old(ages, known.now_ms)][:SWEEP_MAX]


def _old(seen_ms: Mapping[str, int], now_ms: int) -> list[str]:
    """Return the machines beyond the age or the number that is kept, the oldest first."""
    newest = sorted(seen_ms, key=lambda mac: (seen_ms[mac], mac), reverse=True)
    return [
        mac
        for place, mac in reversed(list(enumerate(newest)))
        if place >= MACHINES_KEPT_MAX or now_ms - seen_ms[mac] > MACHINES_KEPT_MS
    ]


def _claims(known: Known) -> list[Gone]:
    """Our claims that a hub has signed: the name says it from now on."""
    return [
        _gone(tables.ASSET, row)
        for row in known.claims
        if row.author == known.node
        and isinstance(row.body.get("asset"), str)
        and known.named.get(str(row.body.get("name"))) == row.body["asset"]
        and known.now_ms - milliseconds(row.hlc) > CLAIM_KEPT_MS
    ][:SWEEP_MAX]


def _gone(table: str, row: RowLike) -> Gone:
    return Gone(table, row.key, row.hlc)


def _ended_ms(row: RowLike) -> int:
    return _ms(row.body.get("ended_ms")) or milliseconds(row.hlc)


def _created_ms(row: RowLike) -> int:
    return _ms(row.body.get("created_ms")) or milliseconds(row.hlc)


def _ms(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _texts(value: Any) -> Iterable[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
