"""A number that only grows, to wait for: state changes are levels, never edges.

Rule: who saw version n and waits past n can miss nothing, however late it waits.
"""

import trio


class Level:
    """A version with waiters."""

    def __init__(self) -> None:
        self.version = 0
        self._lot = trio.lowlevel.ParkingLot()

    def bump(self) -> None:
        """Say that something changed."""
        self.version += 1
        self._lot.unpark_all()

    async def wait_past(self, version: int) -> int:
        """Return the version once it is above the given one."""
        while self.version <= version:
            await self._lot.park()
        return self.version
