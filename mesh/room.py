"""Whether the disk under a store has room: what everybody who writes asks and nobody guesses.

It knows no rows. Rules: a commit that found the disk full says so here, and one that stood
takes it back; after a failure nobody tries again before ``LOOK_S`` have passed and the disk has
``NEED_BYTES`` free; one line in the log a minute, however many writes are refused.
"""

import shutil
from pathlib import Path
from typing import Final

import trio

from mesh.host.log import get_log

LOOK_S: Final = 2.0
"""Least pause between a commit that found no room and the next try."""
NEED_BYTES: Final = 1 << 20
"""Free disk with which trying again makes sense: far above one row and its journal."""
SAY_S: Final = 60.0
log = get_log("store")


class Room:
    """The room under one folder, as the last commit found it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed_s: float | None = None
        self._said_s = -SAY_S
        self.refused = 0
        """Commits that found no room."""

    def on_full(self) -> None:
        """A commit found no room."""
        now = trio.current_time()
        self._failed_s = now
        self.refused += 1
        if now >= self._said_s + SAY_S:
            self._said_s = now
            log.error("disk full", path=self._folder, count=self.refused)

    def on_written(self) -> None:
        """A commit stood."""
        if self._failed_s is not None:
            self._failed_s = None
            self._said_s = -SAY_S
            log.info("disk has room again", path=self._folder, count=self.refused)

    @property
    def full(self) -> bool:
        """Whether writing is of no use now."""
        if self._failed_s is None:
            return False
        if trio.current_time() < self._failed_s + LOOK_S:
            return True
        return self.free_bytes() < NEED_BYTES

    @property
    def problem(self) -> str | None:
        """What people must know and do, in one sentence; None when there is room."""
        if not self.full:
            return None
        return (
            f"the disk under {self._folder} is full: free some space there; nothing is lost,"
            " known servers are served, and new work waits"
        )

    def free_bytes(self) -> int:
        """Return what the file system has free for us."""
        return shutil.disk_usage(self._folder).free

    async def wait(self) -> None:
        """Return as soon as writing may be of use again."""
        await trio.lowlevel.checkpoint()
        while self.full:  # the file system tells nobody: look again
            deadline = trio.current_time() + LOOK_S
            await trio.sleep_until(deadline)
