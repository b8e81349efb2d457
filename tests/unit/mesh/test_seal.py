"""Sealing: RFC 9180, a second implementation, and what a blob is bound to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto.seal import OVERHEAD_BYTES, SealInfo, open_bytes, open_sealed, seal, seal_bytes
from tests.support.hpke import open_base
from tests.support.trust import Org, identity

WHO = identity("n1")
INFO = SealInfo(Org().root_fp, WHO.node_id, 1, "bmc-1", 3)


def test_the_second_opinion_opens_the_vector_of_rfc_9180():
    """Appendix A.1.1: X25519, HKDF-SHA256, AES-128-GCM, base mode, sequence 0."""
    private = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"
    enc = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
    ciphertext = "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a9"
    ciphertext += "6d8770ac83d07bea87e13c512a"
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    plain = open_base(
        bytes.fromhex(private), info, b"Count-0", bytes.fromhex(enc + ciphertext), 1
    )
    assert plain == b"Beauty is truth, truth beauty"


def test_what_we_seal_opens_by_the_rfc_written_out_by_hand():
    sealed = seal_bytes(WHO.kem_public, b"purpose", b"password")
    assert len(sealed) == len(b"password") + OVERHEAD_BYTES
    assert open_base(WHO.kem_private, b"purpose", b"", sealed, 2) == b"password"
    assert open_bytes(WHO.kem_private, b"purpose", sealed) == b"password"


def test_a_sealed_secret_opens_only_for_what_it_was_made_for():
    sealed = seal(WHO.kem_public, INFO, b"password")
    assert open_sealed(WHO.kem_private, INFO, sealed) == b"password"
    others = [
        replace(INFO, root_fp=bytes(20)),
        replace(INFO, node_id=identity("n2").node_id),
        replace(INFO, kem_epoch=2),
        replace(INFO, secret_id="bmc-2"),
        replace(INFO, version=2),
    ]
    for other in others:
        with pytest.raises(CodecError):
            open_sealed(WHO.kem_private, other, sealed)
    with pytest.raises(CodecError):
        open_sealed(identity("n2").kem_private, INFO, sealed)


def test_two_seals_of_one_secret_share_no_bytes_worth_comparing():
    a, b = (seal(WHO.kem_public, INFO, b"password") for _ in range(2))
    assert a[1:33] != b[1:33]
    assert a[33:] != b[33:]


def test_every_flipped_bit_and_every_cut_is_refused():
    sealed = seal(WHO.kem_public, INFO, b"password")
    broken = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]
    for data in broken + [sealed[:at] for at in range(len(sealed))]:
        with pytest.raises(CodecError):
            open_sealed(WHO.kem_private, INFO, data)


def test_a_key_of_small_order_is_refused():
    with pytest.raises(CodecError):
        seal_bytes(bytes(32), b"", b"password")


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_codec_errors(data):
    with pytest.raises(CodecError):
        open_sealed(WHO.kem_private, INFO, b"\x01" + data)
