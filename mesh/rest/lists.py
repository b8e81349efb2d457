"""Lists: what can be filtered and sorted, and one page of it after another.

Hub and node use the same plans, so a list means the same wherever it is asked. It knows no
store: ``page`` works on what is in memory, and a store that can do better follows the same
plan (``hub/store.py``; the tests compare the two). Rules: nothing is cut without a ``next``; a
cursor names the last resource of a page by its place in the order, so what comes or goes
meanwhile moves nothing else.
"""

import base64
import heapq
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.rest import bmc_types, erase_types, filters, hook_types, template_types, types
from mesh.rest.problems import RequestProblem
from mesh.rest.requests import CURSOR_CHARS_MAX, ListQuery

JOB_OVER: Final = ("succeeded", "failed", "cancelled", "refused")
"""States of a job that nobody waits for any more; a parked one waits for a person."""
JOB_RANKS: Final = {"parked": 1, "failed": 2, "refused": 2, "succeeded": 3, "cancelled": 3}
"""What operators look at first: in hand (0), waiting for a person, failed, over."""

Item = Mapping[str, Any]
Value = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOf:
    """What can be asked of the list of one noun."""

    noun: str
    item: type
    """What stands in the list, a type of mesh/rest/types.py."""
    keys: Mapping[str, str]
    """Filter key -> field, ``field.inner`` looks into a list of objects."""
    text: tuple[str, ...]
    """Fields in which bare words are looked for."""
    sorts: Mapping[str, Value]
    """Sortable field -> what stands for a missing value, which is of the field's type too."""
    order: str
    """The order when none is asked for."""
    identity: tuple[str, ...] = ("id",)
    """Fields that tell two resources apart; they end every order."""
    derived: Mapping[str, Callable[[Item], Value]] = field(default_factory=dict)
    """Sortable names that are no fields, and how to tell them."""


