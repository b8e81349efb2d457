"""NVMe and ATA drives as byte-level fakes: which commands go out, whose word counts."""

import struct
from pathlib import Path
from typing import Any

import pytest

from node.ramdisk.ata import AtaDrive
from node.ramdisk.errors import MethodRefused, StepFailed
from node.ramdisk.hardware import Disk
from node.ramdisk.ioctl import address, buffer
from node.ramdisk.nvme import NvmeDrive
from node.ramdisk.passthrough import (
    NVME_ADMIN,
    NVME_COMMAND,
    SG_HEADER,
    AtaPort,
    ata_registers,
)

GIB = 1 << 30


class Controller:
    """An NVMe controller (Base Specification 2.0 figures 275, 97, 209)."""

    def __init__(self, **more: Any) -> None:
        self.oacs, self.fna, self.sanicap = 2, 4, 3
        self.flbas, self.dps = 0x11, 0x09
        self.log: list[tuple[int, int, int]] = []
        self.status = 0
        self.asked: list[tuple[int, int, int]] = []
        self.__dict__.update(more)

    def __call__(self, opcode, namespace, cdw10, read_bytes=0, tick=None):
        data = bytearray(read_bytes)
        match opcode, cdw10:
            case 0x06, 1:
                data[4:24], data[24:64] = b"SER1".ljust(20), b"Model X".ljust(40)
                data[256], data[524] = self.oacs, self.fna
                struct.pack_into("<I", data, 328, self.sanicap)
                data[520] = 8
            case 0x06, 0:
                struct.pack_into("<Q", data, 0, GIB // 4096)
                data[26], data[29] = self.flbas, self.dps
                data[128 + 4 * 1 + 2] = 12
            case 0x02, _:
                sprog, sstat, scdw10 = self.log.pop(0) if len(self.log) > 1 else self.log[0]
                struct.pack_into("<HHI", data, 0, sprog, sstat, scdw10)
            case _:
                self.asked.append((opcode, namespace, cdw10))
                assert tick is not None, "what may take long must tick"
                tick()
                return self.status, b""
        return 0, bytes(data)


def nvme(controller: Controller) -> NvmeDrive:
    disk = Disk("nvme0n1", "/dev/none", "SER1", GIB, 4096)
    return NvmeDrive(disk, controller, 1, lambda: None, lambda _: None)


def test_an_nvme_drive_says_who_it_is_and_what_it_can():
    drive = nvme(Controller())
    found = drive.identify()
    assert (found.model, found.serial, found.bytes) == ("Model X", "SER1", GIB)
    assert drive.capabilities().methods[:4] == (
        "nvme-sanitize-crypto", "nvme-sanitize-block", "nvme-format-crypto",
        "nvme-format-user-data",
    )  # fmt: skip
    assert nvme(Controller(oacs=0, sanicap=0)).capabilities().methods == ("overwrite",)
    assert nvme(Controller(fna=0, sanicap=2)).capabilities().methods[:2] == (
        "nvme-sanitize-block", "nvme-format-user-data",
    )  # fmt: skip


def test_a_format_keeps_lba_format_metadata_and_protection():
    controller = Controller()
    nvme(controller).erase("nvme-format-user-data", lambda _: None)
    nvme(controller).erase("nvme-format-crypto", lambda _: None)
    kept = 0x1 | 1 << 4 | 1 << 5 | 1 << 8  # LBAF 1, metadata inline, protection 1, first bytes
    assert controller.asked == [(0x80, 1, kept | 1 << 9), (0x80, 1, kept | 2 << 9)]


def test_a_status_is_a_refusal():
    with pytest.raises(MethodRefused, match="refuses nvme-format-crypto: NVMe status 0x2002"):
        nvme(Controller(status=0x2002)).erase("nvme-format-crypto", lambda _: None)


def test_a_sanitize_counts_when_the_log_says_that_this_one_ended():
    done: list[float] = []
    controller = Controller(log=[(0, 0, 0), (0, 1, 2), (0x8000, 2, 4), (0xFFFF, 0x101, 4)])
    told = nvme(controller).erase("nvme-sanitize-crypto", done.append)
    assert controller.asked == [(0x84, 0, 4)]
    assert told == {"cdw10": 4, "log_status": 1, "log_progress": 0xFFFF}
    assert 0.5 in done


def test_a_sanitize_that_another_boot_began_is_waited_for():
    controller = Controller(log=[(1, 2, 2), (0xFFFF, 1, 2), (0xFFFF, 1, 2)])
    told = nvme(controller).erase("nvme-sanitize-block", lambda _: None)
    assert told["log_status"] == 1


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ([(0, 0, 0)], "its log does not name it"),
        ([(0xFFFF, 1, 2)], "its log does not name it"),  # an older block erase
        ([(0, 0, 0), (9, 3, 4)], "says that its sanitize failed"),
    ],
)
def test_a_sanitize_that_only_says_done_fails(log, says):
    with pytest.raises(StepFailed, match=says) as caught:
        nvme(Controller(log=log)).erase("nvme-sanitize-crypto", lambda _: None)
    assert not isinstance(caught.value, MethodRefused)


