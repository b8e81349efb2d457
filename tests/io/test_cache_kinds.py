"""Content of each kind into a real cache: looked at, converted by the real qemu-img, hashed."""

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio

from cache.api import (
    Ask,
    Cache,
    ContentMismatch,
    ImageRefused,
    Members,
    NoConverter,
    NoSpace,
)
from mesh.host.clock import FixedClock
from tests.support.origin import Origin

MIB = 1 << 20
needs_converter = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is missing: apt-get install qemu-utils"
)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


RAW = random.Random(3).randbytes(MIB + 512) + bytes(8 * MIB) + random.Random(4).randbytes(512)


@pytest.fixture
def cache(tmp_path: Path):
    made = Cache.open(tmp_path / "cache", 1 << 34, FixedClock())
    yield made
    made.close()


@pytest.fixture(scope="session")
def qcow2(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("qcow2")
    (folder / "raw").write_bytes(RAW)
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "raw", "made"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "made").read_bytes()


@pytest.fixture
def fake_converter(monkeypatch):
    """Put another program in the converter's place: what a taken-over one might do."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # nobody must reach it
        Path(folder).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

        def put(script: str) -> None:
            tool = Path(folder) / "qemu-img"
            tool.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
            tool.chmod(0o755)

        yield put


class Pieces:
    """A stream that may be left before its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        piece = self._data[self._at : self._at + 100_000]
        self._at += len(piece)
        if not piece:
            raise StopAsyncIteration
        return piece


def left_over(cache_folder: Path) -> list[str]:
    return sorted(path.name for path in (cache_folder / "partial").iterdir())


@needs_converter
async def test_a_qcow2_image_becomes_the_raw_disk_that_it_stands_for(cache, qcow2, tmp_path):
    manifest = await cache.add_stream("img", Pieces(qcow2), sha256_of(qcow2), "qcow2")
    assert manifest.size == len(RAW)
    assert manifest.sha256 == sha256_of(RAW), "the id is of the raw disk"
    assert cache.source_of("img") == sha256_of(qcow2), "what was published is remembered"
    data = tmp_path / "cache/assets" / manifest.asset[3:] / "data"
    assert data.read_bytes() == RAW
    assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (os.geteuid(), 0o600)
    assert data.stat().st_blocks * 512 < len(RAW), "zeros take no room"
    assert left_over(tmp_path / "cache") == []


@needs_converter
async def test_by_url_the_published_file_is_checked_and_the_result_remembered(
    qcow2, nursery, tmp_path
):
    cache, origin = Cache.open(tmp_path / "cache", 1 << 34, FixedClock()), Origin(qcow2)
    await nursery.start(origin.run)
    sha256 = sha256_of(qcow2)
    made = await cache.resolve("img", origin.url, sha256, "qcow2", sha256_of(RAW))
    assert made.sha256 == sha256_of(RAW)
    cache.close()
    again = Cache.open(tmp_path / "cache", 1 << 34, FixedClock())
    assert await again.resolve("img", origin.url, sha256, "qcow2") == made
    assert len(origin.requests) == 1, "what is here is not fetched again"
    again.close()


@needs_converter
async def test_a_wrong_sum_before_or_after_the_conversion_keeps_nothing(cache, qcow2, tmp_path):
    with pytest.raises(ContentMismatch, match="declared was " + "a" * 64):
        await cache.add_stream("img", Pieces(qcow2), "a" * 64, "qcow2")
    with pytest.raises(ContentMismatch, match=f"converts to {sha256_of(RAW)}"):
        await cache.add_stream("img", Pieces(qcow2), sha256_of(qcow2), "qcow2", "b" * 64)
    assert cache.assets()[0].state == "failed"
    assert not list((tmp_path / "cache/assets").iterdir())


@needs_converter
async def test_an_image_that_names_another_file_never_reaches_the_converter(
    cache, tmp_path, fake_converter
):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(b"of the host".ljust(MIB, b"!"))
    thief, real = tmp_path / "thief", shutil.which("qemu-img")
    subprocess.run(
        ["qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", thief],
        check=True, capture_output=True,
    )  # fmt: skip
    asked = tmp_path / "asked"
    fake_converter(f"touch {asked}")
    with pytest.raises(ImageRefused, match="img is refused: it rests on another file"):
        await cache.add_stream("img", Pieces(thief.read_bytes()), None, "qcow2")
    assert not asked.exists()
    outside = tmp_path / "outside"
    subprocess.run(
        [real, "create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data", outside, "1M"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(ImageRefused, match="external data file"):
        await cache.add_stream("img", Pieces(outside.read_bytes()), None, "qcow2")


@needs_converter
async def test_a_damaged_image_is_one_sentence_and_leaves_nothing(cache, qcow2, tmp_path):
    damaged = bytearray(qcow2)
    l1_at = int.from_bytes(qcow2[40:48], "big")
    damaged[l1_at : l1_at + 8] = (1 << 63 | 0x200).to_bytes(8, "big")  # not aligned
    with pytest.raises(ImageRefused, match=r"img is refused: .*qemu-img") as refusal:
        await cache.add_stream("img", Pieces(bytes(damaged)), None, "qcow2")
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "cache/assets").iterdir())
    assert [name for name in left_over(tmp_path / "cache") if name.endswith(".work")] == []


