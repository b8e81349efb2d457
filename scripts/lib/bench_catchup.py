"""What it takes to come back after weeks; see ``scripts/bench/catchup``.

Two hubs hold the sets of all authors in SQLite files. One was away: the authors have made
``--changes`` changes in all, again and again to the same share of their rows, so that their
sets stand that much higher in seq. Such a set is made by letting seq jump over the overwritten
changes and writing the last state of each changed row: overwritten rows leave nothing behind,
so the real history ends in the same (``test_a_jump_is_what_many_changes_end_in``). Heads are
really signed, and both stores are checked row by row when they are opened and at the end.

``negotiation_bytes``: all frames but those with deltas; ``row_bytes``: those, heads and all;
``changed_row_bytes``: the changed rows alone, packed.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mesh.host.clock import SystemClock
from mesh.proto.codec import pack
from mesh.proto.frames import Service, decode, encode
from mesh.proto.sets import Entry, Head, SetId, SignedHead, flat, leaves_of, pack_head
from mesh.proto.tables import FLEET, PRESENCE
from mesh.proto.tree import Tree
from mesh.store import MeshStore
from mesh.store_file import open_writer, set_meta
from mesh.store_sql import SqlStorage
from mesh.sync import Replication
from tests.support.members import FakeMember, FakeRegister, FakeRegisterStore, sign_head

SITES: Final = 250
EPOCH: Final = 1_700_000_000_000
SLOW_S: Final = 900.0
BEGAN: Final = time.monotonic()


@dataclass
class Member(FakeMember):
    """A member whose key is made once."""

    @cached_property
    def identity_public(self) -> bytes:  # type: ignore[override]
        """Return the key."""
        return super().identity_public


class Authors:
    """The authors' sets, before and after."""

    def __init__(self, authors: int, rows: int) -> None:
        self.rows = rows
        self.names = [f"{n:032x}" for n in range(authors)]
        nodes = [Member(name, f"site{n % SITES}") for n, name in enumerate(self.names)]
        hubs = [Member(name, "", frozenset({"hub"})) for name in ("away", "there")]
        self.register = FakeRegister([*nodes, *hubs], [b"r"])

    def entries(self, name: str, numbers: Iterable[int], seq: int, value: int) -> list[Entry]:
        """Return rows as an author would write them from a seq on."""
        rng = random.Random(f"{name}/{value}")
        made: list[Entry] = []
        for at, number in enumerate(numbers):
            body = {
                "name": f"image-{number}", "state": rng.choice(("verified", "fetching")),
                "have": rng.randrange(4096), "of": 4096, "origin_bytes": rng.randrange(1 << 34),
                "peer_bytes": rng.randrange(1 << 34),
                "updated_ms": EPOCH + rng.randrange(1 << 30),
            }  # fmt: skip
            stamp = (EPOCH + value * 1000 << 16) + at
            made.append(Entry(PRESENCE, f"b3:{number:012x}", seq + at, stamp, pack(body)))
        return made

    def sign(self, name: str, entries: list[Entry], seq: int) -> SignedHead:
        """Return the signed head of a set."""
        tree = Tree(leaves_of(entries))
        floor = max(entry.hlc for entry in entries)
        head = Head(name, FLEET, EPOCH, seq, 0, tree.root(), floor, len(entries), 1)
        body = pack_head(head)
        return SignedHead(head, body, sign_head(name)(body))

    def fill(self, path: Path) -> None:
        """Make the file that both have before one goes away."""
        self._store(path, lambda name, _: (self.entries(name, range(self.rows), 1, 0), []))

    def change(self, path: Path, share: float, jump: int, authors: float) -> int:
        """Move a share of the authors' sets on in a file; return the bytes of changed rows."""
        count = round(self.rows * share)
        changed = set(self.names[: round(len(self.names) * authors)]) if count else set()
        size = 0

        def moved(name: str, storage: SqlStorage) -> tuple[list[Entry], list[Entry]]:
            nonlocal size
            if name not in changed:
                return [], []
            new = self.entries(name, range(count), self.rows + jump - count + 1, 1)
            size += sum(len(flat(entry)) for entry in new)
            kept = [e for e in storage.entries(SetId(name, FLEET)) if e.seq > count]
            return new, kept

        self._store(path, moved)
        return size

    def _store(self, path: Path, rows_of: Any) -> None:
        db = open_writer(path, None)
        storage = SqlStorage(db)
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN IMMEDIATE")
        for name in self.names:
            new, kept = rows_of(name, storage)
            if new:
                storage.save_head(self.sign(name, [*kept, *new], new[-1].seq))
                storage.save_entries(SetId(name, FLEET), new)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()

    def opened(self, path: Path, author: str) -> MeshStore:
        """Open a store: every row is hashed and every root compared."""
        db = open_writer(path, None)
        set_meta(db, "author", author)
        db.close()
        store = MeshStore.open(
            path, author=author, sign_head=sign_head(author), clock=SystemClock()
        )
        assert not store.damaged
        return store