class AtaDisk:
    """A drive with the ATA security feature set, as ACS-4 7.37 to 7.42 describe it."""

    def __init__(self, security: int = 0x21, **more: Any) -> None:
        self.security = security
        self.password = b""
        self.prepared = False
        self.abort: set[int] = set()
        self.lie: set[int] = set()
        self.asked: list[int] = []
        self.__dict__.update(more)

    def __call__(self, command, timeout_s, read=False, data=b"", tick=None):
        if command == 0xEC:
            words = bytearray(512)
            words[20:40] = b"ES1R".ljust(20)
            words[54:94] = b"oMed l Y".ljust(40)
            struct.pack_into("<Q", words, 200, GIB // 512)
            struct.pack_into("<H", words, 256, self.security)
            return 0x50, 0, bytes(words)
        self.asked.append(command)
        if command in self.abort or self.security & 8:
            return 0x51, 0x04, b""
        if command in self.lie:
            return 0x50, 0, b""
        match command:
            case 0xF1:
                self.security, self.password = self.security | 2, data[2:34]
            case 0xF3:
                self.prepared = True
            case 0xF4 if self.prepared and data[2:34] == self.password:
                tick()
                self.security &= ~2
            case 0xF2 if data[2:34] == self.password:
                self.security &= ~4
            case 0xF6 if not self.security & 4:
                self.security &= ~2
            case _:
                return 0x51, 0x04, b""
        return 0x50, 0, b""


def ata(drive: AtaDisk) -> AtaDrive:
    return AtaDrive(Disk("sda", "/dev/none", "SER1", GIB), drive)


def test_an_ata_drive_says_who_it_is_and_what_it_can():
    assert ata(AtaDisk()).capabilities().methods == ("ata-enhanced", "ata-normal", "overwrite")
    assert ata(AtaDisk(1)).capabilities().methods == ("ata-normal", "overwrite")
    assert ata(AtaDisk(0)).capabilities().methods == ("overwrite",)
    frozen = ata(AtaDisk(0x29)).capabilities()
    assert (frozen.frozen, frozen.locked) == (True, False)
    found = ata(AtaDisk()).identify()
    assert (found.model, found.serial, found.bytes) == ("Model Y", "SER1", GIB)


def test_a_secure_erase_sets_a_password_erases_and_the_password_is_gone():
    drive = AtaDisk()
    told = ata(drive).erase("ata-enhanced", lambda _: None)
    assert drive.asked == [0xF1, 0xF3, 0xF4]
    assert told == {"security_before": 0x21, "security_after": 0x21}


@pytest.mark.parametrize(
    ("drive", "kind", "says"),
    [
        (AtaDisk(0x29), MethodRefused, "frozen"),
        (AtaDisk(0x23), MethodRefused, "an ATA password that is not ours"),
        (AtaDisk(lie={0xF1}), MethodRefused, "took a password but does not have one"),
        (AtaDisk(abort={0xF4}), MethodRefused, "aborts the ATA command 0xf4"),
        (AtaDisk(lie={0xF4}), StepFailed, "is done but still has our password"),
    ],
)
def test_the_drive_s_own_registers_count(drive, kind, says):
    with pytest.raises(kind, match=says):
        ata(drive).erase("ata-normal", lambda _: None)
    if drive.abort:
        assert not drive.security & 2, "the password is taken off again"


def test_an_interrupted_erase_left_our_password_and_the_next_boot_opens_it():
    drive = AtaDisk(0x27, password=b"rackmesh".ljust(32, b"\0"))
    assert ata(drive).capabilities().locked is False
    assert drive.security == 0x21
    foreign = AtaDisk(0x27, password=b"x" * 32)
    port = ata(foreign)
    assert port.capabilities().locked is True
    assert port.capabilities().locked is True
    assert foreign.asked == [0xF2], "one try only: five wrong ones shut the drive"


def test_registers_come_out_of_both_forms_of_sense_data():
    described = bytes((0x72, 1, 0, 0x1D, 0, 0, 0, 14, 9, 12, 0, 0x04, *[0] * 9, 0x51))
    assert ata_registers(described) == (0x51, 0x04)
    fixed = bytes((0x70, 0, 1, 0x04, 0x51, 0, 0, 10)) + bytes(10)
    assert ata_registers(fixed) == (0x51, 0x04)
    assert ata_registers(bytes(64)) is None
    assert ata_registers(bytes((0x72, 0, 0, 0, 0, 0, 0, 255, 9))) is None


def test_the_kernel_s_structures_have_their_sizes(tmp_path: Path):
    (tmp_path / "file").touch()
    assert NVME_COMMAND.size == 72 == NVME_ADMIN >> 16 & 0x3FFF
    assert SG_HEADER.size == 88
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        AtaPort(str(tmp_path / "file"))(0xEC, 1, True)
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        AtaPort(str(tmp_path / "file"))(0xF4, 1, False, bytes(512), lambda: None)
    memory = buffer(b"abc")
    assert (bytes(memory), address(memory) > 0) == (b"abc", True)


def test_a_block_device_offers_write_zeroes_when_the_kernel_has_it(tmp_path: Path):
    from node.ramdisk.drive import BlockDrive

    place = tmp_path / "sys/block/vda/queue"
    place.mkdir(parents=True)
    drive = BlockDrive(Disk("vda", "/dev/vda", "S", GIB), tmp_path)
    assert drive.capabilities().methods == ("overwrite",)
    (place / "write_zeroes_max_bytes").write_text("0\n")
    assert drive.capabilities().methods == ("overwrite",)
    (place / "write_zeroes_max_bytes").write_text("4096\n")
    assert drive.capabilities().methods == ("write-zeroes", "overwrite")