LISTS: Final[Mapping[str, ListOf]] = {
    spec.noun: spec
    for spec in (
        ListOf(
            noun="sites", item=types.Site,
            keys={"name": "name", "site": "name", "region": "region"},
            text=("name", "region"), order="name", identity=("name",),
            sorts={"name": "", "nodes": -1, "servers": -1, "jobs_running": -1,
                   "last_contact_ms": -1},
        ),
        ListOf(
            noun="nodes", item=types.Node,
            keys={"site": "site", "name": "name", "role": "roles", "status": "status",
                  "reachable": "reachable", "build": "build", "service": "services"},
            text=("name", "id", "site"), order="site,name",
            sorts={"site": "", "name": "", "status": "", "build": "", "last_contact_ms": -1},
        ),
        ListOf(
            noun="servers", item=types.Server,
            keys={"site": "site", "state": "state", "name": "name", "image": "image",
                  "hostname": "hostname", "mac": "macs", "ip": "ip", "cleaned": "cleaned",
                  "hold": "hold", "job": "job", "bmc": "bmc", "error": "error",
                  "bmc_secret": "bmc_secret", "boot-by": "boot_by",
                  "administration": "administration",
                  "tag": "tags", "serial": "serial"},
            text=("name", "hostname", "macs", "summary", "ip", "id", "tags", "serial"),
            order="site,name",
            sorts={"site": "", "name": "", "state": "", "image": "", "hostname": "", "ip": "",
                   "changed_ms": -1},
        ),
        ListOf(
            noun="pending", item=types.Pending,
            keys={"site": "site", "mac": "mac", "ip": "ip", "arch": "arch", "where": "where",
                  "serial": "serial", "vendor": "vendor", "model": "model", "port": "port",
                  "rejected": "rejected"},
            text=("mac", "ip", "summary", "uuid", "serial", "vendor", "model", "port"),
            order="-last_ms", identity=("mac", "site"),
            sorts={"last_ms": -1, "first_ms": -1, "mac": "", "site": "", "serial": "",
                   "vendor": "", "model": "", "port": ""},
        ),
        ListOf(
            noun="bmcs", item=bmc_types.FoundBmc,
            keys={"site": "site", "ip": "ip", "vendor": "vendor", "product": "product",
                  "uuid": "uuid", "server": "servers", "redfish": "redfish", "ipmi": "ipmi"},
            text=("url", "ip", "vendor", "product", "uuid", "servers"), order="-last_ms",
            identity=("url", "site"),
            sorts={"last_ms": -1, "first_ms": -1, "url": "", "site": "", "ip": "",
                   "vendor": "", "product": ""},
        ),
        ListOf(
            noun="jobs", item=types.Job,
            keys={"site": "site", "state": "state", "kind": "kind", "server": "server",
                  "name": "server_name", "group": "group", "runner": "runner",
                  "author": "author", "error": "error", "held": "held",
                  "archived": "archived"},
            text=("id", "server_name", "kind", "error", "waits_for"), order="over,-id",
            sorts={"over": 0, "rank": 0, "id": "", "site": "", "state": "", "kind": "",
                   "created_ms": -1, "ended_ms": -1},
            derived={"over": lambda job: int(job.get("state") in JOB_OVER),
                     "rank": lambda job: JOB_RANKS.get(str(job.get("state")), 0)},
        ),
        ListOf(
            noun="groups", item=types.Group,
            keys={"site": "sites", "state": "state", "kind": "kind", "author": "author"},
            text=("id", "kind", "author", "error"), order="-id",
            sorts={"id": "", "state": "", "created_ms": -1, "total": -1},
        ),
        ListOf(
            noun="assets", item=types.Asset,
            keys={"name": "name", "site": "sites.site", "state": "sites.state",
                  "kind": "kind", "trust": "trust"},
            text=("name", "url", "sha256", "asset"), order="name", identity=("name",),
            sorts={"name": "", "size": -1, "kind": "", "created_ms": -1},
        ),
        ListOf(
            noun="tokens", item=types.Token,
            keys={"site": "site", "state": "state", "role": "roles"},
            text=("id", "site"), order="-created_ms",
            sorts={"created_ms": -1, "expires_ms": -1, "site": "", "state": ""},
        ),
        ListOf(
            noun="hubs", item=types.Hub,
            keys={"name": "name", "region": "region", "state": "state"},
            text=("id", "name", "region"), order="name",
            sorts={"name": "", "region": "", "state": ""},
        ),
        ListOf(
            noun="secrets", item=types.Secret,
            keys={"site": "site", "kind": "kind", "name": "id"},
            text=("id", "site"), order="id", sorts={"id": "", "site": "", "changed_ms": -1},
        ),
        ListOf(
            noun="templates", item=template_types.Template,
            keys={"name": "name", "format": "format"}, text=("name",), order="name",
            identity=("name",), sorts={"name": "", "format": "", "changed_ms": -1},
        ),
        ListOf(
            noun="erase-records", item=erase_types.EraseRecord,
            keys={"site": "site", "server": "server", "name": "server_name", "job": "job",
                  "serial": "serial", "method": "method", "level": "level",
                  "proved": "proved", "node": "node"},
            text=("id", "server_name", "serial", "method", "author"), order="-ended_ms",
            sorts={"ended_ms": -1, "site": "", "server_name": "", "serial": "", "method": ""},
        ),
        ListOf(
            noun="hooks", item=hook_types.Hook,
            keys={"name": "name", "point": "point", "kind": "kind", "site": "site"},
            text=("name", "url", "command", "host", "playbook", "asset"), order="name",
            identity=("name",),
            sorts={"name": "", "point": "", "kind": "", "site": "", "changed_ms": -1},
        ),
        ListOf(
            noun="accounts", item=types.Account,
            keys={"name": "name", "role": "role", "disabled": "disabled"},
            text=("name",), order="name", identity=("name",),
            sorts={"name": "", "role": "", "created_ms": -1, "changed_ms": -1},
        ),
        ListOf(
            noun="api-tokens", item=types.ApiToken,
            keys={"name": "name", "role": "role", "state": "state", "by": "created_by"},
            text=("id", "name"), order="-created_ms",
            sorts={"created_ms": -1, "expires_ms": -1, "last_used_ms": -1, "name": "",
                   "state": ""},
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One page that was asked for, checked."""

    of: ListOf
    kept: filters.Filter
    order: tuple[tuple[str, bool], ...]
    """(field, descending) from the weightiest on; the identity is the end of it."""
    after: tuple[Value, ...] | None
    """The place after which the page begins, one value for each field of ``order``."""
    limit: int
    fields: tuple[str, ...] | None

    def keeps(self, item: Item) -> bool:
        """Tell whether a resource passes the filter."""
        return not self.kept or filters.matches(self.kept, item, self.of.keys, self.of.text)

    def place(self, item: Item) -> tuple[Value, ...]:
        """Return where a resource stands: its values of the fields of ``order``."""
        return tuple(_value(self.of, name, item) for name, _ in self.order)

    def cursor(self, place: tuple[Value, ...]) -> str:
        """Return the cursor of what comes after a place."""
        text = json.dumps([_spelled(self.order), *place], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def shown(self, item: Item) -> dict[str, Any]:
        """Return a resource with the fields that were asked for."""
        if self.fields is None:
            return dict(item)
        return {name: item[name] for name in self.fields if name in item}


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and the cursor of the next part, None at the end."""

    items: list[dict[str, Any]]
    next: str | None


def plan(noun: str, query: ListQuery | None = None) -> Plan:
    """Return the plan of a page; raises RequestProblem with one sentence."""
    of, query = LISTS[noun], query or ListQuery()
    kept = filters.parse(query.filter, of.keys) if query.filter else filters.NOTHING
    order = _order(of, query.sort or of.order)
    return Plan(
        of=of,
        kept=kept,
        order=order,
        after=_place(of, order, query.cursor) if query.cursor else None,
        limit=query.limit,
        fields=_fields(of, query.fields) if query.fields else None,
    )


def page(asked: Plan, items: Iterable[Item]) -> Page:
    """Return the page of a list that is in memory."""
    turned = [descending for _, descending in asked.order]

    def key(place: tuple[Value, ...]) -> tuple[Any, ...]:
        pairs = zip(place, turned, strict=True)
        return tuple(_Down(value) if down else value for value, down in pairs)

    found = ((key(asked.place(item)), item) for item in items if asked.keeps(item))
    if asked.after is not None:
        begin = key(asked.after)
        found = ((at, item) for at, item in found if begin < at)
    first = heapq.nsmallest(asked.limit + 1, found, key=lambda pair: pair[0])
    rows = [item for _, item in first[: asked.limit]]
    more = len(first) > asked.limit
    cursor = asked.cursor(asked.place(rows[-1])) if more else None
    return Page([asked.shown(item) for item in rows], cursor)


@dataclass(frozen=True, slots=True)
class _Down:
    """A value that sorts the other way round."""

    value: Any

    def __lt__(self, other: "_Down") -> bool:
        return bool(other.value < self.value)


def _order(of: ListOf, text: str) -> tuple[tuple[str, bool], ...]:
    order: dict[str, bool] = {}
    for word in text.split(","):
        name = word.strip().removeprefix("-")
        if name not in of.sorts:
            raise RequestProblem(
                "bad-request",
                f"{of.noun} cannot be sorted by {name[:40]!r}; known: "
                f"{', '.join(sorted(of.sorts))}, each with - before it for descending",
            )
        order.setdefault(name, word.strip().startswith("-"))
    down = next(reversed(order.values()))
    for name in of.identity:
        order.setdefault(name, down)
    return tuple(order.items())


def _fields(of: ListOf, text: str) -> tuple[str, ...]:
    known = of.item.__annotations__
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise RequestProblem(
                "bad-request",
                f"{of.noun} have no field {name[:40]!r}; known: {', '.join(sorted(known))}",
            )
    return names


def _spelled(order: tuple[tuple[str, bool], ...]) -> str:
    return ",".join(f"{'-' if down else ''}{name}" for name, down in order)


def _value(of: ListOf, name: str, item: Item) -> Value:
    missing = of.sorts.get(name, "")
    value = of.derived[name](item) if name in of.derived else item.get(name)
    right = isinstance(value, type(missing)) and not isinstance(value, bool)
    return value if right else missing  # type: ignore[return-value]


def _place(of: ListOf, order: tuple[tuple[str, bool], ...], cursor: str) -> tuple[Value, ...]:
    wrong = RequestProblem(
        "bad-request",
        f"the cursor {cursor[:20]!r} is none of this list in this order; take `next` of an"
        " earlier answer, or leave it out to begin anew",
    )
    if len(cursor) > CURSOR_CHARS_MAX:
        raise wrong
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        spelled, *place = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise wrong from None
    types = [type(of.sorts.get(name, "")) for name, _ in order]
    if spelled != _spelled(order) or [type(value) for value in place] != types:
        raise wrong
    return tuple(place)
