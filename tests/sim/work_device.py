"""A BMC with the machine behind it, as orders reach it, and the books of what was done to it.

Rules: an order is carried out when it arrives, whoever has given it up meanwhile; a BMC with a
fence (Redfish) takes orders of sessions that live, one without (IPMI) takes all. The books
count what must not be: an order of an older epoch after one of a newer, a flash done twice.
"""

from typing import Any, Final

from tests.sim.clockwork import Clockwork

UNAUTHORIZED: Final = "401"
BOOT_S: Final = 20.0
AGENT_S: Final = 5.0


class Device:
    """One BMC and its machine."""

    def __init__(self, clock: Clockwork, fence: bool) -> None:
        self.clock, self.fence = clock, fence
        self.power, self.boot, self.disk = "on", "disk", "old"
        self.first_boot = False
        self.up: str | None = None
        """What the machine has booted: ramdisk or system."""
        self.boots = 0
        self.sessions: set[int] = set()
        self.epoch = 0
        self.flashes = 0
        self.stale: list[tuple[float, str, int, str]] = []
        self.effects: list[tuple[float, str, int, str]] = []

    def carry_out(self, what: str, arg: Any, token: int | None, who: str, epoch: int) -> Any:
        """Do what an order says, now; return the answer."""
        if what == "login":
            self.sessions.add(number := self.clock.next_number())
            return number
        if self.fence and token not in self.sessions:
            return UNAUTHORIZED
        match what:
            case "shut out":
                self.sessions = {token} if token is not None else set()
                return "ok"
            case "read":
                return {"power": self.power, "boot": self.boot, "flashes": self.flashes}
            case _:
                self._change(what, arg, who, epoch)
                return "ok"

    def _change(self, what: str, arg: Any, who: str, epoch: int) -> None:
        line = (round(self.clock.now, 3), who, epoch, f"{what} {arg}")
        self.clock.note("device", *line)
        self.effects.append(line)
        if epoch < self.epoch:
            self.stale.append(line)
        self.epoch = max(self.epoch, epoch)
        match what:
            case "power" if self.power != arg:
                self.power, self.up = arg, None
                self.boots += 1
                if arg == "on":
                    self.clock.after(BOOT_S, self._booted, self.boots, self.boot)
            case "boot":
                self.boot = arg
            case "flash":
                self.flashes += 1
            case _:
                pass  # power that is on or off already

    def _booted(self, boots: int, source: str) -> None:
        if boots == self.boots:
            self.up = "ramdisk" if source == "network" else "system"

    def perform(self, what: str) -> None:
        """Let the machine's agent do a command."""
        match what:
            case "write_image":
                self.disk = "image"
            case "first_boot":
                self.first_boot = self.disk == "image"
            case _:  # wipe
                self.disk, self.first_boot = "zeros", False
