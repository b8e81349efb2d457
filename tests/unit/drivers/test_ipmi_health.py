"""The walk through an IPMI BMC's records: one that cuts, loses, refuses and never ends."""

from collections.abc import Callable
from random import Random

import pytest
import trio

from drivers.errors import DeviceLied, DeviceRefused, DeviceUnreachable, DriverError, NotOffered
from drivers.ipmi_health import RESERVATIONS_MAX, SEL_RECORDS_MAX, IpmiHealth
from drivers.proto import ipmi as core
from drivers.proto import sdr
from drivers.proto.health import EVENTS_MAX, READINGS_MAX
from tests.unit.drivers.test_sdr import COMPACT, EVENT, FULL

Answer = tuple[int, bytes]
NOTHING: Answer = (0xC1, b"")


class Bmc:
    """A BMC of records; a test changes what it says to one command."""

    def __init__(self, records: list[bytes], events: list[bytes]) -> None:
        self.records = dict(enumerate(records))
        self.events = events
        self.piece_max = 255
        self.asked: list[str] = []
        self.said: dict[str, Callable[[core.Command], Answer]] = {}

    async def __call__(self, command: core.Command) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append(command.name)
        if command.name in self.said:
            return self.said[command.name](command)
        return getattr(self, command.name.lower().replace(" ", "_"))(command.data)  # type: ignore[no-any-return]

    def get_sdr_repository_info(self, _data: bytes) -> Answer:
        return 0, b"\x51" + len(self.records).to_bytes(2, "little") + bytes(11)

    def reserve_sdr_repository(self, _data: bytes) -> Answer:
        return 0, b"\x07\x00"

    def get_sdr(self, data: bytes) -> Answer:
        number, offset, count = int.from_bytes(data[2:4], "little"), data[4], data[5]
        if count > self.piece_max:
            return 0xC8, b""
        after = number + 1 if number + 1 in self.records else 0xFFFF
        return 0, after.to_bytes(2, "little") + self.records[number][offset : offset + count]

    def get_sensor_reading(self, _data: bytes) -> Answer:
        return 0, bytes.fromhex("5fc0080000")

    def get_sensor_thresholds(self, _data: bytes) -> Answer:
        return 0, bytes.fromhex("380000005a646e")

    def get_sel_info(self, _data: bytes) -> Answer:
        return 0, b"\x51" + len(self.events).to_bytes(2, "little") + bytes(11)

    def get_sel_entry(self, data: bytes) -> Answer:
        number = int.from_bytes(data[2:4], "little")
        index = {0: 0, 0xFFFF: len(self.events) - 1}.get(number, number - 1)
        if not 0 <= index < len(self.events):
            return 0xCB, b""
        after = index + 2 if index + 1 < len(self.events) else 0xFFFF
        return 0, after.to_bytes(2, "little") + self.events[index]


def event(number: int) -> bytes:
    return number.to_bytes(2, "little") + EVENT[2:]


def bmc(events: int = 3) -> tuple[Bmc, IpmiHealth]:
    found = Bmc([FULL, COMPACT], [event(n + 1) for n in range(events)])
    return found, IpmiHealth("ipmi://bmc", found, 5.0)


@pytest.mark.parametrize("piece_max", [255, 24, 16, 9, 5])
async def test_records_are_read_in_whatever_pieces_the_bmc_gives(piece_max: int) -> None:
    found, health = bmc()
    found.piece_max = piece_max
    warm, supply = await health.readings()
    assert (warm.name, warm.value, warm.thresholds.upper_warning) == ("CPU Temp", 95, 90)
    assert supply.name == "PSU 1"


async def test_records_are_read_once_a_session_and_readings_each_time() -> None:
    found, health = bmc()
    await health.readings()
    first = found.asked.count("Get SDR")
    await health.readings()
    assert found.asked.count("Get SDR") == first
    assert found.asked.count("Get Sensor Reading") == 4


async def test_a_repository_that_never_ends_is_cut() -> None:
    found, health = bmc()
    numbers = iter(range(1, 1 << 16))
    found.records = {}

    def more(command: core.Command) -> Answer:
        offset, count = command.data[4], command.data[5]
        return 0, next(numbers).to_bytes(2, "little") + FULL[offset : offset + count]

    found.said["Get SDR"] = more
    assert len(await health.readings()) <= READINGS_MAX
    assert found.asked.count("Get SDR") <= 5 * sdr.RECORDS_MAX


async def test_a_repository_that_goes_in_a_circle_ends() -> None:
    found, health = bmc()
    found.said["Get SDR"] = lambda command: (
        0, b"\0\0" + FULL[command.data[4] : command.data[4] + command.data[5]],
    )  # fmt: skip
    assert len(await health.readings()) == 1


async def test_reservations_that_get_lost_are_made_anew_but_not_for_ever() -> None:
    found, health = bmc()
    lost = [0xC5, 0xC5]
    get = found.get_sdr
    found.said["Get SDR"] = lambda command: (lost.pop(), b"") if lost else get(command.data)
    assert len(await health.readings()) == 2
    found, health = bmc()
    found.said["Get SDR"] = lambda _: (0xC5, b"")
    with pytest.raises(DeviceRefused, match="somebody else changes"):
        await health.readings()
    assert found.asked.count("Get SDR") == RESERVATIONS_MAX


