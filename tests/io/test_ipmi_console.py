"""The console over IPMI against OpenIPMI's simulator: typed, read, broken off, taken over."""

import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from drivers.api import BmcCredentials, BmcLimits, Console, open_console
from drivers.errors import DeviceRefused, DeviceUnreachable
from tests.support.ipmi_sim import PASSWORD, USERNAME, ipmi_sim, need_ipmi_sim
from tests.support.udp_proxy import Path as BadPath
from tests.support.udp_proxy import bad_path

LIMITS = BmcLimits(request_s=5)
WHO = BmcCredentials(username=USERNAME, password=PASSWORD)


@dataclass
class Serial:
    """The server's serial port: what was typed there; ``write`` is what the server writes."""

    typed: bytearray = field(default_factory=bytearray)
    write: Callable[[bytes], Awaitable[None]] | None = None
    changed: trio.Event = field(default_factory=trio.Event)

    async def serve(self, stream: trio.SocketStream) -> None:
        self.write = stream.send_all
        self._tell()
        async for data in stream:
            self.typed += data
            self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, true: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not true():
                await self.changed.wait()


@asynccontextmanager
async def bmc(folder: Path) -> AsyncGenerator[tuple[str, Serial]]:
    need_ipmi_sim()
    serial = Serial()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, serial.serve, 0, host="127.0.0.1")
        )
        port = listener.socket.getsockname()[1]
        async with ipmi_sim(folder, serial=f"tcp:127.0.0.1:{port}") as lan:
            await serial.until(lambda: serial.write)
            yield f"ipmi://127.0.0.1:{lan}", serial
        nursery.cancel_scope.cancel()


async def read(console: Console, count: int) -> bytes:
    got = bytearray()
    with trio.fail_after(30):
        while len(got) < count:
            got += await console.receive()
    return bytes(got)


async def test_what_is_written_and_typed_arrives_whole_and_in_order(tmp_path: Path) -> None:
    written, typed = os.urandom(3000), os.urandom(3000)
    async with bmc(tmp_path / "bmc") as (url, serial):
        async with open_console(url, WHO, limits=LIMITS) as console:
            assert serial.write is not None
            await serial.write(written)
            assert await read(console, len(written)) == written
            with trio.fail_after(30):
                await console.send(typed)
            await serial.until(lambda: len(serial.typed) >= len(typed))
        assert bytes(serial.typed) == typed
        async with open_console(url, WHO, limits=LIMITS) as console:  # it was given back
            await serial.write(b"again")
            assert await read(console, 5) == b"again"


async def test_what_is_typed_last_arrives_though_the_console_is_closed(tmp_path: Path) -> None:
    async with bmc(tmp_path / "bmc") as (url, serial):
        async with open_console(url, WHO, limits=LIMITS) as console:
            await console.send(b"x" * 1000)
        assert len(serial.typed) == 1000


async def test_a_console_in_use_is_refused_and_can_be_taken(tmp_path: Path) -> None:
    async with bmc(tmp_path / "bmc") as (url, serial):
        async with open_console(url, WHO, limits=LIMITS) as first:
            with pytest.raises(DeviceRefused, match=r"in use by another client.*--steal"):
                async with open_console(url, WHO, limits=LIMITS):
                    pass
            assert serial.write is not None
            await serial.write(b"still ours")
            assert await read(first, 10) == b"still ours"
            async with open_console(url, WHO, steal=True, limits=LIMITS) as second:
                await first.send(b"is this still ours?")
                with trio.fail_after(30), pytest.raises(DeviceRefused, match="taken over"):
                    await first.receive()
                await serial.write(b"theirs")
                assert await read(second, 6) == b"theirs"


async def test_a_break_is_taken_and_the_console_goes_on(tmp_path: Path) -> None:
    async with bmc(tmp_path / "bmc") as (url, serial):
        async with open_console(url, WHO, limits=LIMITS) as console:
            await console.send_break()
            await console.send(b"after")
            await serial.until(lambda: b"after" in serial.typed)


async def test_a_bmc_without_a_console_says_so(tmp_path: Path) -> None:
    need_ipmi_sim()
    async with ipmi_sim(tmp_path / "bmc") as port:
        with pytest.raises(DeviceRefused, match="completion code"):
            async with open_console(f"ipmi://127.0.0.1:{port}", WHO, limits=LIMITS):
                pass


async def test_nobody_there_and_other_addresses_are_one_sentence() -> None:
    quick = BmcLimits(request_s=1)
    with pytest.raises(DeviceUnreachable, match="nothing answers"):
        async with open_console("ipmi://127.0.0.1:9", WHO, limits=quick):
            pass
    with pytest.raises(DeviceRefused, match="no console for BMC address"):
        async with open_console("ssh://127.0.0.1", WHO, limits=quick):
            pass


@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_or_doubled_over_a_bad_path_with_seed(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    written, typed = rng.randbytes(400), rng.randbytes(400)
    # late copies of what it took are typed again by ipmi_sim: it has no replay window
    bad = BadPath(lost=0.1, doubled=0.1, garbage=0.1, seed=seed)
    bad.may_change = lambda data: len(data) > 5 and data[5] & 0xC0 == 0xC0  # what is signed
    async with bmc(tmp_path / "bmc") as (url, serial):
        port = int(url.rpartition(":")[2])
        async with (
            bad_path(port, bad) as path,
            open_console(f"ipmi://127.0.0.1:{path.port}", WHO, limits=BmcLimits()) as console,
        ):
            assert serial.write is not None
            await console.send(typed)
            await serial.write(written)
            assert await read(console, len(written)) == written
            await serial.until(lambda: len(serial.typed) >= len(typed))
    assert bytes(serial.typed) == typed
    assert bad.counts["lost"] > 0
