"""Inventory out of a made-up /sys and /proc."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from node.ramdisk.inventory import (
    disk_order,
    parse_command_line,
    parse_cpuinfo,
    parse_meminfo,
    read_inventory,
    usable_disks,
)
from node.ramdisk.main import settings

CPUINFO = """processor\t: 0
model name\t: Some CPU
physical id\t: 0
cpu cores\t: 2

processor\t: 1
physical id\t: 0
cpu cores\t: 2

processor\t: 2
physical id\t: 1
cpu cores\t: 2
"""


def put(root: Path, path: str, data: str | bytes) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data if isinstance(data, bytes) else data.encode())


def disk(root: Path, name: str, device: str, **files: str) -> None:
    at = root / "sys/devices" / device / "block" / name
    for key, value in ({"size": "4096", "removable": "0", "ro": "0"} | files).items():
        put(at, key.replace("__", "/"), value + "\n")
    link = root / "sys/block" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(at)


def machine(root: Path) -> None:
    put(root, "sys/class/dmi/id/sys_vendor", "Maker\n")
    put(root, "sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n")
    put(root, "proc/cpuinfo", CPUINFO)
    put(root, "proc/meminfo", "MemTotal:     1024 kB\n")
    put(root, "proc/uptime", "12.50 1.00\n")
    disk(root, "vda", "pci0/virtio2", serial="V1", queue__rotational="1")
    disk(root, "sdb", "pci0/ata2/host1", device__vpd_pg80="")
    put(root, "sys/block/sdb/device/vpd_pg80", b"\0\x80\0\x08  SER9  ")
    disk(root, "sda", "pci0/usb1/1-1/host2", size="100")
    disk(root, "sdc", "pci0/ata3/host3", ro="1")
    disk(root, "sdd", "pci0/ata4/host4", size="0")
    disk(root, "sr0", "pci0/ata5/host5")
    disk(root, "loop0", "virtual")
    put(root, "sys/class/net/eth0/address", "52:54:00:AA:00:01\n")
    put(root, "sys/class/net/eth0/carrier", "1\n")
    put(root, "sys/class/net/eth0/speed", "-1\n")
    put(root, "sys/class/net/eth0/device/x", "")
    put(root, "sys/class/net/lo/address", "00:00:00:00:00:00\n")


def test_a_machine_is_described_from_its_files(tmp_path):
    machine(tmp_path)
    found = read_inventory("52:54:00:aa:00:01", tmp_path)
    assert found["system"]["vendor"] == "Maker"
    assert found["system"]["serial"] == ""
    assert found["firmware"]["type"] == "bios"
    assert found["cpu"] == {"model": "Some CPU", "sockets": 2, "cores": 4, "threads": 3}
    assert found["memory"] == {"bytes": 1 << 20}
    assert found["uptime_s"] == 12.5
    assert found["nics"] == [
        {
            "name": "eth0",
            "mac": "52:54:00:aa:00:01",
            "link": True,
            "speed_mbps": None,
            "driver": "",
            "boot": True,
        }
    ]
    assert [one["name"] for one in found["disks"]] == ["sda", "sdb", "sdc", "vda"]
    assert [one["bus"] for one in found["disks"]] == ["usb", "ata", "ata", "virtio"]


def test_only_fixed_writable_disks_may_be_written(tmp_path):
    machine(tmp_path)
    usable = usable_disks(read_inventory("", tmp_path)["disks"])
    assert [(one.name, one.serial, one.path, one.bytes) for one in usable] == [
        ("sdb", "SER9", "/dev/sdb", 4096 * 512),
        ("vda", "V1", "/dev/vda", 4096 * 512),
    ]


def test_an_empty_machine_is_described_without_raising(tmp_path):
    found = read_inventory("", tmp_path)
    assert (found["disks"], found["nics"]) == ([], [])
    assert found["memory"] == {"bytes": None}


def test_disks_stand_in_the_order_of_the_kernel():
    names = ["sdaa", "nvme10n1", "sdb", "nvme2n1", "sda"]
    assert sorted(names, key=disk_order) == ["nvme2n1", "nvme10n1", "sda", "sdb", "sdaa"]


def test_settings_come_from_the_command_line_and_the_environment():
    line = (
        "console=ttyS0 rackmesh.url=http://a:1,http://b:2 rackmesh.mac=AA:BB rackmesh.cap=x=="
    )
    assert parse_command_line(line)["cap"] == "x=="
    assert settings(line, {}, []) == (["http://a:1", "http://b:2"], "aa:bb", "x==")
    changed = settings(line, {"RACKMESH_URL": "http://c:3"}, ["rackmesh.mac=cc"])
    assert changed == (["http://c:3"], "cc", "x==")


@given(st.text())
def test_garbage_never_raises(text):
    parse_cpuinfo(text)
    parse_meminfo(text)
    parse_command_line(text)
