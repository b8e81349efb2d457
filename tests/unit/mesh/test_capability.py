"""Boot capabilities: minted by one node, checked by any, worth nothing elsewhere."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError, Refused
from mesh.proto.capability import (
    TEXT_CHARS,
    boot_key,
    mint_capability,
    parse_capability,
    verify_capability,
)
from mesh.proto.ids import uuid7

SECRET = bytes(range(32))
JOB = uuid7(1_800_000_000_000, b"0123456789")
MAC = "52:54:00:12:34:56"


def minted(**changes) -> str:
    values = {"secret_epoch": 3, "site": "lab", "machine": MAC, "job": JOB, "attempt": 1}
    return mint_capability(SECRET, **{**values, "not_after_s": 1000, **changes})


def secrets(epoch: int) -> bytes | None:
    return SECRET if epoch == 3 else None


def test_a_capability_says_what_was_minted():
    text = minted()
    assert len(text) == TEXT_CHARS
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    capability = verify_capability(text, secrets, site="lab", now_s=1000)
    assert (capability.job, capability.attempt, capability.secret_epoch) == (JOB, 1, 3)
    assert capability.is_for(MAC)
    assert not capability.is_for("52:54:00:12:34:57")
    assert parse_capability(text) == capability


@pytest.mark.parametrize(
    ("changes", "how", "says"),
    [
        ({"secret_epoch": 2}, {}, "secret epoch 2"),
        ({"site": "far"}, {}, "another site"),
        ({"not_after_s": 999}, {}, "run out"),
    ],
)
def test_what_a_capability_is_not_good_for(changes, how, says):
    with pytest.raises(Refused, match=says):
        verify_capability(minted(**changes), secrets, site="lab", now_s=1000, **how)


def test_another_secret_refuses_it_without_saying_its_text():
    text = minted()
    with pytest.raises(Refused, match="forged or damaged") as caught:
        verify_capability(text, lambda _: bytes(32), site="lab", now_s=0)
    assert text[:20] not in str(caught.value)


def test_every_changed_character_is_refused():
    text = minted()
    for at in range(len(text)):
        wrong = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(Refused):
            verify_capability(wrong, lambda _: SECRET, site="lab", now_s=0)


def test_the_boot_key_is_hkdf_of_the_secret():
    """RFC 5869 with SHA-256, no salt, info ``boot``, computed step by step."""
    import hashlib
    import hmac

    prk = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    assert boot_key(SECRET) == hmac.digest(prk, b"boot\x01", hashlib.sha256)


@given(st.text(max_size=100) | st.text("ABCDabcd0123-_", min_size=76, max_size=76))
def test_garbage_never_raises_anything_but_a_refusal(text):
    with pytest.raises(Refused):
        verify_capability(text, lambda _: SECRET, site="lab", now_s=0)
    with contextlib.suppress(CodecError):
        parse_capability(text)
