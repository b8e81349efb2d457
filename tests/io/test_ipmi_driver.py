"""What the IPMI driver makes of completion codes and of answers that are too short."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from drivers.api import BmcCredentials, BmcLimits
from drivers.errors import DeviceLied, DeviceRefused
from drivers.ipmi import IpmiBmc, open_ipmi
from drivers.proto import ipmi as core

LIMITS = BmcLimits(request_s=1, power_wait_s=0.3, boot_wait_s=0.3, poll_s=0.05)
WHO = BmcCredentials(username="u", password="p")
NO_SUCH_COMMAND = (0xC1, b"")


class Scripted:
    """A session whose BMC does as it is told, but for the answers that a test puts in."""

    def __init__(self) -> None:
        self.power = 0
        self.boot = bytes(3)
        self.asked: list[core.Command] = []
        self.script: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self.sock: socket.socket | None = None

    def answer_next(self, command: core.Command, *answers: tuple[int, bytes]) -> None:
        self.script[command.netfn, command.number] = list(answers)

    def sent(self, command: core.Command) -> list[str]:
        return [c.data.hex() for c in self.asked if c.number == command.number and not c.netfn]

    def __call__(self, sock: socket.socket, where: str) -> "Scripted":
        self.sock = sock
        return self

    def log_in(self, username: str, password: str, for_s: float) -> None:
        pass

    def ask(self, command: core.Command, for_s: float) -> tuple[int, bytes]:
        self.asked.append(command)
        if queue := self.script.get((command.netfn, command.number)):
            return queue.pop(0)
        match (command.netfn, command.number):
            case (0, 1):
                return 0, bytes([self.power, 0, 0])
            case (0, 2):
                self.power = command.data[0]
            case (0, 8) if command.data[0] == 5:
                self.boot = command.data[1:4]
            case (0, 9):
                return 0, b"\x01\x05" + self.boot + b"\0\0"
            case (6, 1):
                return 0, bytes(15)
        return 0, b""

    def close(self) -> None:
        assert self.sock is not None
        self.sock.close()

    def abandon(self) -> None:
        self.close()


@asynccontextmanager
async def driver(session: Scripted) -> AsyncGenerator[IpmiBmc]:
    with trio.fail_after(20):
        async with open_ipmi(
            "ipmi://127.0.0.1:9", WHO, limits=LIMITS, session_factory=session
        ) as bmc:
            yield bmc


async def test_orders_already_carried_out_are_not_sent_again() -> None:
    session = Scripted()
    async with driver(session) as bmc:
        await bmc.set_power(False)
        for _ in range(2):
            await bmc.set_boot("network", uefi=True)
    assert session.sent(core.POWER_UP) == []
    assert session.sent(core.KEEP_BOOT) == ["0308", "05e004000000"]


async def test_a_bmc_that_takes_boot_orders_for_once_alone_gets_one() -> None:
    session = Scripted()
    session.answer_next(core.KEEP_BOOT, NO_SUCH_COMMAND, (0xCC, b""))
    async with driver(session) as bmc:
        await bmc.set_boot("disk", uefi=False)
        assert await bmc.boot_device() == "disk"
    assert session.sent(core.KEEP_BOOT) == ["0308", "05c008000000", "058008000000"]


async def test_a_busy_bmc_is_asked_again_and_at_last_believed() -> None:
    session = Scripted()
    session.answer_next(core.CHASSIS_STATUS, (0xC0, b""))
    async with driver(session) as bmc:
        assert await bmc.power_state() == "off"
        session.answer_next(core.CHASSIS_STATUS, *[(0xC0, b"")] * 9)
        with pytest.raises(DeviceRefused, match="0xc0, it is busy"):
            await bmc.power_state()


async def test_an_order_refused_because_it_stands_already_is_done() -> None:
    session = Scripted()
    session.answer_next(core.POWER_UP, (0xD5, b""))
    session.answer_next(core.CHASSIS_STATUS, (0, bytes(3)), (0, b"\x01\0\0"))
    async with driver(session) as bmc:
        await bmc.set_power(True)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0xD4, "this user may not do that"), (0xD5, "present state"), (0xFF, "it refused")],
)
async def test_a_refused_order_is_said_with_its_code(code: int, words: str) -> None:
    session = Scripted()
    session.answer_next(core.POWER_UP, (code, b""))
    async with driver(session) as bmc:
        with pytest.raises(DeviceRefused, match=words) as caught:
            await bmc.set_power(True)
    assert f"0x{code:02x}" in str(caught.value)
    assert "Chassis Control: power up" in str(caught.value)


async def test_answers_that_are_too_short_make_no_sense() -> None:
    session = Scripted()
    async with driver(session) as bmc:
        session.answer_next(core.CHASSIS_STATUS, (0, b"\x01"))
        with pytest.raises(DeviceLied, match="1 bytes, where 3 are due"):
            await bmc.power_state()
        session.answer_next(core.GET_BOOT, (0, b"\x01\x05"))
        with pytest.raises(DeviceLied, match="2 bytes, where 4 are due"):
            await bmc.boot_device()


async def test_a_bmc_that_does_not_say_who_made_it_has_no_quirks() -> None:
    session = Scripted()
    session.answer_next(core.DEVICE_ID, NO_SUCH_COMMAND)
    async with driver(session) as bmc:
        assert await bmc.power_state() == "off"