@pytest.mark.parametrize(
    ("name", "answer", "kind", "words"),
    [
        ("Get SDR Repository Info", NOTHING, NotOffered, "no sensor data records"),
        ("Get SDR", (0xD4, b""), DeviceRefused, "Get SDR: completion code 0xd4"),
        ("Get SDR", (0, b"\0"), DeviceLied, "1 bytes, where 3 are due"),
        ("Get SDR", (0, b"\xff\xff\0"), DeviceLied, "1 bytes, where 5 are due"),
        ("Reserve SDR Repository", (0, b""), DeviceLied, "0 bytes, where 2 are due"),
    ],
)
async def test_what_cannot_be_read_is_one_sentence(
    name: str, answer: Answer, kind: type[DriverError], words: str
) -> None:
    found, health = bmc()
    found.said[name] = lambda _: answer
    with pytest.raises(kind, match=words) as caught:
        await health.readings()
    assert str(caught.value).startswith("ipmi://bmc: ")


async def test_one_sensor_that_is_refused_leaves_the_others() -> None:
    found, health = bmc()
    found.said["Get Sensor Reading"] = lambda command: (
        (0xCB, b"") if command.data == b"\1" else (0, bytes.fromhex("00c00180"))
    )
    warm, supply = await health.readings()
    assert (warm.value, warm.state) == (None, "unknown")
    assert "completion code 0xcb" in warm.text
    assert supply.text == "present"
    found.said["Get Sensor Reading"] = lambda _: (0, b"")
    assert [one.state for one in await health.readings()] == ["unknown", "unknown"]


async def test_a_bmc_without_thresholds_gives_those_of_its_records() -> None:
    found, health = bmc()
    found.said["Get Sensor Thresholds"] = lambda _: NOTHING
    assert (await health.readings())[0].thresholds.upper_critical == 100


async def test_slow_records_end_by_the_time_of_the_whole() -> None:
    found, _ = bmc()
    health = IpmiHealth("ipmi://bmc", found, 0.0)
    for verb in (health.readings, health.events, health.firmware):
        with pytest.raises(DeviceUnreachable, match="could not be read within 0 s"):
            await verb()


async def test_a_long_log_is_entered_near_its_end() -> None:
    found, health = bmc(events=1000)
    log = await health.events()
    assert [one.id for one in log.entries] == [str(n) for n in range(1000, 800, -1)]
    assert log.more
    assert found.asked.count("Get SEL Entry") == EVENTS_MAX + 1


async def test_a_long_log_with_gaps_in_its_ids_is_walked_from_its_start() -> None:
    found, health = bmc()
    found.events = [event(3 * n + 3) for n in range(300)]

    def entry(command: core.Command) -> Answer:
        number = int.from_bytes(command.data[2:4], "little")
        index = {0: 0, 0xFFFF: 299}.get(number, number // 3 - 1)
        if number % 3:
            return 0xCB, b""
        after = 3 * index + 6 if index < 299 else 0xFFFF
        return 0, after.to_bytes(2, "little") + found.events[index]

    found.said["Get SEL Entry"] = entry
    log = await health.events()
    assert [log.entries[0].id, log.entries[-1].id] == ["900", "303"]
    assert log.more


async def test_a_log_that_never_ends_is_cut() -> None:
    found, health = bmc()
    numbers = iter(range(1, 1 << 16))
    found.said["Get SEL Entry"] = lambda _: (
        0, next(numbers).to_bytes(2, "little") + event(1)
    )  # fmt: skip
    log = await health.events()
    assert len(log.entries) <= EVENTS_MAX
    assert found.asked.count("Get SEL Entry") <= SEL_RECORDS_MAX + EVENTS_MAX


async def test_a_log_without_sensor_records_has_numbers_for_names() -> None:
    found, health = bmc()
    assert "CPU Temp" in (await health.events()).entries[0].message
    found, health = bmc()
    found.said["Get SDR Repository Info"] = lambda _: NOTHING
    assert "sensor 1:" in (await health.events()).entries[0].message
    found, health = bmc(events=0)
    assert (await health.events()).entries == ()
    found.said["Get SEL Info"] = lambda _: NOTHING
    with pytest.raises(NotOffered, match="no event log"):
        await health.events()


@pytest.mark.parametrize("seed", range(30))
async def test_random_answers_never_raise_anything_else_with_seed(seed: int) -> None:
    rng = Random(seed)

    async def ask(_command: core.Command) -> Answer:
        await trio.lowlevel.checkpoint()
        code = rng.choice((0, 0, 0, 0, 0xC1, 0xC5, 0xC8, 0xCB, 0xD4))
        return code, rng.choice((FULL, COMPACT, EVENT, rng.randbytes(rng.randrange(40))))

    health = IpmiHealth("ipmi://bmc", ask, 2.0)
    for verb in (health.readings, health.events, health.firmware):
        try:
            await verb()
        except DriverError as exc:
            assert str(exc).startswith("ipmi://bmc: ")  # noqa: PT017
