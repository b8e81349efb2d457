"""What the virtual BMC shows of a simulated server's parts (DMTF DSP2046): read only.

It knows no sockets. Rule: it is the same machine that its ramdisk describes
(``node/rack/hardware.py``): same MAC, serial numbers and sizes.
"""

from typing import Any, Protocol


class Machine(Protocol):
    """What is shown of a server."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def serial(self) -> str: ...  # noqa: D102
    @property
    def mac(self) -> str: ...  # noqa: D102
    @property
    def disk_bytes(self) -> int: ...  # noqa: D102


def links(own: str) -> dict[str, Any]:
    """Return the links and facts of a system's body; ``own`` is its path."""
    parts = ("Processors", "EthernetInterfaces", "Storage")
    return {
        **{name: {"@odata.id": f"{own}/{name}"} for name in parts},
        "BiosVersion": "1",
        "ProcessorSummary": {"Count": 1, "Model": "Simulated CPU", "CoreCount": 8},
    }


def part(own: str, rest: str, server: Machine) -> dict[str, Any] | None:
    """Return the resource at ``own`` + ``rest``, or None when there is none."""
    at = own + rest
    bodies: dict[str, dict[str, Any]] = {
        "/Processors": _members(at, "CPU0"),
        "/Processors/CPU0": {
            "Id": "CPU0", "ProcessorType": "CPU", "Model": "Simulated CPU", "TotalCores": 8,
            "TotalThreads": 16,
        },
        "/EthernetInterfaces": _members(at, "net0"),
        "/EthernetInterfaces/net0": {
            "Id": "net0", "MACAddress": server.mac.upper(), "SpeedMbps": 10_000,
            "PermanentMACAddress": server.mac.upper(), "LinkStatus": "LinkUp",
        },
        "/Storage": _members(at, "1"),
        "/Storage/1": {
            "Id": "1", "Drives@odata.count": 1,
            "Drives": [{"@odata.id": f"{own}/Storage/1/Drives/vda"}],
        },
        "/Storage/1/Drives/vda": {
            "Id": "vda", "SerialNumber": f"{server.serial}-D0", "Model": "Simulated disk",
            "CapacityBytes": server.disk_bytes, "BlockSizeBytes": 512, "MediaType": "SSD",
        },
    }  # fmt: skip
    found = bodies.get(rest)
    return (
        None if found is None else {"@odata.id": at, "Name": rest.rpartition("/")[2], **found}
    )


def _members(at: str, member: str) -> dict[str, Any]:
    return {"Members@odata.count": 1, "Members": [{"@odata.id": f"{at}/{member}"}]}
