"""How fast is the replicated store; see ``scripts/bench/store``.

Acknowledged writes: 64 tasks, each waits for its write to be durable before the next. The peer
is sqlite3 alone on the same disk: one FULL commit a write, and (the fairer one) one commit for
64 writes, since the store commits in groups too. Replicated rows: signed deltas in frames of
the wire, parsed, verified, hashed and committed FULL, against executemany of the same rows.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mesh.host.clock import SystemClock
from mesh.proto.codec import pack, unpack
from mesh.proto.intake import Outcome
from mesh.proto.serve import serve
from mesh.proto.sets import SetId
from mesh.proto.sync_wire import Deltas, Want, packed_body, parse
from mesh.roster import RegisterRoster
from mesh.store import MeshStore
from tests.support.members import FakeMember, FakeRegister, sign_head

WRITERS: Final = 64
SCOPE: Final = "site:lab"
TABLE: Final = "sighting"
BODY: Final = {"mac": "52:54:00:12:34:56", "ip": "10.0.0.17", "arch": "x86_64", "last_ms": 0}


def plain(path: Path) -> sqlite3.Connection:
    """Return a database with the same durability and the same shape of rows."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(
        "CREATE TABLE row (set_id INTEGER, tab TEXT, key TEXT, seq INTEGER, hlc INTEGER,"
        " body BLOB, PRIMARY KEY (set_id, tab, key)) WITHOUT ROWID"
    )
    db.execute("CREATE INDEX row_seq ON row (set_id, seq)")
    return db


def rate(count: int, work: Callable[[], Any]) -> float:
    """Return how many a second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def plain_writes(folder: Path, writes: int, group: int) -> float:
    """Return acknowledged writes a second of sqlite3 alone, ``group`` in a commit."""
    db = plain(folder / f"plain-{group}.db")

    def work() -> None:
        for start in range(0, writes, group):
            db.execute("BEGIN IMMEDIATE")
            for n in range(start, start + group):
                body = pack({**BODY, "last_ms": n})
                row = (1, TABLE, f"k{n % 1000}", n, n, body)
                db.execute("INSERT OR REPLACE INTO row VALUES (?, ?, ?, ?, ?, ?)", row)
            db.execute("COMMIT")

    found = rate(writes, work)
    db.close()
    return found


def opened(folder: Path, author: str) -> MeshStore:
    """Return a store."""
    path = folder / author / "state.db"
    return MeshStore.open(path, author=author, sign_head=sign_head(author), clock=SystemClock())


async def store_writes(folder: Path, writes: int) -> float:
    """Return acknowledged writes a second through the store."""
    with opened(folder, "a") as store:

        async def writer(first: int) -> None:
            for n in range(first, writes, WRITERS):
                body = {**BODY, "last_ms": n}
                key = f"k{n % 1000}"
                await store.write(lambda tx, k=key, b=body: tx.put(SCOPE, TABLE, k, b))

        async with trio.open_nursery() as running:
            await running.start(store.run)
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for first in range(WRITERS):
                    nursery.start_soon(writer, first)
            seconds = time.perf_counter() - began
            running.cancel_scope.cancel()
    return writes / seconds


async def replicated(folder: Path, rows: int) -> tuple[float, int]:
    """Return rows a second that a member takes over from wire frames, and their bytes."""
    members = [FakeMember("a", "lab"), FakeMember("b", "lab")]
    roster = RegisterRoster(FakeRegister(members), "b")
    frames: list[bytes] = []
    with opened(folder / "from", "a") as source:
        async with trio.open_nursery() as running:
            await running.start(source.run)

            def fill(tx: Any) -> None:
                for n in range(rows):
                    tx.put(SCOPE, TABLE, f"key-{n}", {**BODY, "last_ms": n})

            await source.write(fill)
            set_id, since, final = SetId("a", SCOPE), 0, False
            while not final:
                want = Want(set_id, source.head(SCOPE)[0], since)
                parts = await source.serve(lambda r, w=want: serve(r, [w], roster, "b"))
                frames.append(pack(packed_body(Deltas(1, tuple(parts)))))
                final, since = parts[0].final, parts[0].entries[-1].seq
            running.cancel_scope.cancel()
    with opened(folder / "to", "b") as target:
        async with trio.open_nursery() as running:
            await running.start(target.run)
            began = time.perf_counter()
            for frame in frames:
                message = parse(unpack(frame, 4 << 20))
                assert isinstance(message, Deltas)
                outcomes = await target.take(message.parts, roster, "a")
                assert outcomes[0] in (Outcome.STAGED, Outcome.APPLIED), outcomes
            seconds = time.perf_counter() - began
            assert outcomes == [Outcome.APPLIED]
            running.cancel_scope.cancel()
    return rows / seconds, sum(map(len, frames))


def plain_rows(folder: Path, rows: int) -> float:
    """Return rows a second of executemany in one FULL commit."""
    db = plain(folder / "plain-rows.db")
    made = [(1, TABLE, f"key-{n}", n, n, pack({**BODY, "last_ms": n})) for n in range(rows)]

    def work() -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT OR REPLACE INTO row VALUES (?, ?, ?, ?, ?, ?)", made)
        db.execute("COMMIT")

    found = rate(rows, work)
    db.close()
    return found


def main() -> None:
    """Run the rounds, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/store", description=__doc__)
    parser.add_argument("--writes", type=int, default=12_800)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    best: dict[str, float] = {}
    wire_bytes = 0
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as made:
            folder = Path(made)
            taken, wire_bytes = trio.run(replicated, folder, args.rows)
            figures = {
                "acked_full_writes_per_s": trio.run(store_writes, folder, args.writes),
                "sqlite_acked_per_s": plain_writes(folder, args.writes, 1),
                "sqlite_grouped_per_s": plain_writes(folder, args.writes, WRITERS),
                "replicated_rows_per_s": taken,
                "sqlite_rows_per_s": plain_rows(folder, args.rows),
            }
        for name, value in figures.items():
            best[name] = max(best.get(name, 0.0), value)
    report: dict[str, Any] = {name: round(value) for name, value in best.items()}
    acked = best["acked_full_writes_per_s"]
    report["acked_ratio"] = round(acked / best["sqlite_acked_per_s"], 2)
    report["acked_ratio_grouped"] = round(acked / best["sqlite_grouped_per_s"], 2)
    ratio = best["replicated_rows_per_s"] / best["sqlite_rows_per_s"]
    report["replicated_ratio"] = round(ratio, 2)
    report["wire_bytes_per_row"] = round(wire_bytes / args.rows, 1)
    for name, value in report.items():
        print(f"{name:24} {value:>12}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
