"""What is kept of a hook's output, the ssh agent's answers, and a webhook's signature."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.child import Told
from node.hooks.outcome import LINE_CHARS_MAX, LINES_MAX, evidence, lines_of
from node.hooks.webhook import signature
from node.proto.ssh_agent import KeyRefused, SshAgent


def test_the_signature_is_that_of_rfc_4231() -> None:
    made = signature(b"what do ya want for nothing?", b"Jefe")  # test case 2
    assert made == ("sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")


def test_the_middle_of_long_output_is_dropped_and_half_lines_with_it() -> None:
    told = Told(100)
    for n in range(1000):
        told.take(f"line {n}\n".encode())
    assert len(told.head) == len(told.tail) == 100
    assert told.dropped == sum(len(f"line {n}\n") for n in range(1000)) - 200
    lines = lines_of(bytes(told.head), bytes(told.tail), told.dropped)
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-1] == "line 999"
    assert "[more, not kept]" in lines
    assert all(line.startswith(("line ", "[more")) for line in lines)


def test_many_lines_and_long_ones_are_cut() -> None:
    lines = lines_of(b"\n".join(b"%d" % n for n in range(500)), b"", 0)
    assert len(lines) == 2 * LINES_MAX + 1
    assert lines_of(b"x" * 5000, b"", 0) == ["x" * LINE_CHARS_MAX]
    assert evidence(lines) == {"first": "0", "last": "499"}
    assert evidence([]) == {}


@given(st.binary(max_size=3000), st.binary(max_size=300), st.integers(0, 1))
def test_garbage_never_raises(head: bytes, tail: bytes, dropped: int) -> None:
    for line in lines_of(head, tail, dropped, [b"secret value"]):
        assert line.isprintable()
        assert "secret value" not in line


def agent_of(key: Any) -> tuple[SshAgent, bytes]:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return SshAgent(text), base64.b64decode(public.split()[1])


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def parts(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def asked(blob: bytes, data: bytes, flags: int) -> bytes:
    return bytes((13,)) + string(blob) + string(data) + flags.to_bytes(4, "big")


def test_the_agent_lists_its_key_and_signs_with_ed25519() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    agent, blob = agent_of(key)
    listed = agent.answer(b"\x0b")
    assert listed[:5] == b"\x0c\0\0\0\1"
    assert parts(listed[5:])[0] == blob
    answer = agent.answer(asked(blob, b"data", 0))
    assert answer[0] == 14
    name, signed = parts(parts(answer[1:])[0])
    assert name == b"ssh-ed25519"
    key.public_key().verify(signed, b"data")


@pytest.mark.parametrize(("flags", "name"), [(2, b"rsa-sha2-256"), (4, b"rsa-sha2-512")])
def test_rsa_signs_with_sha_2_alone(flags: int, name: bytes) -> None:
    key = rsa.generate_private_key(65537, 2048)
    agent, blob = agent_of(key)
    said, signed = parts(parts(agent.answer(asked(blob, b"data", flags))[1:])[0])
    assert said == name
    digest = hashes.SHA512() if flags == 4 else hashes.SHA256()
    key.public_key().verify(signed, b"data", padding.PKCS1v15(), digest)
    assert agent.answer(asked(blob, b"data", 0)) == b"\x05", "SHA-1"


@pytest.mark.parametrize(
    ("curve", "digest", "name"),
    [
        (ec.SECP256R1(), hashes.SHA256(), b"ecdsa-sha2-nistp256"),
        (ec.SECP384R1(), hashes.SHA384(), b"ecdsa-sha2-nistp384"),
        (ec.SECP521R1(), hashes.SHA512(), b"ecdsa-sha2-nistp521"),
    ],
)
def test_ecdsa_signs_as_its_curve_says(curve: Any, digest: Any, name: bytes) -> None:
    key = ec.generate_private_key(curve)
    agent, blob = agent_of(key)
    said, signed = parts(parts(agent.answer(asked(blob, b"data", 0))[1:])[0])
    r, s = (int.from_bytes(part, "big", signed=True) for part in parts(signed))
    assert said == name
    key.public_key().verify(encode_dss_signature(r, s), b"data", ec.ECDSA(digest))


@given(st.binary(max_size=200))
def test_whatever_else_is_asked_fails(message: bytes) -> None:
    agent, _ = agent_of(_KEY)
    if message[:1] != b"\x0b":
        assert agent.answer(message) == b"\x05"
    assert agent.answer(asked(b"another key", message, 0)) == b"\x05"


_KEY = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize("text", [b"", b"x", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(text: bytes) -> None:
    with pytest.raises(KeyRefused, match="it is no private key without a passphrase"):
        SshAgent(text)
