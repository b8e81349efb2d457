"""Sensors, event log and versions of one IPMI BMC, over a session that somebody else keeps.

Decides nothing about bytes: `drivers.proto.sdr`, `sel` and `fru` do. The rules: what one sensor
or record refuses is left out or said, never the end of the whole; every loop has a limit and
the whole has a time, because a BMC can answer "and there is another" for ever.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Final

from drivers.capabilities import Capability
from drivers.errors import DeviceLied, DeviceRefused, NotOffered
from drivers.patience import Budget
from drivers.proto import fru, sdr, sel
from drivers.proto import ipmi as core
from drivers.proto.health import EVENTS_MAX, READINGS_MAX, Component, Events, Reading

Ask = Callable[[core.Command], Awaitable[tuple[int, bytes]]]
"""Sends one command; returns completion code and data."""

RESERVATIONS_MAX: Final = 8
"""Reservations that may get lost in one reading: somebody else reads, too."""
SEL_RECORDS_MAX: Final = 4096
"""Records walked through to come to the newest; logs have 512 to 4096."""


class IpmiHealth:
    """What one BMC says of its server's health; one caller at a time."""

    def __init__(self, url: str, ask: Ask, report_s: float) -> None:
        self._url = url
        self._ask = ask
        self._report_s = report_s
        self._sensors: list[sdr.Sensor] | None = None
        self._budget = Budget(url, "it", report_s)

    async def readings(self) -> list[Reading]:
        """Return all sensors of the BMC itself."""
        self._budget = Budget(self._url, "its sensors", self._report_s)
        with self._sense():
            sensors = await self._known_sensors()
            return [await self._reading(one) for one in sensors]

    async def _reading(self, sensor: sdr.Sensor) -> Reading:
        code, data = await self._send(sdr.reading_command(sensor))
        if code != 0:
            return sdr.no_reading(sensor, core.refusal(code))
        raw: bytes | None = None
        if sensor.by_threshold and sensor.readable and sensor.ask_thresholds:
            refused, answer = await self._send(sdr.thresholds_command(sensor))
            raw = answer if refused == 0 else None
        try:
            return sdr.parse_reading(sensor, data, sdr.parse_thresholds(sensor, raw))
        except core.NotIpmi as exc:
            return sdr.no_reading(sensor, str(exc))

    async def _known_sensors(self) -> list[sdr.Sensor]:
        """Return the sensors by the records of the repository, read once a session."""
        if self._sensors is None:
            code, _ = await self._send(sdr.REPOSITORY_INFO)
            if code in core.NOT_SUPPORTED:
                raise NotOffered(f"{self._url}: it has no sensor data records")
            found: list[sdr.Sensor] = []
            for record in await self._records():
                found += sdr.sensors_of(record)
            self._sensors = found[:READINGS_MAX]
        return self._sensors

    async def _records(self) -> list[bytes]:
        found: list[bytes] = []
        seen: set[int] = set()
        reserved = RESERVATIONS_MAX
        record_id, reservation = 0, await self._reserve()
        while record_id not in seen and len(found) < sdr.RECORDS_MAX:
            try:
                next_id, record = await self._record(reservation, record_id)
            except _ReservationLost:
                reserved -= 1
                if reserved == 0:
                    raise DeviceRefused(
                        f"{self._url}: somebody else changes its sensor data records all the"
                        " time, so they cannot be read"
                    ) from None
                reservation = await self._reserve()
                continue
            seen.add(record_id)
            found.append(record)
            if next_id == sdr.LAST_RECORD:
                break
            record_id = next_id
        return found

    async def _reserve(self) -> int:
        code, data = await self._send(sdr.RESERVE)
        if code in core.NOT_SUPPORTED:
            return 0  # then whole records must do
        return sdr.parse_reservation(self._checked(sdr.RESERVE, code, data))

    async def _record(self, reservation: int, record_id: int) -> tuple[int, bytes]:
        """Read one record piece by piece, in pieces that the BMC takes."""
        command = sdr.get_record(reservation, record_id, 0, sdr.HEADER_BYTES)
        code, data = await self._piece(command)
        next_id, record = sdr.parse_piece(self._checked(command, code, data), sdr.HEADER_BYTES)
        size, chunk = sdr.record_bytes(record), sdr.FIRST_CHUNK_BYTES
        while len(record) < size:
            count = min(chunk, size - len(record))
            command = sdr.get_record(reservation, record_id, len(record), count)
            code, data = await self._piece(command)
            if code in sdr.CHUNK_REFUSED and chunk > sdr.LEAST_CHUNK_BYTES:
                chunk //= 2
                continue
            _, piece = sdr.parse_piece(self._checked(command, code, data), count)
            if not piece:
                break  # shorter than it says: what came is judged as it is
            record += piece
        return next_id, record

    async def _piece(self, command: core.Command) -> tuple[int, bytes]:
        code, data = await self._send(command)
        if code == sdr.RESERVATION_LOST:
            raise _ReservationLost
        return code, data

    async def events(self) -> Events:
        """Return the newest entries of the system event log, newest first."""
        self._budget = Budget(self._url, "its event log", self._report_s)
        names: dict[int, str] = {}
        with self._sense():
            code, data = await self._send(sel.INFO)
            if code in core.NOT_SUPPORTED:
                raise NotOffered(f"{self._url}: it has no event log")
            count = sel.parse_info(self._checked(sel.INFO, code, data)).entries
            records = await self._newest(count) if count else []
            if records:
                names = await self._sensor_names()
        newest_first = records[-EVENTS_MAX:][::-1]
        entries = tuple(sel.meaning(one.record, names) for one in newest_first)
        return Events(entries=entries, more=count > len(entries))

    async def _sensor_names(self) -> dict[int, str]:
        try:
            return {one.number: one.name for one in await self._known_sensors()}
        except (DeviceRefused, core.NotIpmi):
            return {}  # then events have numbers for names

    async def _newest(self, count: int) -> list[sel.Entry]:
        """Walk from where EVENTS_MAX entries are left if ids go up by one, else from the start.

        A log can only be read forwards (31.5).
        """
        if count > EVENTS_MAX:
            last = await self._entry(sel.LAST)
            first = (last.id - EVENTS_MAX + 1) if last is not None else 0
            if first > 0:
                records = await self._walk(first)
                if len(records) == EVENTS_MAX:
                    return records
        return await self._walk(sel.FIRST)

    async def _walk(self, record_id: int) -> list[sel.Entry]:
        found: list[sel.Entry] = []
        seen: set[int] = set()
        while record_id not in seen and len(seen) < SEL_RECORDS_MAX:
            seen.add(record_id)
            entry = await self._entry(record_id)
            if entry is None:
                break
            found.append(entry)
            if entry.next_id == sel.LAST:
                break
            record_id = entry.next_id
        return found

    async def _entry(self, record_id: int) -> sel.Entry | None:
        command = sel.get_entry(record_id)
        code, data = await self._send(command)
        if code == sel.NOT_PRESENT:
            return None
        return sel.parse_entry(self._checked(command, code, data))

    async def firmware(self) -> list[Component]:
        """Return the BMC's own version, and what its FRU record says of the product."""
        self._budget = Budget(self._url, "its versions", self._report_s)
        with self._sense():
            code, data = await self._send(core.DEVICE_ID)
            own = fru.bmc_version(self._checked(core.DEVICE_ID, code, data))
            area = await self._fru()
        return [own, *fru.components(area)]

    async def _fru(self) -> bytes:
        """Return the main FRU area; what is refused or cut short ends it, quietly."""
        code, data = await self._send(fru.AREA_INFO)
        size = fru.parse_area_bytes(data) if code == 0 else 0
        found, chunk = b"", fru.FIRST_CHUNK_BYTES
        while len(found) < size:
            code, data = await self._send(fru.read(len(found), min(chunk, size - len(found))))
            if code in sdr.CHUNK_REFUSED and chunk > sdr.LEAST_CHUNK_BYTES:
                chunk //= 2
                continue
            piece = fru.parse_piece(data, chunk) if code == 0 else b""
            if not piece:
                break
            found += piece
        return found

    def _checked(self, command: core.Command, code: int, data: bytes) -> bytes:
        if code != 0:
            raise DeviceRefused(f"{self._url}: {command.name}: {core.refusal(code)}")
        return data

    async def _send(self, command: core.Command) -> tuple[int, bytes]:
        self._budget.check()
        return await self._ask(command)

    @contextmanager
    def _sense(self) -> Generator[None]:
        """Say it when an answer makes no sense."""
        try:
            yield
        except core.NotIpmi as exc:
            raise DeviceLied(f"{self._url}: {exc}") from exc


class _ReservationLost(Exception):
    """Somebody else has reserved the repository since."""


def offered(device_id: bytes) -> Iterable[Capability]:
    """Return the capabilities that Get Device ID promises (20.1, additional support)."""
    flags = device_id[5] if len(device_id) > 5 else 0
    if flags & 0x02:
        yield "sensors"
    if flags & 0x04:
        yield "events"
    yield "firmware"