class Link:
    """One end of a link that counts the bytes of frames as they are on a wire."""

    def __init__(self, peer: str, bytes_of: Counter[str]) -> None:
        self.peer, self.bytes_of = peer, bytes_of
        self.inbox: dict[str, Any] = {
            kind: trio.open_memory_channel[Any](64) for kind in ("sync", "receipt")
        }
        self.other: Link

    async def send(self, frame_kind: str, body: Any) -> None:
        """Send a frame."""
        data = encode(Service(frame_kind, body))
        self.bytes_of[str(body.get("t", frame_kind))] += len(data)
        frame = decode(data)
        assert isinstance(frame, Service)
        await self.other.inbox[frame_kind][0].send(frame.body)

    def receive(self, frame_kind: str) -> AsyncIterator[Any]:
        """Return the bodies of a kind of frame."""
        received: AsyncIterator[Any] = self.inbox[frame_kind][1]
        return received

    def close(self, reason: str) -> None:
        """Nothing here closes."""
        raise AssertionError(reason)


async def meet(away: MeshStore, there: MeshStore, register: FakeRegister) -> Counter[str]:
    """Let both exchange all that differs; return the bytes of each kind of frame."""
    bytes_of: Counter[str] = Counter()
    ends = (Link("there", bytes_of), Link("away", bytes_of))
    ends[0].other, ends[1].other = ends[1], ends[0]
    with trio.fail_after(SLOW_S):
        async with trio.open_nursery() as running:
            for store, link in zip((away, there), ends, strict=True):
                await running.start(store.run)
                replication = Replication(store, FakeRegisterStore(register))
                running.start_soon(replication.service, link)
            version = 0
            while away.heads != there.heads:
                version = await away.wait_past(version)
            while not bytes_of["root"]:
                await trio.sleep(0.001)
            running.cancel_scope.cancel()
    return bytes_of


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"{time.monotonic() - BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)


def cpu_s() -> float:
    """Return the CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one(made: Authors, folder: Path, changes: int, share: float, authors: float) -> Any:
    """Run one absence; return its figures."""
    away, there = folder / "away.db", folder / "there.db"
    for path in (away, there):
        shutil.copy(folder / "both.db", path)
    moved = max(1, round(len(made.names) * authors))
    say(f"one is away for {changes if share else 0} changes of {moved} authors")
    changed_bytes = made.change(there, share, changes // moved, authors)
    with ExitStack() as stack:
        stores = [stack.enter_context(made.opened(p, p.stem)) for p in (away, there)]
        say("both are open; they meet")
        began, cpu = time.perf_counter(), cpu_s()
        bytes_of = trio.run(meet, *stores, made.register)
        seconds, cpu = time.perf_counter() - began, cpu_s() - cpu
    say(f"they hold the same after {seconds:.2f} s; reading it again from the disk")
    with made.opened(away, "away") as again, made.opened(there, "there") as source:
        assert again.heads == source.heads  # read from disk, every root computed again
    rows = bytes_of.pop("delta", 0)
    return {
        "changes": changes if share else 0,
        "changed_rows": round(made.rows * share) * (moved if share else 0),
        "negotiation_bytes": sum(bytes_of.values()),
        "row_bytes": rows,
        "changed_row_bytes": changed_bytes,
        "seconds": round(seconds, 2),
        "cpu_s": round(cpu, 2),
    }


def main() -> None:
    """Run the absences, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="scripts/bench/catchup", description=__doc__)
    parser.add_argument("--authors", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=200, help="of each author")
    parser.add_argument("--changes", type=int, default=100_000_000)
    parser.add_argument("--share", type=float, default=0.2, help="of the rows that changed")
    args = parser.parse_args()
    made = Authors(args.authors, args.rows)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        say("writing what both hold")
        made.fill(folder / "both.db")
        table = [
            one(made, folder, 0, 0.0, 1.0),
            one(made, folder, args.changes // 100, args.share, 0.01),
            one(made, folder, args.changes, args.share, 1.0),
        ]
    print("".join(f"{name:>18}" for name in table[0]))
    for line in table:
        print("".join(f"{value:>18}" for value in line.values()))
    report = {"authors": args.authors, "rows": args.authors * args.rows, **table[-1]}
    report["row_ratio"] = round(report["row_bytes"] / max(1, report["changed_row_bytes"]), 3)
    print(json.dumps({**report, "table": table}))


if __name__ == "__main__":
    main()
