"""Signed names of content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.naming import NameReader, SignedName, open_name, sign_name
from mesh.proto.register import Merged
from mesh.proto.sign import sign_record
from tests.support.trust import Org

GARBAGE_FOR = Org()
NAME = SignedName("debian-12", "b3:" + "1" * 64, 1 << 30, "a" * 64, 7)


def test_a_name_opens_to_what_the_assets_key_signed():
    org = Org()
    assert open_name(sign_name(org.assets, org.root_fp, NAME), org.register) == NAME


@pytest.mark.parametrize("key", ["orders", "membership", "root"])
def test_no_other_key_names_content(key):
    org = Org()
    with pytest.raises(CodecError, match="not signed by an assets key"):
        open_name(sign_name(getattr(org, key), org.root_fp, NAME), org.register)


def test_another_organisations_name_is_refused():
    org, foreign = Org(), Org("evil")
    with pytest.raises(CodecError):
        open_name(sign_name(foreign.assets, foreign.root_fp, NAME), org.register)


@given(st.binary(max_size=200), st.dictionaries(
    st.sampled_from(["name", "asset", "size", "sha256", "version"]),
    st.none() | st.integers(0, 9) | st.text(max_size=70) | st.binary(max_size=9),
))  # fmt: skip
def test_garbage_never_raises_anything_but_codec_errors(data, body):
    record = sign_record(GARBAGE_FOR.assets, "name", 1, GARBAGE_FOR.root_fp, body)
    for wire in (data, record):
        with pytest.raises(CodecError):
            open_name(wire, GARBAGE_FOR.register)


def test_a_record_is_checked_once_and_told_once_until_the_assets_keys_change():
    org, foreign, told = Org(), Org("evil"), []
    good = sign_name(org.assets, org.root_fp, NAME)
    bad = sign_name(foreign.assets, foreign.root_fp, NAME)
    reader = NameReader(org.register, lambda name, reason: told.append(name))
    for _ in range(3):
        assert reader.read(NAME.name, good) == NAME
        assert reader.read(NAME.name, bad) is None
        assert reader.read("other", good) is None, "a record names one name"
        assert reader.read(NAME.name, None) is None
    assert told == [NAME.name, "other"]
    org.assets = foreign.assets
    assert isinstance(org.register.merge(org.trust_document(2)), Merged)
    assert reader.read(NAME.name, good) is None, "the key is void now"
