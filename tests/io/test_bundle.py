"""Bundles on a real disk: written, damaged, cut, taken in, interrupted, taken in again."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from cache.api import (
    Ask,
    BundleReader,
    BundleRefused,
    BundleWriter,
    Cache,
    Carrier,
    Members,
    NoSpace,
)
from cache.proto.manifest import Manifest
from mesh.host.clock import FixedClock
from mesh.proto import bundle as form
from mesh.proto.courier import make_piece
from mesh.proto.ids import node_id
from mesh.proto.sign import KeySigner
from mesh.proto.sync_wire import Records

MIB = 1 << 20
ROOT = b"r" * 20
SIGNER = KeySigner(b"s" * 32)
MAKER = node_id(SIGNER.public)
RANDOM = random.Random(5)
CONTENT = RANDOM.randbytes(2 * MIB) + bytes(30 * MIB) + RANDOM.randbytes(MIB + 77)
OTHER = b"a small file"


async def pieces(content: bytes) -> Any:
    for at in range(0, len(content), 300_000):
        yield content[at : at + 300_000]


def cut(content: bytes) -> Iterator[bytes]:
    return (content[at : at + 70_001] for at in range(0, len(content), 70_001))


def open_cache(folder: Path, quota: int = 1 << 30) -> Cache:
    return Cache.open(folder, quota, FixedClock())


class Bench:
    """A bundle of two assets, and a cache that takes it in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "x.bundle"
        self.names: dict[str, str] = {}
        self.taken: list[bytes] = []
        self.members = {MAKER}
        self.cache = open_cache(folder / "cache")

    async def create(self, signer: KeySigner = SIGNER, root: bytes = ROOT) -> list[Manifest]:
        source = open_cache(self.folder / "source")
        made = [
            await source.add_stream("big", pieces(CONTENT)),
            await source.add_stream("small", pieces(OTHER)),
            await source.add_stream("empty", pieces(b"")),
        ]
        source.close()
        with self.file.open("wb") as out:
            writer = BundleWriter(out, root, "0.1.0")
            writer.add_state([make_piece(Records(0, (), False))])
            writer.add_asset(made[0].asset, ["big", "large"], cut(CONTENT))
            writer.add_asset(made[1].asset, ["small"], [OTHER])
            writer.add_asset(made[2].asset, ["empty"], [])
            writer.add_installer([b"tar " * 100])
            writer.finish(lambda digest: form.make_seal(signer, root, digest, 1))
        big, small, empty = (manifest.asset for manifest in made)
        self.names = {"big": big, "large": big, "small": small, "empty": empty}
        return made

    async def _state(self, piece: bytes) -> None:
        self.taken.append(piece)

    @property
    def carrier(self) -> Carrier:
        return Carrier(
            cache=self.cache, root_fp=ROOT, take_state=self._state, asset_of=self.names.get,
            is_member=self.members.__contains__,
        )  # fmt: skip

    async def take(self) -> Any:
        at: int | None = 0
        while at is not None:
            found = await self.carrier.take(self.file, at)
            assert found.next is None or found.next > at
            at = found.next
        return found

    def read_all(self) -> None:
        bundle = BundleReader.open(self.file)
        try:
            list(bundle.state())
            for part in bundle.index.parts:
                reader = bundle.asset(part)
                for index in reader.stored:
                    reader.chunk(index)
            list(bundle.installer())
        finally:
            bundle.close()

    def data(self, name: str) -> bytes:
        return (self.folder / "cache/assets" / self.names[name][3:] / "data").read_bytes()


