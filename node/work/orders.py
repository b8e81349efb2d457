"""Orders become jobs: who runs one, whether it may begin now, what it waits for.

It knows rows and rules, no devices. Rules: only the rendezvous owner makes the job's row, in
one transaction that looks first; an order that cannot be carried out becomes a failed job with
one sentence, so that nobody waits in the dark; a job begins in the same transaction that takes
the server and counts the budget."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from mesh.host.log import get_log
from mesh.proto import budget, tables
from mesh.proto.order import DEPLOY, DESTRUCTIVE, Order, OrderRefused, check_class
from mesh.proto.rendezvous import ranked
from mesh.rest.orders import NOT_AFTER_MS
from node.proto import lifecycle
from node.proto.caps import Entry, delayed
from node.proto.hold import Met
from node.proto.job import ENDED, SENTENCE_CHARS_MAX, TERMINAL, held_sentence, new_steps
from node.proto.server_view import server_view
from node.work.discs import by_media
from node.work.logins import rotates
from node.work.means import put_server_view
from node.work.ports import Limits, Tx
from node.work.rows import SiteRows, plan_of, planned

log = get_log("jobs")

POLICY_KEY: Final = "policy"
"""Key of the BUDGET row by which each node tells the others its own limit."""
CLOCK_SLACK_MS: Final = 60_000
"""An order may look this much older than our start because of its author's clock."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an attempt to begin a job."""

    row: dict[str, Any]
    begun: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What a begin needs to know of the site beside its job, read before its transaction."""

    entries: tuple[budget.BudgetEntry, ...]
    limits_per_hour: Mapping[str, int]
    reachable: frozenset[str]
    """Nodes of the site that this one sees, itself included."""
    met: frozenset[str]
    """Of these, the ones whose rows are here; they count for the budget."""
    holders: Mapping[str, Collection[str]]
    """By secret, the nodes that can open it."""
    names: Mapping[str, str]
    """Of nodes that ever wrote about themselves."""
    jobs: tuple[Entry, ...] = ()
    """All that run or wait in the site, when it has caps."""


class Orders:
    """Decisions about the orders and jobs of one site, made at one node."""

    def __init__(
        self,
        rows: SiteRows,
        *,
        limits: Limits,
        destructive_per_hour: int,
        started_ms: int,
        connected: Callable[[], set[str]],
        holders: Callable[[], Mapping[str, Collection[str]]],
    ) -> None:
        """``holders()``: by secret, the nodes of the site that can open it."""
        self.rows = rows
        self._holders = holders
        self._limits = limits
        self._per_hour = destructive_per_hour
        self._started_ms = started_ms
        self._connected = connected
        self._links, self._met = Met(limits.meet_s), frozenset[str]()

    def look(self, now: float) -> None:
        """See which nodes are linked; at each look at the orders, seconds of a steady clock."""
        self._met = self._links.look(self._connected(), now)

    # -- who -------------------------------------------------------------------------------

    def runner_of(
        self,
        order_id: str,
        waited_s: float,
        secret: str | None = None,
        among: Collection[str] = (),
    ) -> str | None:
        """Return who shall run a new order, None while nobody can say.

        Given nodes ``among`` which it shall be, no others count.

        Of the nodes that run jobs only those count that can open ``secret``; when none can,
        the owner of all takes the order and says what is missing.

        The owner does at once, unless the order is older than this node's start: then another
        node may have done it long ago, and its job row is given ``settle_s`` to arrive. An
        owner out of reach is passed over after the same time; what it had begun would have come
        through any path that brought the order here."""
        order = ranked(sorted(among) or self._capable(secret), order_id)
        reachable = self._connected() | {self.rows.node_id}
        settled = waited_s >= self._limits.settle_s
        old = _made_ms(order_id) < self._started_ms - CLOCK_SLACK_MS
        if old and not settled and len(self.rows.site_nodes()) > 1:
            return None
        if order[0] in reachable:
            return order[0]
        return next((node for node in order if node in reachable), None) if settled else None

    def able_to_run(self, job: Mapping[str, Any]) -> list[str]:
        """Return the nodes that could run a job, reachable or not."""
        server = self.rows.server(str(job.get("server")))
        return self._capable(_bmc_secret(str(job["kind"]), job["params"], server))

    def _capable(self, secret: str | None) -> list[str]:
        able = {
            node
            for node, body in self.rows.node_bodies().items()
            if "jobs" in (body.get("services") or ())
        } | {self.rows.node_id}
        held = able.intersection(self._holders().get(secret, ())) if secret else able
        return sorted(held or able)

    def secret_of(self, order: Order) -> str | None:
        """Return the id of the secret that an order's job needs for the server's BMC."""
        server = self.rows.server(str(order.params.get("server")))
        return _bmc_secret(order.kind, order.params, server)

    # -- new jobs --------------------------------------------------------------------------

    def new_job(self, order: Order, now_ms: int) -> dict[str, Any]:
        """Return the JOB row of an order that this node runs; failed when it cannot be."""
        params = {key: value for key, value in order.params.items() if key != "user_data"}
        target = params.get("server")
        server = self.rows.server(target) or {}
        name = params.get("name") or server.get("name")
        bmc = bool(params.get("bmc") or server.get("bmc"))
        media, rotate = by_media(server, params), rotates(server, params)
        row: dict[str, Any] = {
            "id": order.id, "kind": order.kind, "site": self.rows.site, "server": target,
            "server_name": name, "runner": self.rows.node_id, "state": "queued",
            "waits_for": "waits for its turn", "author": order.author, "params": params,
            "group": order.group, "attempt": 1, "attempt_first": 1, "bmc": bmc, "media": media,
            "steps": [], "rotate": rotate,
            "created_ms": now_ms, "started_ms": None, "ended_ms": None, "error": None,
            "from_state": None, "not_after_ms": min(order.not_after_ms, now_ms + NOT_AFTER_MS),
            "order_until_ms": order.not_after_ms, "class": order.order_class, "agent": None,
            "touched": False, "dirty": False, "epoch": 1, "fence": None,
        }  # fmt: skip
        row["steps"] = new_steps(planned(row))
        return row

    def refused_job(self, order: Order, error: str, now_ms: int) -> dict[str, Any]:
        """Return the JOB row of an order that is not carried out; nothing of what it asks is
        kept, since that may be what is wrong with it."""
        about = order.params.get("server")
        target = self.rows.job(str(order.params.get("job"))) or {
            "server": about if isinstance(about, str) else None,
            "server_name": (self.rows.server(str(about)) or {}).get("name"),
        }
        return {
            **self.verb_job(order, target, error[:SENTENCE_CHARS_MAX], now_ms),
            "params": {},
        }

    def verb_job(
        self, order: Order, target: Mapping[str, Any], error: str | None, now_ms: int
    ) -> dict[str, Any]:
        """Return the JOB row of a cancel or retry: done at once, or refused with a sentence."""
        return {
            "id": order.id, "kind": order.kind, "site": self.rows.site,
            "server": target.get("server"), "server_name": target.get("server_name"),
            "runner": self.rows.node_id, "state": "failed" if error else "succeeded",
            "waits_for": None, "author": order.author, "params": dict(order.params),
            "group": order.group, "attempt": 1, "steps": [], "created_ms": now_ms,
            "started_ms": now_ms, "ended_ms": now_ms, "error": error,
        }  # fmt: skip

    # -- begin -----------------------------------------------------------------------------

    def begin(
        self,
        tx: Tx,
        job_id: str,
        running: Mapping[str, Mapping[str, Any]],
        standing: Standing,
    ) -> Verdict | None:
        """Begin a queued or blocked job if it may; else write what it waits for.

        Runs in a store transaction. Returns None when the row is not ours to begin any more.
        """
        known = tx.get(self.rows.scope, tables.JOB, job_id)
        if known is None or known.body.get("runner") != self.rows.node_id:
            return None
        row = dict(known.body)
        if row["state"] not in {"queued", "blocked"}:
            return None
        target = row.get("server")
        server_row = tx.get(self.rows.scope, tables.SERVER, target) if target else None
        server: Mapping[str, Any] | None = None if server_row is None else server_row.body
        held = held_sentence(row)
        waits = ("blocked", held) if held else self._busy(tx, row, server, standing)
        waits = waits or self._hung(row, running) or self._slots(row, server, running, standing)
        if waits is not None:
            return self._wait(tx, row, *waits)
        refusal = self._refusal(tx, row, server)
        if refusal is not None:
            return self._fail(tx, row, refusal)
        waits = self._locked(row, server, standing)
        waits = waits or self._over_budget(tx, row, server, standing)
        if waits is not None:
            return self._wait(tx, row, *waits)
        if not row.get("touched") and server is not None and server.get("job") != job_id:
            row["from_state"] = server.get("state")
        if row.get("started_ms") is None and server is not None:
            self._replan(row, server)
        row.update(
            state="running", waits_for=None, started_ms=row.get("started_ms") or tx.now_ms
        )
        tx.put(self.rows.scope, tables.JOB, job_id, row)
        put_server_view(tx, self.rows.scope, row, server_view(row, plan_of(row)))
        return Verdict(row, True)

    def _replan(self, row: dict[str, Any], server: Mapping[str, Any]) -> None:
        """Plan by what the server is now: it may have been unknown when the order came."""
        row["server_name"] = server.get("name") or row.get("server_name")
        row["bmc"], row["media"] = bool(server.get("bmc")), by_media(server, {})
        row["rotate"], row["fence"] = rotates(server, {}), server.get("fence")
        row["steps"] = new_steps(planned(row))

    def _hung(
        self, row: Mapping[str, Any], running: Mapping[str, Mapping[str, Any]]
    ) -> tuple[str, str] | None:
        """Say that a job which was killed has not let go of the server yet."""
        same = (other for other in running.values() if other.get("server") == row["server"])
        last = next(same, None) if row.get("server") else None
        if last is None:
            return None
        name = last.get("server_name") or last["server"]
        return "blocked", f"waits for the last call of {last['kind']} to {name} to come back"

    def _busy(
        self,
        tx: Tx,
        row: Mapping[str, Any],
        server: Mapping[str, Any] | None,
        standing: Standing,
    ) -> tuple[str, str] | None:
        other_id = (server or {}).get("job")
        if not other_id or other_id == row["id"]:
            return None
        other = tx.get(self.rows.scope, tables.JOB, other_id)
        if other is None or other.body.get("state") in TERMINAL:
            return None
        waits = self._silent(str(other.body.get("runner")), standing) or other.body.get(
            "waits_for"
        )
        waits = waits or "it is working"
        name = (server or {}).get("name")
        return "blocked", f"waits for {other.body.get('kind')} of {name} to end ({waits})"

    def _silent(self, runner: str, standing: Standing) -> str | None:
        """Say why a job's runner does not go on with it, or None."""
        if runner in standing.reachable:
            return None
        name = standing.names.get(runner) or runner[:8]
        if runner not in self.rows.site_nodes():
            return f"its runner {name} left the site: cancel that job"
        return f"its runner {name} is out of reach"

    def _slots(
        self,
        row: Mapping[str, Any],
        server: Mapping[str, Any] | None,
        running: Mapping[str, Mapping[str, Any]],
        standing: Standing,
    ) -> tuple[str, str] | None:
        """Say which cap of this node or of the site keeps the job back, and who is before."""
        if len(running) >= self._limits.jobs_max:
            first = _first_of(running.values())
            return "queued", (
                f"delayed: waits for one of {len(running)} running jobs to end, as {first}"
            )
        hard = [body for body in running.values() if body.get("class") == DESTRUCTIVE]
        if row.get("class") == DESTRUCTIVE and len(hard) >= self._limits.destructive_max:
            return "queued", (
                f"delayed: waits for one of {len(hard)} jobs that wipe or overwrite, as"
                f" {_first_of(hard)}"
            )
        if not self._limits.caps:
            return None
        job = _entry(row, server, standing.reachable)
        late = delayed(job, standing.jobs, self._limits.caps)
        return ("queued", late) if late else None

    def _locked(
        self, row: Mapping[str, Any], server: Mapping[str, Any] | None, standing: Standing
    ) -> tuple[str, str] | None:
        """Say who must set a secret again before this node can speak with the BMC."""
        secret = _bmc_secret(str(row["kind"]), row["params"], server)
        holders = standing.holders.get(secret, ()) if secret else ()
        if not secret or self.rows.node_id in holders:
            return None
        site, me = self.rows.site, self.rows.node_id
        again = f"rackmesh secret set {secret} --site {site} --username NAME"
        if holders:
            return "blocked", (
                f"its runner does not have the secret {secret!r}: somebody must release it"
                f" (rackmesh secret release --node {me}) or set it again ({again})"
            )
        return "blocked", (
            f"no node of site {site} has the secret {secret!r}: somebody must set it again on a"
            f" hub ({again})"
        )

    def _refusal(
        self, tx: Tx, row: Mapping[str, Any], server: Mapping[str, Any] | None
    ) -> str | None:
        late_ms = tx.now_ms - row["not_after_ms"]
        if row.get("started_ms") is None and late_ms > 0:
            return f"the order ran out of time {late_ms // 1000} s ago while it waited"
        if row["kind"] == lifecycle.SCAN:
            return None
        if row["kind"] in lifecycle.ENROLS:
            servers, inventories = (
                [item.body for item in tx.rows(self.rows.scope, table)]
                for table in (tables.SERVER, tables.INVENTORY)
            )
            return lifecycle.refuse_accept(row["params"], servers, inventories)
        if (server or {}).get("job") == row["id"]:
            return None  # it was parked, and a person said retry
        refusal = lifecycle.refuse(row["kind"], row["params"], server)
        if refusal is None and row["kind"] == DEPLOY and server is not None:
            return self._wrong_class(row, bool(server.get("cleaned")))
        return refusal

    def _wrong_class(self, row: Mapping[str, Any], cleaned: bool) -> str | None:
        if row.get("dirty"):
            return None  # what a retry overwrites is this job's own
        order = Order(
            id=row["id"], region="", region_epoch=0, site=row["site"], kind=row["kind"],
            params=row["params"], author=row["author"], not_after_ms=row["not_after_ms"],
            order_class=row["class"],
        )  # fmt: skip
        try:
            check_class(order, cleaned)
        except OrderRefused as exc:
            return str(exc)
        return None

    def _over_budget(
        self,
        tx: Tx,
        row: Mapping[str, Any],
        server: Mapping[str, Any] | None,
        standing: Standing,
    ) -> tuple[str, str] | None:
        """Count a destructive job into the budget, or say what it waits for."""
        if not lifecycle.destructive(row["kind"], row["params"], server):
            return None
        verdict = budget.decide(
            row["id"],
            standing.entries,
            now_ms=tx.now_ms,
            limits_per_hour=standing.limits_per_hour,
            reachable=standing.met,
        )
        if isinstance(verdict, budget.OverBudget):
            wait_min = -(-verdict.retry_ms // 60_000)
            return "blocked", f"{verdict.detail}; looks again in {wait_min} min at the latest"
        if tx.own(self.rows.scope, tables.BUDGET, row["id"]) is None:
            body = {"at_ms": tx.now_ms, "kind": row["kind"], "server": row["server"]}
            tx.put(self.rows.scope, tables.BUDGET, row["id"], body)
        return None

    def standing(self) -> Standing:
        """Return how the site stands; read before the transaction that begins."""
        entries: list[budget.BudgetEntry] = []
        told: dict[str, int] = {}
        for item in self.rows.store.authored(self.rows.scope, tables.BUDGET):
            limit, at_ms = item.body.get("limit"), item.body.get("at_ms")
            if item.key == POLICY_KEY:
                if isinstance(limit, int) and limit >= 0:
                    told[item.author] = limit
            elif isinstance(at_ms, int):
                entries.append(budget.BudgetEntry(item.author, item.key, at_ms))
        limits = {node: told.get(node, self._per_hour) for node in self.rows.site_nodes()}
        limits[self.rows.node_id] = self._per_hour
        reachable = frozenset(self._connected() | {self.rows.node_id})
        names = self.rows.node_names()
        jobs: tuple[Entry, ...] = ()
        if self._limits.caps:
            open_ones = (b for b in self.rows.jobs().values() if b["state"] not in ENDED)
            jobs = tuple(
                _entry(body, self.rows.server(body.get("server")), reachable)
                for body in open_ones
            )
        met = (self._met & reachable) | {self.rows.node_id}
        return Standing(tuple(entries), limits, reachable, met, self._holders(), names, jobs)

    def put_policy(self, tx: Tx) -> None:
        """Tell the others our limit."""
        own = tx.own(self.rows.scope, tables.BUDGET, POLICY_KEY)
        if own is None or own.body.get("limit") != self._per_hour:
            tx.put(self.rows.scope, tables.BUDGET, POLICY_KEY, {"limit": self._per_hour})

    # -- written ends ----------------------------------------------------------------------

    def _wait(self, tx: Tx, row: dict[str, Any], state: str, waits: str) -> Verdict:
        if (row["state"], row.get("waits_for")) != (state, waits):
            row.update(state=state, waits_for=waits)
            tx.put(self.rows.scope, tables.JOB, row["id"], row)
        return Verdict(row, False)

    def _fail(self, tx: Tx, row: dict[str, Any], error: str) -> Verdict:
        row.update(state="failed", error=error, waits_for=None, ended_ms=tx.now_ms)
        tx.put(self.rows.scope, tables.JOB, row["id"], row)
        log.warning("order refused", job=row["id"], kind=row["kind"], reason=error)
        return Verdict(row, False)


def ended(row: Mapping[str, Any]) -> bool:
    """Whether a job needs no runner: over, or parked for a person."""
    return row.get("state") in ENDED


def _bmc_secret(
    kind: str, params: Mapping[str, Any], server: Mapping[str, Any] | None
) -> str | None:
    """Return the id of the secret without which a job cannot speak with its BMC."""
    if kind in lifecycle.ENROLS:
        speaks = params.get("inspect") or rotates(None, params)
        bmc = params.get("bmc") if speaks else None
    else:
        bmc = (server or {}).get("bmc")
    secret = bmc.get("secret") if isinstance(bmc, Mapping) else None
    return str(secret) if secret else None


def _first_of(running: Iterable[Mapping[str, Any]]) -> str:
    """Name the oldest of some running jobs."""
    first = min(running, key=lambda body: str(body["id"]))
    return f"{first['kind']} of {_name(first)}"


def _name(row: Mapping[str, Any]) -> str:
    """Return the name of a job's server, or of its site when it is about no server."""
    return str(row.get("server_name") or row.get("server") or row.get("site"))


def _entry(
    row: Mapping[str, Any], server: Mapping[str, Any] | None, reachable: Collection[str]
) -> Entry:
    """Return a job as caps count it."""
    bmc = (server or {}).get("bmc") or row["params"].get("bmc")
    url = bmc.get("url") if isinstance(bmc, Mapping) else None
    return Entry(
        id=row["id"],
        kind=row["kind"],
        name=_name(row),
        device=_host(url),
        running=row["state"] in {"running", "retry_wait", "held"},
        waits=row["state"] == "queued" and row["runner"] in reachable,
    )


def _host(url: Any) -> str | None:
    """Return the host of a BMC's URL; None for what is none."""
    try:
        return urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None


def _made_ms(order_id: str) -> int:
    return int(order_id.replace("-", "")[:12], 16)
