"""Key files: private, whole or not there, never overwritten."""

import stat

import pytest

from mesh.errors import Refused
from mesh.identity import load_or_make_identity
from mesh.proto.ids import node_id
from mesh.proto.sign import verify
from mesh.proto.trust import open_key_record


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_identity_is_made_once_and_found_again(tmp_path):
    first = load_or_make_identity(tmp_path / "keys")
    again = load_or_make_identity(tmp_path / "keys")
    assert (again.node_id, again.public) == (first.node_id, first.public)
    assert again.kem_private == first.kem_private
    assert first.node_id == node_id(first.public)
    assert mode(tmp_path / "keys") == 0o700
    assert [mode(path) for path in (tmp_path / "keys").iterdir()] == [0o600]


def test_the_key_record_is_the_identitys_own(tmp_path):
    who = load_or_make_identity(tmp_path)
    record = open_key_record(who.key_record)
    assert record.identity_public == who.public
    assert (record.kem_public, record.kem_epoch) == (who.kem_public, 1)
    signature = who.sign("order", 1, bytes(20), b"x")
    assert verify(who.public, signature, "order", 1, bytes(20), b"x")


@pytest.mark.parametrize("keep", [0, 1, 40, -1, -2, -10])
def test_a_cut_key_file_gives_one_sentence_and_stays_as_it_is(tmp_path, keep):
    load_or_make_identity(tmp_path)
    path = tmp_path / "identity.key"
    broken = path.read_bytes()[:keep]
    path.write_bytes(broken)
    with pytest.raises(Refused, match="damaged; restore it from a backup"):
        load_or_make_identity(tmp_path)
    assert path.read_bytes() == broken


def test_a_flipped_digit_is_damage(tmp_path):
    load_or_make_identity(tmp_path)
    path = tmp_path / "identity.key"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match="damaged"):
        load_or_make_identity(tmp_path)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    load_or_make_identity(tmp_path)
    (tmp_path / "identity.key").chmod(0o644)
    with pytest.raises(Refused, match="other users can read"):
        load_or_make_identity(tmp_path)


def test_a_draft_left_by_a_crash_does_not_matter(tmp_path):
    (tmp_path / f".identity.key.{__import__('os').getpid()}.new").write_bytes(b"half")
    load_or_make_identity(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]


def test_nothing_secret_is_in_repr(tmp_path):
    who = load_or_make_identity(tmp_path)
    assert repr(who) == f"Identity({who.node_id})"
    assert who.kem_private.hex() not in f"{who.signer!r} {who}"
