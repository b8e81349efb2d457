"""The wall clock as a port: shells are given one, cores are given numbers.

Rule: nothing else in the product reads the wall clock, so a test can hand out any time. A
daemon goes by ``SteadyClock``, which does not follow a wall clock that has jumped
(mesh/proto/steady_time.py says when it does).
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from mesh.host.log import get_log
from mesh.proto.steady_time import WRITTEN_MS, SteadyTime

log = get_log("clock")


class Clock(Protocol):
    """Unix time for shells."""

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        return time.time_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class SteadyClock:
    """The time that a daemon goes by; may be asked from any thread."""

    def __init__(
        self,
        trusting: bool = False,
        wall_ms: Callable[[], int] = _wall_ms,
        steady_ms: Callable[[], int] = _steady_ms,
    ) -> None:
        """``trusting``: the operator says that the machine's clock is right as it stands."""
        self._wall_ms, self._steady_ms = wall_ms, steady_ms
        self.trusting = trusting
        self._time = SteadyTime(wall_ms(), steady_ms())
        self._said = False

    def begin(self, promised_ms: int) -> None:
        """Compare with the latest time that stands in our own store, once after start."""
        self._time.begin(promised_ms, self._wall_ms(), self._steady_ms())

    def begin_with_key(self, made_ms: int) -> None:
        """Compare with the time that our own key was made, which is there without a store."""
        if not self.trusting:
            self.begin(made_ms)

    def now_ms(self) -> int:
        """Return Unix milliseconds."""
        now_ms = self._time.now(self._wall_ms(), self._steady_ms())
        if bool(self._time.off_ms) != self._said:
            self._said = not self._said
            if self._said:
                log.error("clock jumped", ms=self._time.off_ms, detail=_moment(now_ms))
            else:
                log.info("clock is right again", detail=_moment(now_ms))
        return now_ms

    @property
    def problem(self) -> str | None:
        """What people must know and do, in one sentence; None while the clock is followed."""
        now_ms = self.now_ms()
        off_ms = self._time.off_ms
        if off_ms:
            way = "ahead of" if off_ms > 0 else "behind"
            return (
                f"this machine's clock says {_moment(now_ms + off_ms)}, {_span(abs(off_ms))}"
                f" {way} the time that this program goes by, {_moment(now_ms)}: set it right;"
                " if it is right, start again with --trust-clock"
            )
        if now_ms < WRITTEN_MS:
            return f"this machine's clock says {_moment(now_ms)}: set it right"
        return None


def _moment(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "no possible time"


def _span(ms: int) -> str:
    hours = round(ms / 3_600_000)
    return f"{round(hours / 24)} days" if hours >= 48 else f"{hours} hours"


class FixedClock:
    """A clock that stands until it is moved; for tests and replays."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.value_ms = now_ms

    def now_ms(self) -> int:
        """Return the set time, Unix milliseconds."""
        return self.value_ms

    def advance(self, ms: int) -> None:
        """Move the clock forward."""
        self.value_ms += ms
