"""What a server is made of, read from Redfish (DMTF DSP2046) without I/O and without a boot.

Knows no transport: ``wants`` names the next resource, ``on_body`` takes it, ``result`` is the
inventory in the shape of ``node/ramdisk/inventory.py`` with ``source: redfish``. The rules:
bodies are hostile until parsed here, a value of a wrong type counts as absent; what a service
does not offer is left out; a BMC that shows a million resources is read up to fixed numbers,
and what was cut is said.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from drivers.proto.redfish import MAX_MEMBERS, NotRedfish, clip, link, parse_members
from mesh.proto.ids import parse_mac

READS_MAX: Final = 220
"""Resources that are read of one server in all."""
DISKS_MAX: Final = 64
NICS_MAX: Final = 32
PROCESSORS_MAX: Final = 16
DIMMS_MAX: Final = 64
STORAGES_MAX: Final = 16
TEXT_CHARS_MAX: Final = 200
BYTES_MAX: Final = 1 << 60
_NOT_MACS: Final = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"})
_MEMBERS_MAX: Final[Mapping[str, int]] = {
    "processors": PROCESSORS_MAX, "dimms": DIMMS_MAX, "nics": NICS_MAX,
    "storages": STORAGES_MAX, "simples": STORAGES_MAX,
}  # fmt: skip
_OF: Final[Mapping[str, str]] = {
    "processors": "processor", "dimms": "dimm", "nics": "nic", "storages": "storage",
    "simples": "simple",
}  # fmt: skip


class InventoryReading:
    """Reads one system, resource by resource."""

    def __init__(self, system: str) -> None:
        self._queue: deque[tuple[str, str]] = deque([("system", system)])
        self._met = {system}
        self._reads = 0
        self._system: Mapping[str, Any] = {}
        self._cpus: list[tuple[str, int, int]] = []
        self._dimm_bytes = 0
        self._nics: dict[str, dict[str, Any]] = {}
        self._disks: list[dict[str, Any]] = []
        self._disks_shown = 0
        self.cut = False
        """Some resources were left out because there are too many."""

    @property
    def wants(self) -> str | None:
        """Path of the resource to read next; None: it is done."""
        return self._queue[0][1] if self._queue else None

    def on_body(self, body: Mapping[str, Any] | None) -> None:
        """Take the resource that was wanted; None: the service does not have it."""
        kind, _ = self._queue.popleft()
        self._reads += 1
        if body is not None:
            getattr(self, f"_on_{_METHOD.get(kind, kind)}")(body, kind)
        if self._reads >= READS_MAX and self._queue:
            self.cut = True
            self._queue.clear()

    def result(self) -> dict[str, Any]:
        """Return the inventory."""
        system = self._system
        found: dict[str, Any] = {
            "source": "redfish",
            "system": {
                "vendor": _text(system.get("Manufacturer")),
                "product": _text(system.get("Model")),
                "serial": _text(system.get("SerialNumber")),
                "uuid": _text(system.get("UUID")).lower(),
                "board": _text(system.get("PartNumber") or system.get("SKU")),
            },
            "firmware": {
                "type": _firmware(system), "vendor": "", "date": "",
                "version": _text(system.get("BiosVersion")),
            },
            "cpu": self._cpu(),
            "memory": {"bytes": self._memory()},
            "disks": self._disks,
            "nics": list(self._nics.values()),
        }  # fmt: skip
        if self._disks_shown > len(self._disks):
            found["disks_cut"] = self._disks_shown
        if self.cut:
            found["cut"] = True
        return found

    # -- resources -------------------------------------------------------------------------

    def _on_system(self, body: Mapping[str, Any], _kind: str) -> None:
        self._system = body
        for kind, name in (
            ("nics", "EthernetInterfaces"), ("storages", "Storage"),
            ("processors", "Processors"), ("dimms", "Memory"), ("simples", "SimpleStorage"),
        ):  # fmt: skip
            if kind == "dimms" and self._summed_memory() is not None:
                continue
            self._ask(kind, body.get(name))

    def _on_members(self, body: Mapping[str, Any], kind: str) -> None:
        try:
            found = parse_members(body)
        except NotRedfish:
            return
        shown = _count(body, "Members", len(found))
        most = _MEMBERS_MAX[kind]
        self.cut = self.cut or shown > min(most, MAX_MEMBERS)
        for path in found[:most]:
            self._ask(_OF[kind], path)

    def _on_processor(self, body: Mapping[str, Any], _kind: str) -> None:
        if body.get("ProcessorType", "CPU") == "CPU" and _present(body):
            cores, threads = _number(body.get("TotalCores")), _number(body.get("TotalThreads"))
            self._cpus.append((_text(body.get("Model")), cores or 0, threads or cores or 0))

    def _on_dimm(self, body: Mapping[str, Any], _kind: str) -> None:
        size = _number(body.get("CapacityMiB"))
        if size and _present(body):
            self._dimm_bytes += min(size << 20, BYTES_MAX)

    def _on_nic(self, body: Mapping[str, Any], _kind: str) -> None:
        mac = _mac(body.get("PermanentMACAddress")) or _mac(body.get("MACAddress"))
        if mac is None or mac in self._nics:
            return
        status = body.get("LinkStatus")
        speed = _number(body.get("SpeedMbps"))
        self._nics[mac] = {
            "name": _text(body.get("Id") or body.get("Name")), "mac": mac,
            "link": {"LinkUp": True, "LinkDown": False, "NoLink": False}.get(str(status)),
            "speed_mbps": speed or None, "driver": "", "boot": False,
        }  # fmt: skip

    def _on_storage(self, body: Mapping[str, Any], _kind: str) -> None:
        drives = body.get("Drives")
        listed = drives if isinstance(drives, list) else []
        self._disks_shown += _count(body, "Drives", len(listed))
        for item in listed[:DISKS_MAX]:
            self._ask("drive", item)

    def _on_drive(self, body: Mapping[str, Any], _kind: str) -> None:
        self._add_disk(body)

    def _on_simple(self, body: Mapping[str, Any], _kind: str) -> None:
        """Devices of SimpleStorage stand in place, and count where Storage showed none."""
        devices = body.get("Devices")
        if self._disks or not isinstance(devices, list):
            return
        sound = [item for item in devices if isinstance(item, Mapping) and _present(item)]
        self._disks_shown += len(sound)
        for item in sound[:DISKS_MAX]:
            self._add_disk(item)

    # -- parts -----------------------------------------------------------------------------

    def _ask(self, kind: str, target: object) -> None:
        path = link(target)
        if path is None or path in self._met:
            return
        if len(self._met) >= READS_MAX:
            self.cut = True
            return
        self._met.add(path)
        self._queue.append((kind, path))

    def _add_disk(self, body: Mapping[str, Any]) -> None:
        if len(self._disks) >= DISKS_MAX or not _present(body):
            return
        size = _number(body.get("CapacityBytes"))
        bus = _text(body.get("Protocol")).lower()
        self._disks.append(
            {
                "name": _text(body.get("Id") or body.get("Name")),
                "serial": _text(body.get("SerialNumber")),
                "model": _text(body.get("Model")),
                "bytes": size,
                "sector_bytes": _number(body.get("BlockSizeBytes")),
                "rotational": {"HDD": True, "SSD": False}.get(str(body.get("MediaType"))),
                "bus": {"sata": "ata", "sas": "scsi"}.get(bus, bus) or "other",
                "fixed": bus != "usb",
                "writable": True,
            }
        )

    def _cpu(self) -> dict[str, Any]:
        summary = _mapping(self._system.get("ProcessorSummary"))
        if self._cpus:
            sockets = len(self._cpus)
            cores = sum(cpu[1] for cpu in self._cpus)
            threads = sum(cpu[2] for cpu in self._cpus)
            model = self._cpus[0][0]
        else:
            sockets, model, cores, threads = _number(summary.get("Count")) or 0, "", 0, 0
        cores = cores or _number(summary.get("CoreCount")) or 0
        threads = threads or _number(summary.get("LogicalProcessorCount")) or cores
        return {
            "model": model or _text(summary.get("Model")), "sockets": sockets,
            "cores": cores, "threads": threads,
        }  # fmt: skip

    def _summed_memory(self) -> int | None:
        size = _mapping(self._system.get("MemorySummary")).get("TotalSystemMemoryGiB")
        if isinstance(size, bool) or not isinstance(size, int | float):
            return None
        return int(size * (1 << 30)) if math.isfinite(size) and 0 < size < 1 << 30 else None

    def _memory(self) -> int | None:
        return self._summed_memory() or self._dimm_bytes or None


_METHOD: Final[Mapping[str, str]] = dict.fromkeys(_OF, "members")


def _firmware(system: Mapping[str, Any]) -> str | None:
    mode = _mapping(system.get("Boot")).get("BootSourceOverrideMode")
    return {"UEFI": "uefi", "Legacy": "bios"}.get(str(mode))


def _present(body: Mapping[str, Any]) -> bool:
    return _mapping(body.get("Status")).get("State") != "Absent"


def _count(body: Mapping[str, Any], name: str, found: int) -> int:
    shown = _number(body.get(f"{name}@odata.count"))
    listed = body.get(name)
    return max(found, len(listed) if isinstance(listed, list) else 0, min(shown or 0, 1 << 20))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mac(value: object) -> str | None:
    """Return a MAC in our spelling: of one interface, and of none that is made up."""
    mac = parse_mac(value) if isinstance(value, str) and len(value) <= 32 else None
    if mac is None or mac in _NOT_MACS or int(mac[:2], 16) & 1:
        return None
    return mac


def _text(value: object) -> str:
    return clip(value)[:TEXT_CHARS_MAX] if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) and 0 <= value <= BYTES_MAX else None
