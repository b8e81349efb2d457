"""The console of a simulated server: a WebSocket of its BMC, and the driver that speaks it."""

import json
from pathlib import Path

import pytest
import trio

from drivers.api import BmcLimits, Console, open_bmc, open_console
from drivers.errors import DeviceRefused
from node.rack.serial import KEPT_BYTES, SerialPort
from tests.io.test_rack import rack, settings
from tests.support.rack_site import rack_site

LIMITS = BmcLimits(request_s=5, power_wait_s=10, poll_s=0.1)


async def read_until(console: Console, wanted: bytes) -> bytes:
    got = b""
    with trio.fail_after(20):
        while wanted not in got:
            got += await console.receive()
    return got


async def test_what_a_server_wrote_and_writes_is_read_and_typing_is_echoed(
    tmp_path: Path,
) -> None:
    async with rack(settings(tmp_path)) as info:
        login, url = json.loads(info.credentials.read_text()), info.servers[0].bmc
        async with open_bmc(url, login, limits=LIMITS) as bmc:
            await bmc.set_power(True)
        async with (
            open_console(url, login, limits=LIMITS) as one,
            open_console(url, login, limits=LIMITS) as other,
        ):
            await read_until(one, b"power on\r\n")
            await one.send(b"hello\r")
            for console in (one, other):
                await read_until(console, b"hello\r\n")
            async with open_bmc(url, login, limits=LIMITS) as bmc:
                await bmc.set_power(False)
            await read_until(other, b"power off\r\n")
            with pytest.raises(DeviceRefused, match="cannot send a break"):
                await one.send_break()
    async with rack(settings(tmp_path)) as info:  # what stands in the file is shown again
        async with open_console(info.servers[0].bmc, login, limits=LIMITS) as console:
            await read_until(console, b"power off\r\n")


async def test_a_wrong_password_and_too_many_consoles_are_sentences(tmp_path: Path) -> None:
    async with rack(settings(tmp_path)) as info:
        login, url = json.loads(info.credentials.read_text()), info.servers[0].bmc
        with pytest.raises(DeviceRefused, match="status 401"):
            async with open_console(url, {**login, "password": "wrong"}, limits=LIMITS):
                pass
        async with trio.open_nursery() as nursery:

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with open_console(url, login, limits=LIMITS):
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(8):
                await nursery.start(hold)
            async with open_console(url, login, limits=LIMITS) as console:
                with trio.fail_after(10), pytest.raises(DeviceRefused, match="too many"):
                    await console.receive()
            nursery.cancel_scope.cancel()


async def test_a_slow_reader_of_a_port_gets_what_is_still_kept() -> None:
    port = SerialPort(b"before\r\n")
    first, position = await port.after(0)
    assert first == b"before\r\n"
    port.write(bytes(KEPT_BYTES))
    port.line("last")
    data, end = await port.after(position)
    assert data == bytes(KEPT_BYTES - 6) + b"last\r\n"
    assert end == port.end


async def test_a_watched_server_boots_and_what_its_agent_says_is_seen(tmp_path: Path) -> None:
    async with rack_site(tmp_path) as site:
        site.bound = False
        site.script = site.ramdisk_script
        async with rack(settings(tmp_path)) as info:
            login, url = json.loads(info.credentials.read_text()), info.servers[0].bmc
            async with open_console(url, login, limits=LIMITS) as console:
                async with open_bmc(url, login, limits=LIMITS) as bmc:
                    await bmc.set_boot("network")
                    await bmc.set_power(True)
                seen = await read_until(console, b"inventory sent, waiting")
                await console.send(b"typed")
                seen += await read_until(console, b"typed")
    assert b"crashed" not in seen
