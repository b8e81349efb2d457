"""The log of each job: a bounded local table, read by rpc, never replicated.

It knows nothing of what lines mean. Rule: lines are written in the store's transactions, so
that a line about a step is durable with the step; beyond the limit a job's oldest lines go."""

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, Final

from mesh.errors import Refused, StoreFull
from mesh.proto.ids import UUID_PATTERN
from node.work.ports import Store, Tx

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS job_log ("
    "job TEXT NOT NULL, n INTEGER NOT NULL, at_ms INTEGER NOT NULL, line TEXT NOT NULL,"
    " PRIMARY KEY (job, n)) WITHOUT ROWID",
)
PENDING_MAX: Final = 200
"""Lines of a job that wait for the next transaction; the oldest are dropped and counted."""
LINE_CHARS_MAX: Final = 500
PAGE_LINES: Final = 200

Line = tuple[int, int, str]
"""(number, Unix ms, text)"""


class JobLog:
    """Takes lines now, writes them with the next transaction."""

    def __init__(self, store: Store, lines_max: int) -> None:
        self._store = store
        self._lines_max = lines_max
        self._pending: defaultdict[str, deque[tuple[int, str]]] = defaultdict(
            lambda: deque(maxlen=PENDING_MAX)
        )
        self.dropped = 0

    def add(self, job: str, now_ms: int, line: str) -> None:
        """Take a line."""
        lines = self._pending[job]
        self.dropped += len(lines) == PENDING_MAX
        lines.append((now_ms, line[:LINE_CHARS_MAX]))

    def take(self, job: str) -> list[tuple[int, str]]:
        """Take the pending lines of a job out, for ``write_lines``."""
        return list(self._pending.pop(job, ()))

    def give_back(self, job: str, lines: list[tuple[int, str]]) -> None:
        """Keep lines that ``take`` gave out and a full disk did not take."""
        room = PENDING_MAX - len(self._pending[job])
        self.dropped += max(len(lines) - room, 0)
        self._pending[job].extendleft(reversed(lines[len(lines) - room :] if room else []))

    def write_lines(self, tx: Tx, job: str, lines: list[tuple[int, str]]) -> None:
        """Write lines in a transaction and cut the job's log to its limit."""
        if not lines:
            return
        found = tx.execute("SELECT max(n) FROM job_log WHERE job = ?", (job,)).fetchone()
        last = int(found[0] or 0)
        for n, (at_ms, line) in enumerate(lines, last + 1):
            tx.execute("INSERT INTO job_log VALUES (?, ?, ?, ?)", (job, n, at_ms, line))
        last += len(lines)
        tx.execute(
            "DELETE FROM job_log WHERE job = ? AND n <= ?", (job, last - self._lines_max)
        )

    async def read(self, job: str, after: int) -> list[Line]:
        """Return up to PAGE_LINES lines with numbers above ``after``."""
        pending = self.take(job)
        if pending:
            try:
                await self._store.write(lambda tx: self.write_lines(tx, job, pending))
            except StoreFull:
                self.give_back(job, pending)
        found = self._store.query(
            "SELECT n, at_ms, line FROM job_log WHERE job = ? AND n > ? ORDER BY n LIMIT ?",
            (job, after, PAGE_LINES),
        )
        return [(int(n), int(at_ms), str(line)) for n, at_ms, line in found]


def log_request(body: Any) -> tuple[str, int]:
    """Return the job and the line that a member asks from; raises Refused."""
    if isinstance(body, Mapping):
        job_id, after = body.get("job"), body.get("after", 0)
        if isinstance(job_id, str) and UUID_PATTERN.match(job_id) and isinstance(after, int):
            return job_id, after
    raise Refused("job.logs takes {job: id, after: line number}")