async def test_zeros_are_left_out_and_all_of_it_comes_out_again(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    assert at.file.stat().st_size < 4 * MIB
    at.read_all()
    found = await at.take()
    assert (found.signed_by, found.done, found.of) == (MAKER, 35, 35)
    assert found.names == ("big", "large", "small", "empty")
    assert at.data("big") == CONTENT
    assert at.data("small") == OTHER
    assert len(at.taken) == 1
    states = {state.name: state.state for state in at.cache.assets()}
    assert states == dict.fromkeys(at.names, "verified")
    size = (tmp_path / "cache/assets" / at.names["big"][3:] / "data").stat().st_blocks * 512
    assert size < 8 * MIB, "zeros take no room"
    at.cache.close()
    again = open_cache(tmp_path / "cache")
    assert all(again.holds(asset) for asset in at.names.values())


async def test_an_import_that_was_cut_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Bench(tmp_path)
    await at.create()
    monkeypatch.setattr("cache.carrying.PIECE_S", 0.0)
    monkeypatch.setattr("cache.carrying.BATCH", 1)
    first = await at.carrier.take(at.file, 0)
    assert (first.next, first.done) == (1, 1), "no time, but every call goes on"
    monkeypatch.setattr("cache.carrying.PIECE_S", 5.0)
    at.cache.close()  # the node was stopped there
    at.cache = open_cache(tmp_path / "cache")
    read: list[int] = []
    real = at.cache.carry

    async def counted(name: str, manifest: Manifest, chunks: range, give: Any) -> None:
        def noted(index: int) -> bytes:
            read.append(index)
            return bytes(give(index))

        await real(name, manifest, chunks, noted)

    monkeypatch.setattr(at.cache, "carry", counted)
    await at.take()
    assert read == [1, 32, 33, 0], "what was here, and zeros, were not read"
    await at.take()
    assert read == [1, 32, 33, 0]
    assert at.data("big") == CONTENT


async def test_every_cut_is_told_before_anything_is_written(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    whole = at.file.read_bytes()
    for length in [0, 5, 28, 29, 1000, MIB, len(whole) - 500, len(whole) - 1]:
        at.file.write_bytes(whole[:length])
        with pytest.raises(
            BundleRefused, match=r"x\.bundle: (this is no file|the file is cut)"
        ):
            await at.take()
    at.file.write_bytes(whole + b"x")
    with pytest.raises(BundleRefused, match="cut short or damaged"):
        at.read_all()
    assert list((tmp_path / "cache/assets").iterdir()) == []
    assert at.taken == []


async def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    whole = at.file.read_bytes()
    rng = random.Random(3)
    places = [*range(200), *range(len(whole) - 900, len(whole))]
    places += [rng.randrange(len(whole)) for _ in range(40)]
    for place in places:
        with at.file.open("r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 1]))
        with pytest.raises(BundleRefused, match=r"x\.bundle"):
            at.read_all()
        with at.file.open("r+b") as file:
            file.seek(place)
            file.write(whole[place : place + 1])
    at.read_all()


async def test_a_damaged_chunk_is_not_taken_and_the_rest_stays(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    bundle = BundleReader.open(at.file)
    place = bundle.index.parts[0].at + MIB + 7
    bundle.close()
    with at.file.open("r+b") as file:
        file.seek(place)
        was = file.read(1)
        file.seek(place)
        file.write(bytes([was[0] ^ 1]))
    with pytest.raises(BundleRefused, match="chunk 1 of big is damaged"):
        await at.take()
    assert not at.cache.holds(at.names["big"])
    assert at.cache.missing(at.names["big"], range(34)) == [1, 32, 33]


async def test_nothing_is_taken_for_the_word_of_who_carries_it(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    right = dict(at.names)
    for wrong, sentence in (
        (
            {k: v for k, v in right.items() if k != "small"},
            "no assets key signed the name small",
        ),
        (right | {"large": "b3:" + "0" * 64}, "large is signed as b3:0"),
    ):
        at.names = wrong
        with pytest.raises(BundleRefused, match=sentence):
            await at.take()
        with pytest.raises(BundleRefused, match=sentence):
            await at.carrier.take(at.file, 1)
    at.names = right
    at.members = set()
    with pytest.raises(BundleRefused, match="is no member"):
        await at.take()
    await at.create(root=b"o" * 20)
    at.members = {MAKER}
    with pytest.raises(BundleRefused, match="of organisation 6f6f6f6f, not of 72727272"):
        await at.take()
    assert list((tmp_path / "cache/assets").iterdir()) == []


async def test_a_short_disk_refuses_before_the_first_byte(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.create()
    at.cache.close()
    at.cache = open_cache(tmp_path / "cache", quota=3 * MIB)
    with pytest.raises(NoSpace, match="3 MiB more exceed the cache's quota of 3 MiB"):
        await at.take()
    assert list((tmp_path / "cache/assets").iterdir()) == []


async def test_a_transfer_that_fails_later_does_not_unmake_what_was_carried(
    tmp_path: Path,
) -> None:
    at = Bench(tmp_path)
    (manifest, *_) = await at.create()
    await at.take()

    def refuse(_index: int) -> bytes:
        raise NoSpace("no")

    other = open_cache(tmp_path / "other")
    with pytest.raises(NoSpace):
        await other.carry("big", manifest, range(1), refuse)
    assert [state.state for state in other.assets()] == ["failed"]
    await at.cache.carry("big", manifest, range(1), refuse)
    assert at.cache.assets()[0].state == "verified"


class Silent:
    """A node that says what the asset is and then gives nothing."""

    def __init__(self, manifest: Manifest) -> None:
        self.core, self.asked = manifest.core, trio.Event()

    async def members(self) -> Members:
        return Members("me", ("far",), ("me",), ("me",))

    async def manifest(self, node: str, asset: str) -> bytes:
        return self.core

    async def chunk(self, node: str, asset: str, ask: Ask) -> bytes:
        self.asked.set()
        await trio.sleep_forever()
        raise AssertionError

    def near(self, node: str) -> bool:
        return False


async def test_a_fetch_that_hangs_ends_when_the_content_is_carried_in(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    at = Bench(tmp_path)
    (manifest, *_) = await at.create()
    silent, ended = Silent(manifest), trio.Event()

    async def fetch() -> None:
        await at.cache.fetch("big", manifest.asset, silent)
        ended.set()

    nursery.start_soon(fetch)
    with trio.fail_after(20):
        await silent.asked.wait()
        await at.take()
        await ended.wait()
    assert at.data("big") == CONTENT
    assert {state.state for state in at.cache.assets()} == {"verified"}


async def test_content_of_another_asset_is_not_written_under_its_name(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as out:
        writer = BundleWriter(out, ROOT, "0.1.0")
        writer.add_state([])
        with pytest.raises(BundleRefused, match="what came is b3:"):
            writer.add_asset("b3:" + "0" * 64, ["x"], [b"x"])


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "no plain file"),
        (tmp_path, "no plain file"),
        (tmp_path / "none", os.strerror(errno.ENOENT)),
        (Path("/dev/null"), "no plain file"),
    ):
        with pytest.raises(BundleRefused, match=words):
            BundleReader.open(path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(BundleRefused, match="no file of rackmesh bundle create"):
        BundleReader.open(tmp_path / "empty")
