"""Waiting between looks at a device; it knows the clock and nothing else."""

from typing import Final

import trio

from drivers.errors import DeviceUnreachable

FIRST_POLL_S: Final = 0.05


class Patience:
    """Waits between looks at a device: short at first, then longer, until a deadline."""

    def __init__(self, wait_s: float, poll_s: float) -> None:
        self._deadline = trio.current_time() + wait_s
        self._pause_s = FIRST_POLL_S
        self._poll_s = poll_s

    async def again(self) -> bool:
        """Wait and return True, or return False when the time is over."""
        left_s = self._deadline - trio.current_time()
        if left_s <= 0:
            return False
        await trio.sleep(min(self._pause_s, left_s))
        self._pause_s = min(self._pause_s * 2, self._poll_s)
        return True


class Budget:
    """Time for something that takes many exchanges, looked at before each of them."""

    def __init__(self, url: str, what: str, for_s: float) -> None:
        self._said = f"{url}: {what} could not be read within {for_s:g} s"
        self._deadline = trio.current_time() + for_s

    def check(self) -> None:
        """Raise DeviceUnreachable when the time is over."""
        if trio.current_time() >= self._deadline:
            raise DeviceUnreachable(self._said)
