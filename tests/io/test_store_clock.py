"""A store and the clock of its machine: what was promised before counts at a start."""

from pathlib import Path

import trio

from mesh.host.clock import SteadyClock
from mesh.proto.hlc import milliseconds
from mesh.proto.tables import SERVER
from mesh.store import MeshStore
from tests.support.members import sign_head
from tests.support.stores import SITE

NOW = 1_800_000_000_000
YEARS_MS = 3652 * 86_400_000


async def started(folder: Path, wall_ms: int, trusting: bool = False) -> tuple[int, str | None]:
    """Open the store with a machine's clock, write a row; return its time and the problem."""
    clock = SteadyClock(trusting, lambda: wall_ms, lambda: 0)
    with MeshStore.open(
        folder / "state.db", author="a", sign_head=sign_head("a"), clock=clock
    ) as store:
        async with trio.open_nursery() as running:
            await running.start(store.run)
            await store.write(lambda tx: tx.put(SITE, SERVER, "s", {"wall": wall_ms}))
            row = store.get(SITE, SERVER, "s")
            running.cancel_scope.cancel()
        return milliseconds(row.hlc), clock.problem


async def test_a_clock_that_is_years_off_at_a_start_stamps_nothing(tmp_path: Path) -> None:
    assert await started(tmp_path, NOW) == (NOW, None)
    for off in (YEARS_MS, -YEARS_MS):
        at_ms, problem = await started(tmp_path, NOW + off)
        assert abs(at_ms - NOW) < 1000
        assert "3652 days" in str(problem)
        assert "--trust-clock" in str(problem)
    assert await started(tmp_path, NOW + 5000) == (NOW + 5000, None)


async def test_the_operators_word_ends_what_a_wrong_clock_has_promised(tmp_path: Path) -> None:
    await started(tmp_path, NOW + YEARS_MS)  # the first start: nothing spoke against it
    assert "behind" in str((await started(tmp_path, NOW))[1])
    assert (await started(tmp_path, NOW, trusting=True))[1] is None
    assert (await started(tmp_path, NOW + 1000))[1] is None, "once is enough"
