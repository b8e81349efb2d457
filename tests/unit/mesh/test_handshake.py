"""The handshake of two members: IK, the fallback to XX, and everything that is refused."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.identity import Identity, make_identity
from mesh.proto.handshake import (
    LINK,
    REPLACED,
    Acceptor,
    Dialler,
    Done,
    Effect,
    Failed,
    Learned,
    Send,
)
from mesh.proto.noise import Handshake
from mesh.proto.record import IK, XX
from mesh.proto.register import Register
from mesh.proto.trust import MEMBER, Status, make_key_record
from tests.support.trust import Org, identity, seed


def newer(label: str, epoch: int = 2) -> Identity:
    return make_identity(seed(f"{label}/id"), seed(f"{label}/kem{epoch}"), epoch)


class Pair:
    """A dialler ``a`` and an acceptor ``b``, each with a register of its own."""

    def __init__(self, a: Identity | None = None, b: Identity | None = None) -> None:
        self.org = Org()
        self.a, self.b = a or identity("a"), b or identity("b")
        self.org.register.merge(self.org.roster(self.a))
        self.org.register.merge(self.org.roster(self.b))
        self.of_a, self.of_b = (self.copy() for _ in range(2))
        self.rng = random.Random(1)
        self.wire: list[Send] = []

    def copy(self) -> Register:
        register = Register(self.org.root_fp)
        for record in self.org.register.records():
            register.merge(record)
        return register

    def knowing(self, *, a_knows: bytes | None = None, b_knows: bytes | None = None) -> "Pair":
        for register, record in ((self.of_a, a_knows), (self.of_b, b_knows)):
            if record is not None:
                register.merge(record)
        return self

    def run(self) -> tuple[list[Effect], list[Effect]]:
        """Let them talk until both are silent; return what each wants done besides sending."""
        dialler = Dialler(self.b.node_id, self.a, self.of_a, self.rng.randbytes)
        acceptor = Acceptor(self.b, self.of_b, self.rng.randbytes)
        ends: tuple[list[Effect], list[Effect]] = ([], [])
        sides = (dialler, acceptor)
        todo: list[tuple[int, list[Effect]]] = [(0, dialler.start())]
        while todo:
            who, effects = todo.pop(0)
            for effect in effects:
                if isinstance(effect, Send):
                    self.wire.append(effect)
                    answer = sides[1 - who].on_message(effect.kind, effect.message)
                    todo.append((1 - who, answer))
                else:
                    ends[who].append(effect)
        return ends

    def kinds(self) -> list[int]:
        return [sent.kind for sent in self.wire]


def agreed(ends: tuple[list[Effect], list[Effect]], pair: Pair) -> None:
    (first, second) = ends[0][-1], ends[1][-1]
    assert isinstance(first, Done), ends
    assert isinstance(second, Done), ends
    assert (first.peer, second.peer) == (pair.b.node_id, pair.a.node_id)
    assert (first.dialled, second.dialled) == (True, False)
    assert first.chaining_key == second.chaining_key
    assert first.handshake_hash == second.handshake_hash
    assert first.chaining_key.hex() not in repr(first)
    assert (first.key_record, second.key_record) == (pair.b.key_record, pair.a.key_record)


def test_members_that_know_each_other_need_one_round_trip():
    pair = Pair()
    pair.knowing(a_knows=pair.b.key_record, b_knows=pair.a.key_record)
    agreed(pair.run(), pair)
    assert pair.kinds() == [IK, IK]


def test_an_acceptor_that_never_saw_our_key_takes_it_from_the_record():
    pair = Pair()
    pair.knowing(a_knows=pair.b.key_record)
    agreed(pair.run(), pair)


def test_a_dialler_that_knows_no_key_begins_with_xx_and_learns_it():
    pair = Pair()
    ends = pair.run()
    agreed(ends, pair)
    assert pair.kinds() == [XX, XX, XX]
    assert ends[0][0] == Learned(pair.b.key_record)


def test_a_replaced_key_of_the_acceptor_leads_to_xx_and_is_learned():
    pair = Pair(b=newer("b"))
    pair.knowing(a_knows=identity("b").key_record, b_knows=pair.a.key_record)
    ends = pair.run()
    agreed(ends, pair)
    assert pair.kinds() == [IK, XX, XX, XX, XX]
    assert ends[0][0] == Learned(pair.b.key_record)


def test_both_keys_may_be_new_to_the_other():
    pair = Pair(a=newer("a", 3), b=newer("b"))
    pair.knowing(a_knows=identity("b").key_record, b_knows=identity("a").key_record)
    agreed(pair.run(), pair)


def test_a_restored_dialler_is_told_by_its_own_word_and_by_nobody_else():
    pair = Pair()
    pair.knowing(a_knows=pair.b.key_record, b_knows=newer("a").key_record)
    dialler, acceptor = pair.run()
    assert dialler[0] == Learned(newer("a").key_record)
    assert isinstance(dialler[1], Failed)
    assert [type(effect) for effect in acceptor] == [Failed]


def test_an_older_key_is_refused_in_xx_too_and_the_dialler_has_learned_the_acceptors():
    pair = Pair(b=newer("b"))
    pair.knowing(a_knows=identity("b").key_record, b_knows=newer("a").key_record)
    dialler, acceptor = pair.run()
    assert dialler[0] == Learned(pair.b.key_record)
    assert [type(effect) for effect in acceptor] == [Failed]


def test_an_acceptor_with_a_key_that_it_has_replaced_is_refused():
    pair = Pair()
    pair.knowing(b_knows=pair.a.key_record)
    pair.of_a.merge(newer("b").key_record)  # somebody else answers with the old one
    dialler, _ = pair.run()
    assert [type(effect) for effect in dialler] == [Failed]
    assert pair.kinds() == [IK, XX, XX, XX]


def test_two_keys_of_one_epoch_are_told_apart():
    twin = make_identity(seed("a/id"), seed("a/other"))
    pair = Pair(a=twin)
    pair.knowing(a_knows=pair.b.key_record, b_knows=identity("a").key_record)
    dialler, acceptor = pair.run()
    assert dialler[0] == Learned(identity("a").key_record)
    assert isinstance(acceptor[-1], Failed)


@pytest.mark.parametrize("status", ["suspended", "left", "revoked"])
@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("xx", [False, True])
def test_who_is_no_member_now_is_refused(status: Status, who: str, xx: bool):
    pair = Pair()
    if not xx:
        pair.knowing(a_knows=pair.b.key_record)
    other = pair.b if who == "b" else pair.a
    judge = pair.of_a if who == "b" else pair.of_b
    judge.merge(pair.org.roster(other, status=status, version=2))
    dialler, acceptor = pair.run()
    refusing = dialler if who == "b" else acceptor
    assert [type(effect) for effect in refusing] == [Failed]
    assert status != MEMBER


def test_the_dialler_says_nothing_of_itself_to_another_node():
    pair = Pair()
    other = identity("c")
    pair.org.register.merge(pair.org.roster(other))
    dialler = Dialler(other.node_id, pair.a, pair.copy(), pair.rng.randbytes)
    acceptor = Acceptor(pair.b, pair.copy(), pair.rng.randbytes)
    (first,) = dialler.start()
    assert isinstance(first, Send)
    (second,) = acceptor.on_message(first.kind, first.message)
    assert isinstance(second, Send)
    assert [type(e) for e in dialler.on_message(second.kind, second.message)] == [Failed]


def test_a_node_does_not_accept_itself():
    pair = Pair(b=identity("a"))
    pair.knowing(a_knows=pair.a.key_record)
    assert isinstance(pair.run()[1][-1], Failed)


def test_there_is_one_fallback_a_connection():
    pair = Pair().knowing(a_knows=identity("b").key_record)
    dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, pair.rng.randbytes)
    dialler.start()
    assert [type(e) for e in dialler.on_message(XX, b"")] == [Send]
    assert [type(e) for e in dialler.on_message(XX, b"")] == [Failed]
    acceptor = Acceptor(pair.b, pair.of_b, pair.rng.randbytes)
    assert acceptor.on_message(IK, bytes(200)) == [Send(XX, b"")]
    assert [type(e) for e in acceptor.on_message(IK, bytes(200))] == [Failed]


def test_a_join_is_no_link():
    pair = Pair()
    joining = Handshake(
        "XX", initiator=True, static_private=bytes(32), ephemeral_private=b"\1" * 32
    )
    acceptor = Acceptor(pair.b, pair.of_b, pair.rng.randbytes)
    assert isinstance(acceptor.on_message(XX, joining.write())[0], Failed)


def every_pair() -> Iterator[Pair]:
    ik = Pair()
    yield ik.knowing(a_knows=ik.b.key_record, b_knows=ik.a.key_record)
    yield Pair()
    stale = Pair(b=newer("b"))
    yield stale.knowing(a_knows=identity("b").key_record, b_knows=stale.a.key_record)


@pytest.mark.parametrize("number", range(3))
def test_every_flipped_bit_is_refused(number: int):
    """A changed message never leads to two sides that agree; at most to a clean fallback."""
    pair = list(every_pair())[number]
    pair.run()
    rng = random.Random(2)
    for index, sent in enumerate(pair.wire):
        bits = range(8 * len(sent.message))
        for bit in rng.sample(bits, min(len(bits), 40)):
            ends = run_with_flip(number, index, bit)
            done = [end for end in ends if end and isinstance(end[-1], Done)]
            fell_back = number != 1 and index == 0  # garbage is answered with XX
            assert len(done) < 2 or fell_back, (index, bit)


def run_with_flip(number: int, index: int, bit: int) -> tuple[list[Effect], list[Effect]]:
    pair = list(every_pair())[number]
    dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, pair.rng.randbytes)
    acceptor = Acceptor(pair.b, pair.of_b, pair.rng.randbytes)
    sides = (dialler, acceptor)
    ends: tuple[list[Effect], list[Effect]] = ([], [])
    todo: list[tuple[int, list[Effect]]] = [(0, dialler.start())]
    count = 0
    while todo:
        who, effects = todo.pop(0)
        for effect in effects:
            if not isinstance(effect, Send):
                ends[who].append(effect)
                continue
            message = bytearray(effect.message)
            if count == index:
                message[bit // 8] ^= 1 << bit % 8
            count += 1
            todo.append((1 - who, sides[1 - who].on_message(effect.kind, bytes(message))))
    return ends


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.binary(max_size=400) | st.just(LINK) | st.just(b"")),
        max_size=4,
    )
)
def test_garbage_never_raises(messages: list[tuple[int, bytes]]):
    pair = Pair().knowing(a_knows=identity("b").key_record)
    dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, pair.rng.randbytes)
    acceptor = Acceptor(pair.b, pair.of_b, pair.rng.randbytes)
    dialler.start()
    for kind, message in messages:
        for side in (dialler, acceptor):
            assert not any(isinstance(e, Done) for e in side.on_message(kind, message))


@given(st.binary(max_size=300), st.booleans())
def test_a_member_that_sends_garbage_inside_the_handshake_is_refused(data: bytes, mark: bool):
    """The payload is the peer's to choose; nothing in it may raise or pass for a record."""
    pair = Pair().knowing(a_knows=identity("b").key_record)
    payload = REPLACED + data if mark else data
    noise = Handshake(
        "IK",
        initiator=False,
        static_private=pair.b.kem_private,
        ephemeral_private=pair.rng.randbytes(32),
    )
    dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, pair.rng.randbytes)
    (first,) = dialler.start()
    assert isinstance(first, Send)
    noise.read(first.message)
    assert [type(e) for e in dialler.on_message(IK, noise.write(payload))] == [Failed]


def test_a_false_word_about_our_key_is_not_learned():
    """Only we can sign a later key of ours, and the same or an earlier one proves nothing."""
    for record in (
        identity("a").key_record,
        make_key_record(identity("c").signer, seed("x"), 9),
    ):
        pair = Pair().knowing(a_knows=identity("b").key_record)
        noise = Handshake(
            "IK",
            initiator=False,
            static_private=pair.b.kem_private,
            ephemeral_private=pair.rng.randbytes(32),
        )
        dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, pair.rng.randbytes)
        (first,) = dialler.start()
        assert isinstance(first, Send)
        noise.read(first.message)
        answer = dialler.on_message(IK, noise.write(REPLACED + record))
        assert [type(effect) for effect in answer] == [Failed]
