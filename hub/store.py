"""The reporting store: what the console and the API read, and nothing else.

A separate SQLite file of JSON documents by scope, filled by ``hub/ingest.py``. It knows nothing
of where documents come from. Rule: the documents of a scope and the cursor up to which they
were read change in one transaction, so a crash between them cannot happen; the file may be
deleted at any time and is filled again from the mesh.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast, get_args

import msgspec

from hub.page_query import page_query, tally_query
from hub.proto.rollup import Changes, Document, digest_of
from mesh.errors import Refused, StoreBroken
from mesh.host.files import put_aside
from mesh.host.log import get_log
from mesh.host.sqlite_errors import mapped
from mesh.proto.tables import ServerState
from mesh.rest.filters import NONE
from mesh.rest.lists import JOB_OVER, Page, Plan, Value

LIST_MAX: Final = 10_000
"""Most documents that one list returns."""
BUSY_MS: Final = 5000
RUNNING: Final = ("queued", "blocked", "running", "retry_wait", "held")
"""Job states that count as work in hand."""
FAILED: Final = tuple(state for state in get_args(ServerState) if state.endswith(" failed"))
"""Server states that want a person."""
WAITING: Final = ("waiting",)
"""State of pending machines that nobody has put aside."""

CHUNK: Final = 200
"""Documents that are in memory at once while a page is filled."""
Json = dict[str, Any]
Seen = Callable[[list[Json]], list[Json]]
log = get_log("reports")


class ReportStore:
    """Documents, cursors and contacts; writing methods may run in one other thread."""

    def __init__(self, connection: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self._db = connection
        self._reader = reader

    @classmethod
    def open(cls, path: Path) -> "ReportStore":
        """Open or make the file, bringing its schema up to date.

        A damaged file is put aside and made anew: the mesh holds everything in it. Raises
        Refused when that does not help.
        """
        try:
            return cls._open(path)
        except Refused as exc:
            if not path.is_file():
                raise
            log.warning("reports put aside", path=path, error=exc)
            put_aside(path)
            return cls._open(path)

    @classmethod
    def _open(cls, path: Path) -> "ReportStore":
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            connection.execute("PRAGMA cache_size=-2000")
            connection.execute("PRAGMA trusted_schema=OFF")
            _migrate(connection)
            _verify(connection)
            reader = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
            )
            reader.execute("PRAGMA cache_size=-2000")
        except sqlite3.DatabaseError as exc:
            if connection is not None:
                connection.close()
            raise Refused(f"the reports in {path} cannot be used: {exc}") from exc
        return cls(connection, reader)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._db.close()

    # -- writing -------------------------------------------------------------------------

    def digests(self, scope: str) -> dict[tuple[str, str], bytes]:
        """Return the digest of every document of a scope by (kind, id)."""
        rows = self._db.execute(
            "SELECT kind, id, digest FROM document WHERE scope = ?", (scope,)
        )
        return {(kind, key): digest for kind, key, digest in rows}

    def cursor(self, scope: str) -> bytes | None:
        """Return what identifies the state of a scope that was read last."""
        row = self._db.execute("SELECT cursor FROM scope WHERE scope = ?", (scope,)).fetchone()
        return row[0] if row else None

    def apply(self, scope: str, changes: Changes, cursor: bytes, now_ms: int) -> None:
        """Change a scope's documents and move its cursor, in one transaction."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO document"
                " (scope, kind, id, site, name, state, job_group, digest, doc, changed_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [_parameters(scope, document, now_ms) for document in changes.put],
            )
            self._db.executemany(
                "DELETE FROM document WHERE scope = ? AND kind = ? AND id = ?",
                [(scope, kind, key) for kind, key in changes.drop],
            )
            self._db.execute(
                "INSERT OR REPLACE INTO scope (scope, cursor, read_ms) VALUES (?, ?, ?)",
                (scope, cursor, now_ms),
            )

    def touch(self, contacts: Mapping[str, int]) -> None:
        """Remember when nodes were last in contact, by node id; never moves backwards."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO contact (node, last_ms) VALUES (?, ?)"
                " ON CONFLICT (node) DO UPDATE SET last_ms = max(last_ms, excluded.last_ms)",
                list(contacts.items()),
            )

    # -- reading -------------------------------------------------------------------------

    def documents(
        self, kind: str, site: str | None = None, limit: int = LIST_MAX
    ) -> list[Json]:
        """Return the documents of a kind, of one site or of all, by site, name and id."""
        rows = self._reader.execute(
            "SELECT doc FROM document WHERE kind = ? AND (? IS NULL OR site = ?)"
            " ORDER BY site, name, id LIMIT ?",
            (kind, site, site, limit),
        )
        return [cast(Json, msgspec.json.decode(doc)) for (doc,) in rows]

    def jobs(self, site: str | None = None, limit: int = LIST_MAX) -> list[Json]:
        """Return jobs: those in hand first, each newest first (ids sort by time)."""
        marks = ", ".join("?" * len(RUNNING))
        rows = self._reader.execute(
            "SELECT doc FROM document WHERE kind = 'job' AND (? IS NULL OR site = ?)"  # noqa: S608
            f" ORDER BY state NOT IN ({marks}), id DESC LIMIT ?",
            (site, site, *RUNNING, limit),
        )
        return [cast(Json, msgspec.json.decode(doc)) for (doc,) in rows]

    def page(self, kind: str, asked: Plan, as_seen: Seen | None = None) -> Page:
        """Return a page of the documents of a kind.

        The order and what the filter says of columns is SQLite's work, the rest is told
        document by document. ``as_seen`` shows documents as they are now: it may change any
        field but those of the order, and the state of queued ones.
        """
        query, values = page_query(kind, asked, changing=as_seen is not None)
        found = self._reader.execute(query, values).fetchall()
        items: list[Json] = []
        last: tuple[Value, ...] = ()
        for start in range(0, len(found), CHUNK):
            rows = found[start : start + CHUNK]
            documents = self._texts([row[0] for row in rows])
            for row, item in zip(
                rows, as_seen(documents) if as_seen else documents, strict=True
            ):
                if not asked.keeps(item):
                    continue
                if len(items) == asked.limit:
                    return Page(items, asked.cursor(last))
                items.append(asked.shown(item))
                last = row[1:]
        return Page(items, None)

    def tally(self, kind: str, asked: Plan, field: str) -> dict[str, int]:
        """Return how many documents pass a plan's filter, by the values of a text field.

        What has no value counts as NONE; the values come sorted.
        """
        query, values, exact = tally_query(kind, asked, field)
        rows = self._reader.execute(query, values)
        if exact:
            pairs = cast("Iterable[tuple[str | None, int]]", rows)
        else:
            items = (cast(Json, msgspec.json.decode(doc)) for (doc,) in rows)
            pairs = ((item.get(field), 1) for item in items if asked.keeps(item))
        found: Counter[str] = Counter()
        for value, count in pairs:
            found[value or NONE] += count
        return dict(sorted(found.items()))

    def _texts(self, numbers: list[int]) -> list[Json]:
        marks = ", ".join("?" * len(numbers))
        rows = self._reader.execute(
            f"SELECT rowid, doc FROM document WHERE rowid IN ({marks})",  # noqa: S608
            numbers,
        )
        found = dict(rows.fetchall())
        return [cast(Json, msgspec.json.decode(found[number])) for number in numbers]

    def find(self, kind: str, name_or_id: str) -> list[Json]:
        """Return the documents of a kind with this id, or else with this name."""
        for column in ("id", "name"):
            rows = self._reader.execute(
                f"SELECT doc FROM document WHERE kind = ? AND {column} = ?"  # noqa: S608
                " ORDER BY site, id LIMIT 100",
                (kind, name_or_id),
            ).fetchall()
            if rows:
                return [cast(Json, msgspec.json.decode(doc)) for (doc,) in rows]
        return []

    def saying(self, kind: str, text: str) -> list[Json]:
        """Return the documents of a kind in whose JSON a text stands."""
        rows = self._reader.execute(
            "SELECT doc FROM document WHERE kind = ? AND instr(doc, ?) LIMIT 100", (kind, text)
        )
        return [cast(Json, msgspec.json.decode(doc)) for (doc,) in rows]

    def ordered(self) -> set[str]:
        """Return the ids of servers with a job that has not ended."""
        marks = ", ".join("?" * len(JOB_OVER))
        rows = self._reader.execute(
            "SELECT DISTINCT json_extract(doc, '$.server') FROM document"  # noqa: S608
            f" WHERE kind = 'job' AND state NOT IN ({marks})",
            JOB_OVER,
        )
        return {server for (server,) in rows if server is not None}

    def grouped(self, group: str | None = None, *, steps: bool = True) -> list[Json]:
        """Return the jobs of one group, with their steps or without; of all groups without."""
        column = "doc" if group is not None and steps else "json_remove(doc, '$.steps')"
        rows = self._reader.execute(
            f"SELECT {column} FROM document WHERE job_group != ''"  # noqa: S608
            " AND (? IS NULL OR job_group = ?) ORDER BY id",
            (group, group),
        )
        return [cast(Json, msgspec.json.decode(doc)) for (doc,) in rows]

    def counts(self, kind: str, states: Iterable[str] | None = None) -> dict[str, int]:
        """Return how many documents of a kind each site has, counting only these states."""
        chosen = list(states) if states is not None else None
        where = f" AND state IN ({', '.join('?' * len(chosen))})" if chosen is not None else ""
        rows = self._reader.execute(
            f"SELECT site, count(*) FROM document WHERE kind = ?{where} GROUP BY site",  # noqa: S608
            (kind, *(chosen or [])),
        )
        return dict(rows)

    def states(self, kind: str) -> dict[str, dict[str, int]]:
        """Return how many documents of a kind each site has in each state."""
        rows = self._reader.execute(
            "SELECT site, state, count(*) FROM document WHERE kind = ? GROUP BY site, state",
            (kind,),
        )
        found: dict[str, dict[str, int]] = {}
        for site, state, number in rows:
            found.setdefault(site, {})[state] = number
        return found

    def contacts(self) -> dict[str, int]:
        """Return the last contact of each node, Unix ms."""
        return dict(self._reader.execute("SELECT node, last_ms FROM contact"))


def end_if_broken(error: sqlite3.Error) -> None:
    """Raise StoreBroken when nothing that the file holds is sure any more: the hub must end."""
    ours = mapped(error, "report.db")
    if isinstance(ours, StoreBroken):
        raise ours from error


def _verify(connection: sqlite3.Connection) -> None:
    """Check every page and every document: what has rotted must not be shown as a fact."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"a page is damaged ({found})")
    columns = "kind, id, site, name, state, doc, job_group, digest"
    for *parts, digest in connection.execute(f"SELECT {columns} FROM document"):  # noqa: S608
        if digest_of(*map(str, parts)) != digest:
            raise sqlite3.DatabaseError(f"the document {parts[1]} is not what was written")


