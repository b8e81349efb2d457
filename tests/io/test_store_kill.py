"""kill -9 in a loop: every acknowledged write is there, and every root fits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.stores import SITE, opened

ROUNDS = 8
ROOT = Path(__file__).parents[2]

WRITER = """
import sys, trio
from pathlib import Path
from tests.support.stores import SITE, opened

async def writer(store, name, start):
    n = start
    while True:
        def put(tx):
            tx.put(SITE, "server", f"{name}-{n % 40}", {"n": n})
            if n % 5 == 0:
                tx.drop(SITE, "server", f"{name}-{(n + 20) % 40}")
        await store.write(put)
        print(name, n, flush=True)
        n += 1

async def main():
    store = opened(Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for name in ("x", "y", "z"):
            nursery.start_soon(writer, store, name, int(sys.argv[2]))

trio.run(main)
"""


def _round(folder: Path, start: int, lines: int) -> dict[str, int]:
    """Run a writer, kill it after some acknowledgements; return the last ones."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(start)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    seen: list[str] = []
    with child:
        for line in child.stdout:
            seen.append(line)
            if len(seen) == lines:
                os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    whole = [line.split() for line in seen if line.endswith("\n")]
    return {name: int(n) for name, n in whole}


def test_no_acknowledged_write_is_lost_by_kill_9(tmp_path):
    start = 0
    head = (0, 0)
    for turn in range(ROUNDS):
        last = _round(tmp_path, start, 100 + 37 * turn)
        with opened(tmp_path) as store:  # checks pages and every root
            assert store.damaged == []
            assert store.head(SITE) > head
            head = store.head(SITE)
            for name, n in last.items():
                row = store.get(SITE, "server", f"{name}-{n % 40}")
                assert row is not None, (turn, name, n)
                assert row.body["n"] in (n, n + 40), (turn, name, n)
                for older in range(max(start, n - 15), n):
                    row = store.get(SITE, "server", f"{name}-{older % 40}")
                    assert row is not None, (turn, name, older)
                    assert row.body["n"] >= older
        start = max(last.values()) + 2
