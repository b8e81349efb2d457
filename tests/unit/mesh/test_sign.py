"""Signatures: published vectors, domain separation, garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from mesh.errors import CodecError
from mesh.proto.codec import pack
from mesh.proto.sign import KeySigner, message, open_record, sign_record, split_record, verify
from tests.support.trust import seed

ROOT = bytes(range(20))
RFC8032 = [  # section 7.1: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "text", "signature"), RFC8032)
def test_our_ed25519_gives_the_signatures_of_rfc_8032(secret, public, text, signature):
    key = SigningKey(bytes.fromhex(secret))
    assert KeySigner(bytes.fromhex(secret)).public.hex() == public
    assert key.sign(bytes.fromhex(text)).signature.hex() == signature


def test_a_signature_covers_kind_number_root_and_body():
    assert message("join", 1, ROOT, b"x") == b"rackmesh/join/1\0" + ROOT + b"x"


def test_a_record_opens_only_for_its_purpose_and_organisation():
    signer = KeySigner(seed("a"))
    record = sign_record(signer, "roster", 1, ROOT, {"a": 1})
    body, public, raw = open_record(record, "roster", 1, ROOT)
    assert (body, public, raw) == ({"a": 1}, signer.public, pack({"a": 1}))
    for kind, n, root in [("trust", 1, ROOT), ("roster", 2, ROOT), ("roster", 1, bytes(20))]:
        with pytest.raises(CodecError):
            open_record(record, kind, n, root)


def test_received_bytes_are_checked_not_what_they_decode_to():
    signer = KeySigner(seed("a"))
    odd = b"\x81\xa1a\xcd\x00\x01"  # {"a": 1} with a longer spelling of the number
    signature = signer.sign("t", 1, ROOT, odd)
    record = pack({"b": odd, "s": signature, "k": signer.public})
    assert open_record(record, "t", 1, ROOT)[2] == odd
    respelled = pack({"b": pack({"a": 1}), "s": signature, "k": signer.public})
    with pytest.raises(CodecError):
        open_record(respelled, "t", 1, ROOT)


def test_a_malleated_signature_and_a_small_order_key_are_refused():
    signer = KeySigner(seed("a"))
    signature = signer.sign("t", 1, ROOT, b"body")
    order = (1 << 252) + 27742317777372353535851937790883648493
    high = int.from_bytes(signature[32:], "little") + order
    twisted = signature[:32] + high.to_bytes(32, "little")
    assert verify(signer.public, signature, "t", 1, ROOT, b"body")
    assert not verify(signer.public, twisted, "t", 1, ROOT, b"body")
    assert not verify(bytes(32), bytes(64), "t", 1, ROOT, b"body")
    assert not verify(b"\x01" + bytes(31), b"\x01" + bytes(63), "t", 1, ROOT, b"body")


def test_the_private_half_is_not_in_repr():
    signer = KeySigner(seed("a"))
    assert seed("a").hex() not in repr(signer)
    assert str(seed("a")) not in repr(signer)


@given(st.binary(max_size=300))
def test_garbage_never_raises(data):
    for read in (split_record, lambda raw: open_record(raw, "t", 1, ROOT)):
        with pytest.raises(CodecError):
            read(data)
