"""One open console without I/O: the last bytes of it, who watches, and who of them writes.

It knows no BMC and no connection. Rules: what was pushed out of the ring is counted as missed,
never waited for; at most one watcher writes, and another becomes it when that one lets go, goes
away, has typed nothing for a while, or when somebody takes it over on purpose.
"""

from dataclasses import dataclass
from typing import Final

RING_BYTES: Final = 256 << 10
WATCHERS_MAX: Final = 16
WRITER_IDLE_S: Final = 600.0
"""Silence of the writer after which anybody may write without taking it over."""


class Ring:
    """The last bytes of a console, by their position since it was opened."""

    def __init__(self, limit: int = RING_BYTES) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.end = 0

    def write(self, data: bytes) -> None:
        """Add what the server wrote."""
        self._kept += data
        del self._kept[: max(len(self._kept) - self._limit, 0)]
        self.end += len(data)

    def after(self, position: int, most: int) -> tuple[bytes, int, int]:
        """Return at most so many bytes from a position on, the next position, bytes missed."""
        begin = self.end - len(self._kept)
        start = max(position, begin)
        at = start - begin
        data = bytes(self._kept[at : at + most])
        return data, start + len(data), start - min(position, start)


@dataclass(eq=False, slots=True)
class Watcher:
    """Somebody who looks at a console."""

    who: str
    may_write: bool
    position: int = 0


class Watchers:
    """Who watches one console."""

    def __init__(self) -> None:
        self._all: list[Watcher] = []
        self._writer: Watcher | None = None
        self._typed_at = 0.0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def writer(self) -> Watcher | None:
        """Who writes now."""
        return self._writer

    @property
    def full(self) -> bool:
        """Tell whether nobody more is taken."""
        return len(self._all) >= WATCHERS_MAX

    def add(self, watcher: Watcher) -> None:
        """Let somebody watch."""
        assert not self.full
        self._all.append(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Somebody has gone."""
        self._all.remove(watcher)
        self.let_go(watcher)

    def ask(self, watcher: Watcher, now: float, *, take: bool) -> str | None:
        """Let somebody write; return why not, in one sentence, or None."""
        if not watcher.may_write:
            return "writing to a console needs the role operator"
        idle = now - self._typed_at >= WRITER_IDLE_S
        if self._writer not in (None, watcher) and not take and not idle:
            assert self._writer is not None
            return f"{self._writer.who} is writing to this console; take it over on purpose"
        self._writer, self._typed_at = watcher, now
        return None

    def let_go(self, watcher: Watcher) -> None:
        """Somebody does not want to write any more."""
        if self._writer is watcher:
            self._writer = None

    def types(self, watcher: Watcher, now: float) -> bool:
        """Tell whether what somebody types counts."""
        if self._writer is not watcher:
            return False
        self._typed_at = now
        return True
