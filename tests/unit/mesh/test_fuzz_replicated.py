"""Bytes from anywhere into what is stored and exchanged: refused and counted, never raised.

Every kind of ``sync`` and ``receipt`` frame and every stored object, 2,000 examples each by
hypothesis and 100,000 seeded mutations of a corpus of real ones; work is bounded by counters.
"""

import random
import zlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import CodecError
from mesh.proto import delta_pack
from mesh.proto.codec import pack, unpack
from mesh.proto.delta_pack import DEFLATED, PLAIN, ROWS_MAX, pack_parts, unpack_parts
from mesh.proto.evidence import PROOFS_MAX, Proof
from mesh.proto.intake import Outcome
from mesh.proto.receipts import Receipts
from mesh.proto.sets import ROW_BYTES_MAX, body_is_sound, parse_entry, parse_head
from mesh.proto.sync import SyncSession
from mesh.proto.sync_ports import GARBAGE_MAX, WAITING_MAX, Apply, Drop, Serve
from mesh.proto.sync_wire import (
    WANTS_MAX,
    Announce,
    Deltas,
    Groups,
    GroupsAsk,
    Heads,
    HeadsAsk,
    HeadsOf,
    Known,
    Points,
    Proofs,
    Pull,
    Records,
    RecordsAsk,
    Ref,
    Root,
    RootAsk,
    Want,
    body_of,
    packed_body,
    parse,
    parse_receipt,
    receipt_body,
)
from tests.support.sides import SCOPE, A, Side
from tests.unit.mesh.test_sync import Member

MUTATIONS = 100_000
FRAME_BYTES_MAX = 2 << 20


def author() -> Side:
    side = Side("a")
    side.put(*(f"k{n}" for n in range(24)))
    side.put("k1", body=None)
    return side


def deltas() -> Deltas:
    return Deltas(3, (author().delta_for(Side("b"), A),))


