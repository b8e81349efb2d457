"""What leaves in a support bundle: no secret of ours, no common form of one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.redact import MARK, Redactor

SECRET = "s3cr3t-canary-9471"


@pytest.mark.parametrize(
    "text",
    [
        f"password: {SECRET}",
        f'"password": "{SECRET}"',
        f"'bmc_password' = '{SECRET}'",
        f'{{"api-token":"{SECRET}","x":1}}',
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"sent Bearer {SECRET} to it",
        f"token = {SECRET}\n",
        f"https://admin:{SECRET}@bmc.example/redfish",
        f"GET /boot/v1/script?mac=52:54:00:00:00:01&cap={SECRET}&x=1",
        f"rackmesh.cap={SECRET} quiet",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\ncut off",
        f"rm1.{SECRET}",
        f"$argon2id$v=19$m=19456,t=2,p=1${SECRET}",
        f'"user_data": "#cloud-config\\n\\"{SECRET}\\""',
        f"set-cookie: __Host-rackmesh={SECRET}; Secure",
    ],
)
def test_common_forms_of_secrets_are_taken_out(text):
    redactor = Redactor([])
    assert SECRET not in redactor.text(text)
    assert redactor.taken >= 1


@pytest.mark.parametrize(
    "text",
    [
        '{"state": "available", "name": "srv1", "macs": ["52:54:00:12:34:56"]}',
        "13:02:11 info    work: job started job=0190-abc server=srv7",
        "https://images.example.org/debian-12.raw",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC7 ops@example",
    ],
)
def test_what_support_needs_stays(text):
    assert Redactor([b"never-here"]).text(text) == text


@pytest.mark.parametrize(
    "spell",
    [
        lambda raw: raw.hex(),
        lambda raw: json.dumps({"x": raw.hex().upper()}),
        lambda raw: __import__("base64").b64encode(raw).decode(),
        lambda raw: __import__("base64").urlsafe_b64encode(raw).decode().rstrip("="),
        lambda raw: __import__("base64").b32encode(raw).decode(),
    ],
)
def test_a_known_key_is_found_in_the_usual_spellings(spell):
    raw = bytes(range(200, 232))
    text = f"the key is {spell(raw)} here"
    assert Redactor([raw]).text(text).count(MARK) == 1
    assert Redactor([b"other-value"]).text(text) == text


def test_a_known_text_is_found_anywhere_and_short_ones_are_left():
    assert Redactor([b"hunter2-long\n"]).text("xxhunter2-longyy") == f"xx{MARK}yy"
    assert Redactor([b"abc"]).text("abcdef") == "abcdef"


@given(st.text(max_size=300), st.lists(st.binary(max_size=40), max_size=3))
def test_garbage_never_raises_and_a_second_turn_changes_nothing(text, known):
    redactor = Redactor(known)
    once = redactor.text(text)
    assert Redactor([]).text(once) == Redactor([]).text(Redactor([]).text(once))