def _parameters(scope: str, document: Document, now_ms: int) -> tuple[Any, ...]:
    return (
        scope, document.kind, document.id, document.site, document.name, document.state,
        document.group, document.digest, document.text, now_ms,
    )  # fmt: skip


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database, Migrations

    steps = Migrations("rackmesh.report")

    @steps(name="0001-documents")
    def _documents(db: Database) -> None:
        table = cast(Any, db["document"])
        table.create(
            {
                "scope": str, "kind": str, "id": str, "site": str, "name": str, "state": str,
                "digest": bytes, "doc": str, "changed_ms": int,
            },
            pk=("scope", "kind", "id"),
        )  # fmt: skip
        table.create_index(["kind", "site", "name", "id"])
        table.create_index(["kind", "id"])
        scope = cast(Any, db["scope"])
        scope.create({"scope": str, "cursor": bytes, "read_ms": int}, pk="scope")
        cast(Any, db["contact"]).create({"node": str, "last_ms": int}, pk="node")

    @steps(name="0002-groups")
    def _groups(db: Database) -> None:
        db.execute("ALTER TABLE document ADD COLUMN job_group TEXT NOT NULL DEFAULT ''")
        db.execute("CREATE INDEX document_group ON document (job_group) WHERE job_group != ''")

    @steps(name="0003-places")
    def _places(db: Database) -> None:
        """Let the order of a long list be told without reading its documents."""
        table = cast(Any, db["document"])
        table.create_index(["kind", "state", "site", "job_group", "name", "id"])

    steps.apply(Database(connection))
