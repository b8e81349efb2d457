"""A store and the clock of its machine: what was promised before counts at a start."""

from pathlib import Path

import trio

from mesh.courier import Courier
from mesh.host.clock import SteadyClock
from mesh.proto.hlc import milliseconds
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.tables import SERVER, site_scope
from mesh.register_store import RegisterStore
from mesh.store import MeshStore
from tests.support.members import sign_head
from tests.support.stores import SITE
from tests.support.trust import Org, identity

NOW = 1_800_000_000_000
SITE_LAB = site_scope("lab")
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


class Member:
    """A member of an organisation with the machine's clock of the day."""

    def __init__(self, folder: Path, org: Org, label: str, wall_ms: int) -> None:
        self.who = identity(label)
        self.clock = SteadyClock(False, lambda: wall_ms, lambda: 0)
        self.store = MeshStore.open(
            folder / label / "state.db",
            author=self.who.node_id,
            sign_head=lambda body: self.who.sign(HEAD_KIND, HEAD_N, org.root_fp, body),
            clock=self.clock,
        )
        register = RegisterStore.open(folder / label / "register", org.root_fp)
        register.merge_all(org.register.records())
        self.courier = Courier(self.store, register)

    async def write(self) -> None:
        await self.store.write(lambda tx: tx.put(SITE_LAB, SERVER, "s", {"by": 1}))

    async def take_from(self, other: "Member") -> None:
        place, more = None, True
        while more:
            given = await other.courier.give(None, place)
            await self.courier.take(given.piece)
            place, more = given.next, given.next is not None


async def test_a_dead_battery_is_known_by_what_two_others_have_signed(tmp_path: Path) -> None:
    """A member that never wrote itself, at 1970 after a power cut."""
    org = Org()
    for label in ("a", "b", "c"):
        org.admit(label)
    a = Member(tmp_path, org, "a", NOW)
    for count, (label, wall_ms) in enumerate((("b", NOW), ("c", NOW + 5000)), 1):
        other = Member(tmp_path, org, label, wall_ms)
        with other.store:
            async with trio.open_nursery() as running:
                await running.start(other.store.run)
                await running.start(a.store.run)
                await other.write()
                await a.take_from(other)
                running.cancel_scope.cancel()
        a.store.close()
        a = Member(tmp_path, org, "a", 86_400_000)
        believed = a.clock.problem is not None and "behind" in a.clock.problem
        assert believed == (count == 2), "one other member alone proves nothing"
        if believed:
            assert abs(a.clock.now_ms() - NOW) < 1000
    a.store.close()


def test_a_lost_store_does_not_lose_the_time_that_the_key_was_made() -> None:
    clock = SteadyClock(False, lambda: 86_400_000, lambda: 0)
    clock.begin_with_key(NOW)
    assert clock.now_ms() == NOW
    assert "behind" in str(clock.problem)
    trusting = SteadyClock(True, lambda: NOW + YEARS_MS, lambda: 0)
    trusting.begin_with_key(NOW)
    assert trusting.now_ms() == NOW + YEARS_MS
