"""A job's steps as bars over time: the geometry, in per mille of the job's own span.

It knows no pixels and no markup. Rules: every bar lies inside 0..1000 and is wide enough to be
seen; a step that runs ends now; a step that has not begun has no bar; clocks that ran
backwards make a bar short, never negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Body = Mapping[str, Any]

WIDTH: Final = 1000
BAR_LEAST: Final = 4
"""A step of a few milliseconds can still be seen and pointed at."""
TICKS_MAX: Final = 6
_NICE_S: Final = (
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bar:
    """A step: where its bar begins and how wide it is (0..1000); None when it has none."""

    name: str
    state: str
    start: int | None
    width: int
    began_ms: int | None
    took_ms: int | None
    """Until it ended, or until now while it runs."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the time line: where, and how long after the job's begin, in seconds."""

    at: int
    after_s: int


@dataclass(frozen=True, slots=True)
class Gantt:
    """All bars of a job and the marks under them."""

    bars: list[Bar]
    ticks: list[Tick]
    span_ms: int


def gantt(steps: Sequence[Body], now_ms: int) -> Gantt:
    """Return the geometry of a job's steps (resources of the API) as it is now."""
    times = [_times(step, now_ms) for step in steps]
    begun = [began for began, _ in times if began is not None]
    if not begun:
        bars = [_bar(step, None, None, 0, 1) for step in steps]
        return Gantt(bars, [], 0)
    first = min(begun)
    last = max(ended for began, ended in times if began is not None and ended is not None)
    span = max(1, last - first)
    bars = [
        _bar(step, began, ended, first, span)
        for step, (began, ended) in zip(steps, times, strict=True)
    ]
    return Gantt(bars, _ticks(span), span)


def _times(step: Body, now_ms: int) -> tuple[int | None, int | None]:
    """Return when a step began and ended, or is at now."""
    began = _time(step.get("started_ms"))
    if began is None:
        return None, None
    ended = _time(step.get("ended_ms"))
    if ended is None:
        ended = now_ms if step.get("state") == "running" else began
    return began, max(began, ended)


def _bar(step: Body, began: int | None, ended: int | None, first: int, span: int) -> Bar:
    name, state = str(step.get("name")), str(step.get("state"))
    if began is None or ended is None:
        return Bar(name, state, None, 0, None, None)
    start = min(WIDTH - BAR_LEAST, WIDTH * (began - first) // span)
    width = max(BAR_LEAST, WIDTH * (ended - began) // span)
    return Bar(name, state, start, min(width, WIDTH - start), began, ended - began)


def _ticks(span_ms: int) -> list[Tick]:
    """Return marks at round times, at most TICKS_MAX of them."""
    for step in _NICE_S:
        if span_ms // (step * 1000) <= TICKS_MAX:
            break
    else:
        step = _NICE_S[-1] * -(-span_ms // (_NICE_S[-1] * 1000 * TICKS_MAX))
    return [
        Tick(WIDTH * after * 1000 // span_ms, after)
        for after in range(0, span_ms // 1000 + 1, step)
    ]


def _time(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
