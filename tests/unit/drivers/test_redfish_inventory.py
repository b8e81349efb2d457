"""Reading a server by Redfish: what is followed, what is believed, where it ends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto.redfish_inventory import DISKS_MAX, READS_MAX, InventoryReading
from node.proto.agent_wire import kept_inventory, summary

SYSTEM = "/redfish/v1/Systems/1"


def at(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def read(bodies: dict[str, Any], system: str = SYSTEM) -> tuple[dict[str, Any], list[str]]:
    reading, asked = InventoryReading(system), list[str]()
    while (path := reading.wants) is not None:
        asked.append(path)
        reading.on_body(bodies.get(path))
    return reading.result(), asked


def members(*paths: str, **more: Any) -> dict[str, Any]:
    return {"Members": [at(path) for path in paths], **more}


def test_a_whole_server_is_read_in_the_shape_of_the_ramdisk() -> None:
    """Values as in the DMTF mockup of a rack server (DSP2043)."""
    cpu = {"ProcessorType": "CPU", "Model": "Xeon", "TotalCores": 8, "TotalThreads": 16}
    found, asked = read(
        {
            SYSTEM: {
                "Manufacturer": "Contoso", "Model": "3500", "SerialNumber": "437XR1138R2",
                "UUID": "38947555-7742-3448-3784-823347823834", "BiosVersion": "P79 v1.45",
                "Boot": {"BootSourceOverrideMode": "UEFI"}, "PowerState": "Off",
                "Processors": at(f"{SYSTEM}/Processors"), "Memory": at(f"{SYSTEM}/Memory"),
                "EthernetInterfaces": at(f"{SYSTEM}/EthernetInterfaces"),
                "Storage": at(f"{SYSTEM}/Storage"),
                "SimpleStorage": at(f"{SYSTEM}/SimpleStorage"),
            },
            f"{SYSTEM}/Processors": members("/cpu/1", "/cpu/2", "/cpu/gpu"),
            "/cpu/1": cpu, "/cpu/2": cpu,
            "/cpu/gpu": {"ProcessorType": "GPU", "TotalCores": 5000},
            f"{SYSTEM}/Memory": members("/dimm/1", "/dimm/2", "/dimm/3"),
            "/dimm/1": {"CapacityMiB": 32768}, "/dimm/2": {"CapacityMiB": 32768},
            "/dimm/3": {"CapacityMiB": 32768, "Status": {"State": "Absent"}},
            f"{SYSTEM}/EthernetInterfaces": members("/nic/1", "/nic/2", "/nic/3"),
            "/nic/1": {"Id": "NIC.1", "MACAddress": "12:44:6A:3B:88:90",
                       "PermanentMACAddress": "AA:BB:CC:DD:EE:00", "LinkStatus": "LinkUp",
                       "SpeedMbps": 25000},
            "/nic/2": {"Id": "NIC.2", "MACAddress": "00:00:00:00:00:00"},
            "/nic/3": {"Id": "NIC.3", "MACAddress": "AA-BB-CC-DD-EE-02"},
            f"{SYSTEM}/Storage": members("/raid"),
            "/raid": {"Drives": [at("/disk/1"), at("/disk/2"), at("/disk/empty")]},
            "/disk/1": {"Id": "Disk.1", "SerialNumber": "S1", "CapacityBytes": 899527000000,
                        "MediaType": "HDD", "Protocol": "SAS", "BlockSizeBytes": 512},
            "/disk/2": {"Id": "Disk.2", "CapacityBytes": 1, "MediaType": "SSD",
                        "Protocol": "NVMe"},
            "/disk/empty": {"Id": "Disk.3", "Status": {"State": "Absent"}},
        }
    )  # fmt: skip
    assert found["system"]["serial"] == "437XR1138R2"
    assert found["firmware"]["type"] == "uefi"
    assert found["cpu"] == {"model": "Xeon", "sockets": 2, "cores": 16, "threads": 32}
    assert found["memory"] == {"bytes": 64 << 30}
    assert [nic["mac"] for nic in found["nics"]] == ["aa:bb:cc:dd:ee:00", "aa:bb:cc:dd:ee:02"]
    disks = [(d["name"], d["serial"], d["rotational"], d["bus"]) for d in found["disks"]]
    assert disks == [("Disk.1", "S1", True, "scsi"), ("Disk.2", "", False, "nvme")]
    assert len(asked) == len(set(asked)) == 19
    assert summary(found).startswith("Contoso 3500 (437XR1138R2) 64.0 GiB RAM 2 disks")


def test_links_are_followed_once_and_on_this_host_alone() -> None:
    loop = f"{SYSTEM}/EthernetInterfaces"
    found, asked = read(
        {
            SYSTEM: {"EthernetInterfaces": at(loop), "Storage": at("https://evil/x")},
            loop: members(loop, SYSTEM, "//evil/nic", "/a/../../b", "/nic"),
            "/nic": {"MACAddress": "02:00:00:00:00:01"},
        }
    )
    assert asked == [SYSTEM, loop, "/nic"]
    assert len(found["nics"]) == 1


@pytest.mark.parametrize("shown", [10_000, 65])
def test_ten_thousand_disks_are_cut_and_it_is_said(shown: int) -> None:
    bodies: dict[str, Any] = {
        SYSTEM: {"Storage": at("/storages")},
        "/storages": members("/raid"),
        "/raid": {"Drives": [at(f"/disk/{n}") for n in range(shown)]},
    }
    bodies |= {f"/disk/{n}": {"Id": f"d{n}", "CapacityBytes": 1} for n in range(shown)}
    found, asked = read(bodies)
    assert len(asked) <= READS_MAX
    assert len(found["disks"]) == DISKS_MAX
    assert found["disks_cut"] == shown
    assert kept_inventory(found)["disks_cut"] == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([SYSTEM, "/a", "/b", "02:00:00:00:00:01", "Absent", "CPU"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["@odata.id", "Members", "Members@odata.count", "Drives", "Devices", "Storage",
             "EthernetInterfaces", "Processors", "Memory", "SimpleStorage", "Status", "State",
             "MACAddress", "CapacityBytes", "Boot", "MemorySummary", "TotalSystemMemoryGiB",
             "ProcessorSummary", "TotalCores", "CapacityMiB", "SpeedMbps", "Id", "LinkStatus",
             "Drives@odata.count", "MediaType", "BootSourceOverrideMode"]
        ),
        inner, max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.text(max_size=3), JSON) | JSON, max_size=12))
def test_garbage_never_raises(answers: list[Any]) -> None:
    reading = InventoryReading(SYSTEM)
    for answer in answers:
        if reading.wants is None:
            break
        reading.on_body(answer if isinstance(answer, dict) else None)
    kept_inventory(reading.result())
