import hashlib

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import ManifestError
from cache.proto.bitfield import Bitfield
from cache.proto.manifest import Manifest, make_manifest, parse_manifest

CHUNK = 4096


def manifest_of(data: bytes) -> Manifest:
    pieces = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    hashes = b"".join(blake3.blake3(piece).digest() for piece in pieces)
    return make_manifest(len(data), hashlib.sha256(data).hexdigest(), hashes, CHUNK)


@given(st.binary(max_size=3 * CHUNK))
def test_a_manifest_survives_the_round_trip_and_knows_its_chunks(data: bytes) -> None:
    manifest = manifest_of(data)
    again = parse_manifest(manifest.core, manifest.asset)
    assert again == manifest
    for index in range(manifest.chunks):
        piece = data[index * CHUNK : (index + 1) * CHUNK]
        assert manifest.fits(index, piece)
        assert not manifest.fits(index, piece + b"x")
        assert not manifest.fits(index, bytes([piece[0] ^ 1]) + piece[1:])


def test_the_asset_id_is_the_hash_of_the_core() -> None:
    manifest = manifest_of(b"hello")
    assert manifest.asset == "b3:" + blake3.blake3(manifest.core).hexdigest()
    # the whole-file SHA-256 of "hello", so the id is bound to it
    assert manifest.sha256.startswith("2cf24dba5fb0a30e26e83b2ac5b9e29e")


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_else(garbage: bytes) -> None:
    for asset in ("b3:" + blake3.blake3(garbage).hexdigest(), "b3:" + "0" * 64, "nonsense"):
        with pytest.raises(ManifestError):
            parse_manifest(garbage, asset)


def test_a_manifest_under_another_id_is_refused() -> None:
    one, two = manifest_of(b"one"), manifest_of(b"two")
    with pytest.raises(ManifestError, match="does not hash"):
        parse_manifest(one.core, two.asset)


@given(st.integers(0, 70), st.binary(max_size=16))
def test_a_bitfield_counts_what_it_holds(count: int, data: bytes) -> None:
    bits = Bitfield(count, data)
    assert bits.have == sum(bits[i] for i in range(count)) == count - len(list(bits.missing()))
    for index in range(count):
        bits[index] = True
    assert bits.full
    assert Bitfield(count, bits.dump()).full
