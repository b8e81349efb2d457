"""The parts that the ramdisk is built by: archive, ELF facts, module closure, lock entries."""

import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.build_image import SIM_MARKER, write_filler
from scripts.lib.build_ramdisk import REPOSITORY, fingerprint, locked
from scripts.lib.debian import Debian, NoPackages
from scripts.lib.elf import is_elf, module_facts, needed
from scripts.lib.kernel_modules import Module, add_modules, chosen, closure, read_module
from scripts.lib.newc import Tree, encode

MIB = 1 << 20


def sample() -> Tree:
    tree = Tree()
    tree.file("init", b"#!/bin/sh\n", 0o755)
    tree.file("usr/lib/a", b"12345")
    tree.link("bin/sh", "busybox")
    tree.folder("proc")
    tree.character_device("dev/console", 5, 1)
    return tree


def read_archive(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read newc by its description, not by our writer."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        begin = at + 110 + name_size
        begin += -begin % 4
        if name == "TRAILER!!!":
            return found
        assert fields[5] == 0, "no time"
        found[name] = (fields[1], data[begin : begin + size])
        at = begin + size
        at += -at % 4


def test_an_archive_reads_back_with_parents_before_children():
    found = read_archive(b"".join(encode(sample())))
    assert list(found) == sorted(found)
    assert found["usr/lib/a"] == (stat.S_IFREG | 0o644, b"12345")
    assert found["bin/sh"] == (stat.S_IFLNK | 0o777, b"busybox")
    assert found["usr"][0] == stat.S_IFDIR | 0o755
    assert found["init"][0] == stat.S_IFREG | 0o755


@pytest.mark.skipif(not shutil.which("cpio"), reason="cpio is not installed")
def test_cpio_lists_the_archive():
    done = subprocess.run(
        ["cpio", "-t"], input=b"".join(encode(sample())), capture_output=True, check=False
    )
    assert done.returncode == 0
    assert b"usr/lib/a" in done.stdout


@pytest.mark.parametrize("path", ["/init", "a/../b", "a//b", "init/below"])
def test_a_path_outside_the_tree_is_refused(path):
    with pytest.raises(ValueError, match=r"tree|folder"):
        sample().file(path, b"")


def test_an_interpreter_names_the_libraries_it_needs():
    data = Path(sys.executable).resolve().read_bytes()
    assert is_elf(data)
    assert "libc.so.6" in needed(data)
    assert not is_elf(b"#!/bin/sh")


def kernel_module(**facts: str) -> bytes:
    """Make an ELF file with a .modinfo section and nothing else."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in facts.items())
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + len(info) + len(names)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 40, at)
    struct.pack_into("<HHH", head, 58, 64, 3, 2)

    def section(name: int, begin: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, begin, size, 0, 0, 1, 0)

    sections = bytes(64) + section(1, 64, len(info)) + section(10, 64 + len(info), len(names))
    return bytes(head) + info + names + sections


def test_a_module_tells_what_it_needs_and_answers_to():
    data = kernel_module(alias="pci:v00008086d*", depends="a-b,c", softdep="pre: d e post: f")
    assert dict(module_facts(data))["alias"] == "pci:v00008086d*"
    assert needed(data) == []
    module = read_module("kernel/x.ko", data)
    assert module.needs == ("a_b", "c", "d", "e")


def test_the_closure_brings_each_module_after_what_it_needs():
    modules = {
        name: Module(f"kernel/{name}.ko", needs, ())
        for name, needs in {
            "top": ("mid", "built_in"),
            "mid": ("low",),
            "low": ("mid",),
            "other": (),
        }.items()
    }
    assert closure(["top"], modules) == ["low", "mid", "top"]


def test_modprobe_finds_what_it_needs_in_the_tree(tmp_path):
    base = tmp_path / "lib/modules/6.1"
    files = {
        "kernel/drivers/net/ethernet/x/nic.ko": kernel_module(alias="pci:v1*", depends="bus"),
        "kernel/lib/bus.ko": kernel_module(depends=""),
        "kernel/sound/loud.ko": kernel_module(depends=""),
    }
    for name, data in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data)
    for name in ("modules.builtin", "modules.order"):
        (base / name).write_bytes(b"")
    tree = Tree()
    assert add_modules(tree, tmp_path) == ("6.1", 2)
    dep = tree.nodes["lib/modules/6.1/modules.dep"].data.decode()
    assert "kernel/drivers/net/ethernet/x/nic.ko: kernel/lib/bus.ko\n" in dep
    assert tree.nodes["lib/modules/6.1/modules.alias"].data == b"alias pci:v1* nic\n"
    assert not any("loud" in path for path in tree.nodes)
    assert chosen(["kernel/drivers/scsi/fcoe/fcoe.ko"]) == []


def test_the_lock_gives_the_wheels_with_their_hashes():
    entries = locked(REPOSITORY / "requirements.lock")
    assert {entry.split("==")[0] for entry in entries} == {"blake3", "cffi", "cryptography"}
    assert all("--hash=sha256:" in entry for entry in entries)
    assert fingerprint() == fingerprint()


def test_without_debians_tools_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoPackages, match="apt-get is missing"):
        Debian(tmp_path)


def test_a_filler_image_has_the_marker_no_table_and_does_not_shrink(tmp_path):
    write_filler(tmp_path / "one", 2, seed=1)
    write_filler(tmp_path / "two", 2, seed=2)
    data = (tmp_path / "one").read_bytes()
    assert len(data) == 2 * MIB
    assert data[:512] == (SIM_MARKER + b'{"v":1}').ljust(512, b"\0")
    assert data != (tmp_path / "two").read_bytes()
