"""100,000 inputs that were once good: parsers of the wire answer, none raises, none swells.

Frames of a link, records under its key, and all that is signed; what a core gives back for
hostile input is bounded by what came in. ``scripts/test`` runs this with fixed seeds;
RACKMESH_MUTATIONS takes more of them.
"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError, Refused
from mesh.proto.capability import mint_capability, parse_capability, verify_capability
from mesh.proto.frames import Call, Open, Service, decode, encode, make_hello
from mesh.proto.link import CALL_BYTES_MAX, CALLS_MAX, STREAMS_MAX, LinkCore
from mesh.proto.link_effects import Closed, Send
from mesh.proto.naming import SignedName, open_name, sign_name
from mesh.proto.order import OrderRefused, open_order, sign_order
from mesh.proto.record import (
    MESSAGE_BYTES_MAX,
    Opener,
    RecordError,
    Sealer,
    parse_record,
    session_keys,
)
from mesh.proto.token import make_token, parse_token
from tests.support.mutations import check
from tests.support.trust import Org
from tests.unit.mesh.test_frames import EVERY
from tests.unit.mesh.test_order import GOOD, ID, NOW_MS, an_order

COUNT = int(os.environ.get("RACKMESH_MUTATIONS", "12500"))
"""Of each of eight targets."""
EFFECTS_MAX = 4
"""A frame makes a core do at most so many things."""
FRAMES = [encode(frame) for frame in EVERY]


@pytest.fixture(scope="module")
def org() -> Org:
    found = Org()
    found.admit("node1", roles=("node", "site-operator"))
    found.admit("hub1", roles=("hub",))
    return found


def test_changed_frames_are_read_or_refused():
    def feed(data: bytes) -> None:
        try:
            decode(data)
        except CodecError:
            pass

    check(FRAMES, 1, COUNT, feed)


def test_changed_frames_never_raise_out_of_a_link_and_make_it_do_little():
    hello = make_hello("main", "0.1.0", b"12345678")
    core = LinkCore(hello, dialled=False)
    core.start(0.0)
    core.on_message(encode(hello), 0.0)

    def feed(data: bytes) -> None:
        nonlocal core
        effects = core.on_message(data, 1.0)
        assert len(effects) <= EFFECTS_MAX
        sent = sum(len(effect.message) for effect in effects if isinstance(effect, Send))
        assert sent <= len(data) + 1024
        assert len(core._theirs) <= CALLS_MAX
        assert core._their_bytes <= CALL_BYTES_MAX
        assert core._peer_streams <= STREAMS_MAX
        if any(isinstance(effect, Closed) for effect in effects):
            core = LinkCore(hello, dialled=False)
            core.start(0.0)
            core.on_message(encode(hello), 0.0)

    check(FRAMES, 2, COUNT, feed)


def test_changed_records_do_not_decrypt():
    keys = session_keys(bytes(64), "tcp")
    sealer = Sealer(keys.initiator, 0.0)
    good = [bytes(piece) for piece in sealer.seal(b"x" * 40, 0.0)]

    def feed(data: bytes) -> None:
        opener = Opener(keys.initiator)
        try:
            kind, body = parse_record(data)
            plain = opener.open(kind, body)
        except RecordError:
            return
        assert data == good[0] or plain is None or len(plain) <= MESSAGE_BYTES_MAX

    check(good, 3, COUNT, feed)


def test_changed_register_records_change_nothing(org):
    good = org.register.records()
    before = org.register.digest()
    digests: set[bytes] = set()

    def feed(data: bytes) -> None:
        org.register.merge(data)
        digests.add(org.register.digest())

    check(good, 4, COUNT, feed)
    assert digests == {before}


def test_changed_orders_are_refused(org):
    sentences: list[str] = []
    good = [sign_order(an_order(kind), org.orders, org.root_fp) for kind in GOOD]

    def feed(data: bytes) -> None:
        try:
            order = open_order(data, org.register, NOW_MS)
        except OrderRefused as exc:
            sentences.append(str(exc))
            return
        assert order.params == GOOD[order.kind]  # only what stands around was changed

    check(good, 5, COUNT, feed)
    assert max(len(sentence) for sentence in sentences) < 2000


def test_changed_names_are_refused(org):
    name = SignedName(
        name="debian-12", asset="b3:" + "0" * 64, size=7, sha256="1" * 64, version=9
    )
    good = [sign_name(org.assets, org.root_fp, name)]

    def feed(data: bytes) -> None:
        try:
            assert open_name(data, org.register) == name
        except (CodecError, Refused):
            pass

    check(good, 6, COUNT, feed)


def test_changed_tokens_are_refused():
    text = make_token(
        urls=["https://hub.example:8443"], hub_ids=["a" * 32], root_fp=bytes(20),
        trust_version=1, token_id="abcdefghijkl", site="lab", roles=frozenset({"node"}),
        expires_ms=9,
        secret=bytes(16),
    )  # fmt: skip

    def feed(data: bytes) -> None:
        try:
            assert parse_token(data.decode("latin-1")) == parse_token(text)
        except Refused:
            pass

    check([text.encode()], 7, COUNT, feed)


def test_changed_capabilities_are_refused():
    secret = bytes(32)
    text = mint_capability(
        secret, secret_epoch=1, site="lab", machine="boot:x", job=ID, attempt=1,
        not_after_s=100,
    )  # fmt: skip

    def feed(data: bytes) -> None:
        given = data.decode("latin-1")
        try:
            parse_capability(given)
            verify_capability(given, lambda epoch: secret, site="lab", now_s=5)
        except (CodecError, Refused):
            return
        assert given == text

    check([text.encode()], 8, COUNT, feed)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats()
    | st.text(max_size=12) | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(["call", "open", "sync", "broadcast", "receipt", "detect"]), anything)
def test_any_body_of_any_frame_is_taken_or_refused(kind, body):
    hello = make_hello("main", "0.1.0", b"12345678")
    core = LinkCore(hello, dialled=True)
    core.start(0.0)
    core.on_message(encode(hello), 0.0)
    match kind:
        case "call":
            data = encode(Call(1, "x", 1000, body))
        case "open":
            data = encode(Open(16, "x", 1 << 20, body))
        case _:
            data = encode(Service(kind, body))
    assert len(core.on_message(data, 1.0)) <= EFFECTS_MAX