async def test_what_a_converter_leaves_is_believed_as_little_as_what_it_was_given(
    cache, qcow2, tmp_path, fake_converter
):
    for script, sentence in (
        ("ln -s /etc/passwd raw", "left no disk"),
        ("ln source raw", "left no disk|not permitted"),
        ("mkdir raw", "left no disk"),
        ("true", "left no disk"),
        ("echo short > raw", "left 6 of"),
        ("echo boom >&2; exit 1", "boom"),
    ):
        fake_converter(script)
        with pytest.raises(ImageRefused, match=sentence):
            await cache.add_stream("img", Pieces(qcow2), None, "qcow2")
    assert left_over(tmp_path / "cache") in ([], [b"img".hex()])


async def test_without_a_converter_nothing_is_read_and_the_sentence_says_what_to_install(
    cache, nursery, tmp_path, monkeypatch
):
    origin = Origin(b"QFI\xfb" + bytes(MIB))
    await nursery.start(origin.run)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoConverter, match=r"qemu-img is missing.*apt install qemu-utils"):
        await cache.resolve("img", origin.url, None, "qcow2")
    assert origin.requests == []
    assert "qemu-img is missing" in str(cache.assets()[0].error)


async def test_content_of_another_kind_is_refused_at_its_first_bytes(cache, nursery):
    origin = Origin(b"QFI\xfb" + bytes(64 * MIB))
    await nursery.start(origin.run)
    with pytest.raises(ContentMismatch, match="is a qcow2 image, not a raw disk image"):
        await cache.resolve("img", origin.url, None, "image")
    assert origin.sent < 32 * MIB, "the rest is not fetched"
    for kind, data, sentence in (
        ("image", b"\x1f\x8b" + bytes(MIB), "packed with gzip"),
        ("iso", b"text", "is something else, not an ISO 9660 image"),
        ("iso", bytes(16 * 2048) + b"\1CD001" + bytes(MIB), "without an El Torito"),
        ("qcow2", bytes(MIB), "is something else, not a qcow2 image"),
    ):
        if kind == "qcow2" and shutil.which("qemu-img") is None:
            continue
        with pytest.raises(ContentMismatch, match=sentence):
            await cache.add_stream("other", Pieces(data), None, kind)
    assert (await cache.add_stream("any", Pieces(b"QFI\xfbx"), None, "file")).size == 5


@needs_converter
async def test_a_disk_that_will_not_fit_is_told_before_its_image_is_fetched(
    tmp_path, qcow2, nursery
):
    subprocess.run(
        ["qemu-img", "create", "-f", "qcow2", tmp_path / "large", "60G"],
        check=True, capture_output=True,
    )  # fmt: skip
    origin = Origin((tmp_path / "large").read_bytes() + bytes(64 * MIB))
    await nursery.start(origin.run)
    small = Cache.open(tmp_path / "small", 1 << 30, FixedClock())
    with pytest.raises(NoSpace, match="61440 MiB more"):
        await small.resolve("img", origin.url, None, "qcow2")
    assert origin.sent < 32 * MIB, "a try costs the first bytes, not the image"
    small.close()


async def test_zeros_are_not_fetched_from_other_nodes(cache, tmp_path):
    other = Cache.open(tmp_path / "other", 1 << 34, FixedClock())
    content = bytes(3 * MIB) + b"x" * MIB + bytes(MIB) + b"end"
    manifest = await other.add_stream("img", Pieces(content))
    asked: list[int] = []

    class Peer:
        async def members(self) -> Members:
            return Members("me", ("n1",), ("me",), ("me",))

        async def manifest(self, node: str, asset: str) -> bytes:
            return manifest.core

        async def chunk(self, node: str, asset: str, ask: Ask) -> bytes:
            asked.append(ask.index)
            return await other.read_chunk(asset, ask.index)

        def near(self, node: str) -> bool:
            return False

    await cache.fetch("img", manifest.asset, Peer())
    assert sorted(asked) == [3, 5]
    data = tmp_path / "cache/assets" / manifest.asset[3:] / "data"
    assert data.read_bytes() == content
    assert (await cache.read_chunk(manifest.asset, 0)) == bytes(MIB), "verified like any other"
    other.close()
