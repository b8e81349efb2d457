"""Frames: there and back, newer peers, garbage."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError, LocalError
from mesh.proto import frames
from mesh.proto.frames import (
    WIRE,
    WIRE_MIN,
    Answer,
    Bye,
    Call,
    Credit,
    Data,
    End,
    Forget,
    Frame,
    Hello,
    Open,
    Ping,
    Pong,
    Refusal,
    Reset,
    Service,
    decode,
    encode,
    make_hello,
)
from mesh.proto.link import FIRST_STREAM_ID

EVERY: list[Frame] = [
    make_hello("main", "0.1.0", b"12345678"),
    Service("sync", {"a": [1, b"x"]}),
    Service("broadcast", None),
    Service("receipt", ["hubs", 7]),
    Service("detect", [1, b"x"]),
    Call(1, "job.logs", 5000, {"job": "x"}),
    Answer(1, [b"bytes", 1.5, True]),
    Refusal(2, "not now", failed=False),
    Forget(3),
    Open(17, "console", 1 << 20, None),
    Data(17, b"\x00\xc1raw"),
    Data(17, b""),
    Credit(17, 4096),
    End(17),
    Reset(17, "gone"),
    Ping(4),
    Pong(4),
    Bye("restart"),
]


@pytest.mark.parametrize("frame", EVERY, ids=lambda frame: type(frame).__name__)
def test_every_frame_comes_back_as_it_was(frame: Frame):
    assert decode(encode(frame)) == frame


def test_two_versions_back_are_spoken():
    assert max(1, WIRE - 2) == WIRE_MIN


def test_more_members_and_more_hello_fields_are_ignored():
    frame = msgpack.packb([12, 4, "new in a later version"])
    assert decode(frame) == Ping(4)
    body = {name: getattr(EVERY[0], name) for name in Hello.__slots__} | {"more": 1}
    assert decode(msgpack.packb([0, body, 9])) == EVERY[0]


def test_a_service_is_neither_another_frame_nor_a_stream():
    codes = set(frames.SERVICES.values())
    assert len(codes) == len(frames.SERVICES)
    assert not codes & frames._PARSERS.keys()
    assert max(codes) < FIRST_STREAM_ID


def test_an_unknown_type_is_not_an_error():
    assert decode(msgpack.packb([200, "what"])) is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        7,
        None,
        ["sync"],
        [-1],
        [True],
        [256],
        [0],
        [0, {}],
        [0, {"kind": "main", "session": b"", "wire_min": 1}],
        [0, {"kind": ["x"], "session": b""}],
        [1],
        [4, 1, "m"],
        [4, 1, "m" * 65, 1, None],
        [4, -1, "m", 1, None],
        [4, 1 << 32, "m", 1, None],
        [4, 1, b"m", 1, None],
        [4, 1.0, "m", 1, None],
        [5, 1],
        [6, 1, "x" * 513, False],
        [8, 17, "n", 1 << 31, None],
        [9, 17, True],
        [14, 5],
    ],
)
def test_a_malformed_frame_is_a_codec_error(value: object):
    with pytest.raises(CodecError):
        decode(msgpack.packb(value))


@given(st.binary(max_size=200))
def test_garbage_never_raises_anything_but_codec_error(data: bytes):
    try:
        decode(data)
    except CodecError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_garbage_values_never_raise_anything_but_codec_error(value: object):
    for kind in range(16):
        try:
            decode(msgpack.packb([kind, value, value, value, value]))
        except CodecError:
            pass


def test_a_body_that_no_link_carries_is_a_local_error():
    with pytest.raises(LocalError, match="is the most"):
        encode(Answer(1, bytes(frames.FRAME_BYTES_MAX)))
    with pytest.raises(LocalError, match="msgpack"):
        encode(Answer(1, object()))


def test_a_deep_or_truncated_frame_is_a_codec_error():
    with pytest.raises(CodecError):
        decode(b"\x91" * 100_000)
    whole = encode(EVERY[0])
    for size in range(len(whole)):
        with pytest.raises(CodecError):
            decode(whole[:size])
    with pytest.raises(CodecError):
        decode(b"\xc1\x00\x00\x00")
