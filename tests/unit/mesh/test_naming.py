"""Signed names of content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.naming import SignedName, open_name, sign_name
from mesh.proto.sign import sign_record
from tests.support.trust import Org

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
    org = Org()
    record = sign_record(org.assets, "name", 1, org.root_fp, body)
    for wire in (data, record):
        with pytest.raises(CodecError):
            open_name(wire, org.register)