def corpus() -> list[bytes]:
    """Return one packed body of every kind of frame."""
    side = author()
    head = side.replica.heads[A]
    known, want = Known(A, *head.head.point, head.head.root), Want(A, 1, 2)
    messages = [
        RootAsk(1, groups=True), Root(1, bytes(16), bytes(16), groups=True),
        RecordsAsk(1, bytes(16)),
        Records(1, (b"r",), True), HeadsAsk(1, bytes(128)), GroupsAsk(1, bytes(32)),
        Groups(1, (Points(b"k" * 8, b"m" * 8, (1, 70_000)),)), HeadsOf(1, bytes(16)),
        Heads(1, (known,), True), Announce(bytes(16), (known,), False),
        Pull(1, (want,), (Ref(b"k" * 8, b"m" * 8, ((0, 4),)),)), Proofs((Proof(head, head),)),
        deltas(),
    ]  # fmt: skip
    bodies = [body_of(message) for message in messages]
    plain = delta_pack.PLAIN + zlib.decompress(packed_body(deltas())["z"][1:])
    bodies += [packed_body(deltas()), {"t": "delta", "n": 3, "z": plain}]
    return [pack(body) for body in bodies]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with something wrong."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(spoilt) + 1)
        match rng.randrange(6):
            case 0 if at < len(spoilt):
                spoilt[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(spoilt):
                spoilt[at] = rng.choice((0, 0x7F, 0x80, 0xC0, 0xC1, 0xCF, 0xDD, 0xFF))
            case 2:
                del spoilt[at : at + rng.randrange(1, 9)]
            case 3:
                spoilt[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 4:
                spoilt[at : at + 9] = b"\xcf" + rng.choice(
                    (bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7)
                )
            case _:
                other = rng.randrange(len(spoilt) + 1)
                spoilt[at:at] = spoilt[other : other + rng.randrange(24)]
    return bytes(spoilt)


class Target:
    """A member under fire: its session, and what it would store."""

    def __init__(self) -> None:
        self.member = Member("b")
        self.counters: Counter[str] = Counter()
        self.receipts = Receipts("b")
        self._renew()

    def _renew(self) -> None:
        self.session: SyncSession = self.member.session("a")
        self.session.start(0.0)

    def hit(self, body: object) -> None:
        """Let one frame arrive."""
        session = self.session
        effects = session.on_frame(body, 1.0)
        assert len(effects) <= 8
        assert session.counters["garbage"] <= GARBAGE_MAX
        assert len(session._wants) <= WAITING_MAX
        for effect in effects:
            if isinstance(effect, Serve):
                assert len(effect.wants) <= WANTS_MAX
                session.on_served(effect.n, (), 1.0)
            elif isinstance(effect, Apply):
                assert sum(len(delta.entries) for delta in effect.deltas) <= ROWS_MAX
                session.on_applied([Outcome.ROWS] * len(effect.deltas), 1.0)
            self.counters[type(effect).__name__] += 1
        if session.dropped or any(isinstance(effect, Drop) for effect in effects):
            self._renew()
        self.receipts.on_frame("a", body, {})


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_real_frames_are_refused_or_read_from_seed(seed):
    rng, target = random.Random(seed), Target()
    frames = [*corpus(), pack(receipt_body([(SCOPE, 1, 2)]))]
    for _ in range(MUTATIONS // 8):
        try:
            body = unpack(mutated(rng.choice(frames), rng), FRAME_BYTES_MAX)
        except CodecError:
            target.counters["not msgpack"] += 1
            continue
        target.hit(body)
    assert target.counters["not msgpack"] > 100
    assert target.counters["Send"] > 100, "some still ask for something"


@pytest.mark.parametrize("seed", range(4))
def test_mutations_of_stored_objects_and_deltas_never_raise_from_seed(seed):
    rng, side = random.Random(seed), author()
    b = Side("b")
    head = side.replica.heads[A]
    plain = zlib.decompress(packed_body(deltas())["z"][1:])
    outcomes: Counter[str] = Counter()
    for n in range(MUTATIONS // 8):
        try:
            if n % 4 == 0:
                parse_head(mutated(head.body, rng), head.signature)
            elif n % 4 == 1:
                body_is_sound(mutated(pack({"v": 1, "w": [1, {"x": b"y"}]}), rng))
            else:
                spoilt = mutated(plain, rng)
                packed = PLAIN + spoilt if n % 4 == 2 else DEFLATED + zlib.compress(spoilt, 1)
                for delta in unpack_parts(packed):
                    outcomes[b.take(delta)] += 1
        except CodecError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 1000
    taken = outcomes[Outcome.APPLIED] + outcomes[Outcome.STALE]
    assert taken == 0 or b.replica.heads[A].body == head.body, (
        "what is taken is as it was signed"
    )
    assert len(b.replica.proofs) <= PROOFS_MAX
    assert b.replica.heads.keys() <= {A}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 65) | st.binary(max_size=20)
    | st.text(max_size=8) | st.sampled_from([bytes(8), bytes(16), "fleet", "a", 1 << 62]),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)  # fmt: skip
KINDS = ("root?", "root", "records?", "records", "heads?", "heads", "groups?", "groups",
         "heads of", "announce", "pull", "delta", "proofs")  # fmt: skip
FIELDS = ("n", "g", "r", "v", "z", "have", "records", "more", "buckets", "heads", "wants",
          "parts", "marks", "groups", "keys", "refs", "proofs")  # fmt: skip


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), values, max_size=5))
def test_any_frame_is_a_message_or_a_codec_error(kind, body):
    try:
        message = parse({"t": kind, **body})
    except CodecError:
        return
    assert parse(body_of(message)) == message


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=70))
def test_any_bytes_as_a_stored_object_are_read_or_refused(data, more):
    for read in (
        lambda: parse_head(data, more),
        lambda: unpack_parts(data),
        lambda: unpack_parts(PLAIN + data),
        lambda: parse_entry(unpack(data)),
    ):
        try:
            read()
        except CodecError:
            pass
    body_is_sound(data)


@settings(max_examples=2000, deadline=None)
@given(values)
def test_any_value_as_a_receipt_or_a_row_is_read_or_refused(value):
    for read in (parse_receipt, parse_entry, lambda v: parse_receipt({"sets": v})):
        try:
            read(value)
        except CodecError:
            pass


def test_rows_in_both_forms_are_read_alike():
    """Bounds stand in two readers: row by row (first release), and in one go."""
    signed = author().replica.heads[A]
    long = "x" * 257
    rows = [
        ("t", "k", 1, 1, b"\x80"), ("", "k", 1, 1, None), ("t", long, 1, 1, None),
        ("t" * 65, "k", 1, 1, None), ("t", "k", 0, 1, None), ("t", "k", 1 << 63, 1, None),
        ("t", "k", 1, 1 << 63, None), ("t", "k", 1, -1, None), ("t", "k", True, 1, None),
        ("t", "k", 1, 1, "x"), ("t", "k", 1, 1, bytes(ROW_BYTES_MAX + 1)), ("t", "", 1, 0, b""),
        ("t", "\u00e9" * 129, 1, 1, None), ("t", "\u00e9" * 128, 1, 1, None),
        (b"t", "k", 1, 1, None),
    ]  # fmt: skip

    def readable(read) -> bool:
        try:
            read()
        except CodecError:
            return False
        return True

    for row in rows:
        part = PLAIN + pack([[signed.body, signed.signature, 0, [list(row)], True]])
        slow = readable(lambda r=row: parse_entry(list(r)))
        assert readable(lambda p=part: unpack_parts(p)) == slow, row
    assert pack_parts([]) == PLAIN + b"\x90"
