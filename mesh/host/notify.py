"""What a service manager hears of us: ready, status, alive, stopping (sd_notify(3)).

It knows nothing of roles. Rules: with no manager (no ``NOTIFY_SOCKET``) nothing is done; a
manager that does not listen never stops the service; the watchdog is fed from the event loop
itself, so a loop that stands still is not alive.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

FEEDS_PER_TIMEOUT: Final = 3
"""How often the watchdog is fed within its time: one late turn of the loop is no death."""
STATUS_S: Final = 10.0
STATUS_CHARS_MAX: Final = 300


class ServiceManager:
    """Our side of systemd's notification socket."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take ``NOTIFY_SOCKET`` (path, or @ and an abstract name) and ``WATCHDOG_USEC``."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._ready = False
        self._said = ""
        self.feed_s = _feed_s(environ)
        """Seconds between two signs of life; None: no watchdog asked for any."""

    def ready(self) -> None:
        """Say once that the service serves."""
        if not self._ready:
            self._ready = True
            self._tell("READY=1")

    def stopping(self) -> None:
        """Say that the service ends on purpose."""
        self._tell("STOPPING=1")

    def status(self, sentence: str) -> None:
        """Say in one sentence how the service fares, when that has changed."""
        line = " ".join(sentence.split())[:STATUS_CHARS_MAX]
        if line != self._said:
            self._said = line
            self._tell(f"STATUS={line}")

    async def run(self, sentence: Callable[[], str]) -> None:
        """Feed the watchdog and keep the status line true, for ever."""
        if not self._address:
            return
        period = min(self.feed_s or STATUS_S, STATUS_S)
        next_status = trio.current_time()
        while True:
            if self.feed_s is not None:
                self._tell("WATCHDOG=1")
            if trio.current_time() >= next_status:
                next_status = trio.current_time() + STATUS_S
                self.status(sentence())
            await trio.sleep(period)

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        name = self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(line.encode(), "\0" + name[1:] if name.startswith("@") else name)
            except OSError:
                pass  # the manager restarts us if it misses our signs of life


def _feed_s(environ: Mapping[str, str]) -> float | None:
    """Return the feeding period; only the process that is meant is watched (sd_watchdog(3))."""
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        return None
    return int(text) / 1_000_000 / FEEDS_PER_TIMEOUT
