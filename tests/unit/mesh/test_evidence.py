"""Two histories of one author: proved, kept, told, and no false proof counts."""

import sqlite3

from mesh.proto.evidence import PROOFS_MAX, Proof, holds, problems, rewritten
from mesh.proto.intake import Outcome
from mesh.proto.sets import SetId
from mesh.proto.storage import MemoryStorage
from mesh.proto.sync import STRIKES_MAX
from mesh.proto.sync_ports import Convict, Drop, Send
from mesh.proto.sync_wire import Known, Proofs, body_of, parse
from mesh.store_sql import SCHEMA, SqlStorage
from tests.support.sides import ROSTER, SCOPE, A, Side
from tests.unit.mesh.test_heads_digest import QueuedWire, signed
from tests.unit.mesh.test_sync import Member


def twins() -> tuple[Side, Side]:
    """Two processes with one identity that have each written once since they parted."""
    one, two = Side("a"), Side("a")
    for side in (one, two):
        side.put("k")
    one.put("mine")
    two.put("yours")
    return one, two


def test_two_heads_for_one_point_are_kept_as_a_proof():
    one, two = twins()
    b = Side("b")
    b.pull(one, A)
    assert b.take(two.delta_for(Side("b"), A)) is Outcome.FORK
    proof = b.replica.proofs[A]
    assert proof.transferable
    assert holds(proof, ROSTER.verify)
    assert b.keys("a") == one.keys("a")
    assert "node a " in problems(b.replica.proofs)[0]


def test_a_later_head_that_contradicts_an_earlier_one_is_kept_too():
    one, two = twins()
    two.put("more")
    b = Side("b")
    b.pull(one, A)
    assert b.pull(two, A) is Outcome.ROOT
    assert b.pull(two, A, full=True) is Outcome.APPLIED
    assert not b.replica.proofs[A].transferable


def test_a_later_head_that_promises_less_convicts_and_its_author_goes_on_in_a_higher_epoch():
    one, two = Side("a"), Side("a")
    for side in (one, two):
        side.put("k")
    two.now += 60_000
    two.put("yours")
    one.put("mine", "more")  # more writes, by an earlier clock
    b = Side("b")
    b.pull(two, A)
    assert b.pull(one, A) is Outcome.REWIND
    proof = b.replica.proofs[A]
    assert holds(proof, ROSTER.verify), "the two heads alone convince"
    epoch = one.replica.heads[A].head.epoch
    for _ in range(2):  # it is told once and acts once
        one.replica.convict(proof, one.now)
        one.commit()
    assert one.replica.heads[A].head.epoch > epoch
    assert b.pull(one, A) is Outcome.APPLIED
    assert b.keys("a") == {"k", "mine", "more"}
    renewed = one.replica.heads[A].head.epoch
    one.replica.convict(proof, one.now)
    one.commit()
    assert one.replica.heads[A].head.epoch == renewed


def test_a_restored_author_that_promises_less_is_not_accused():
    a, b = Side("a"), Side("b")
    a.put("k")
    backup = a.disk.copy()
    a.now += 60_000
    a.put("lost")
    b.pull(a, A)
    again = Side("a")
    again.disk, again.replica.storage = backup, backup
    again.replica.load(again.now)
    again.replica.renew(again.now)
    again.put("since")
    assert b.pull(again, A) is Outcome.REWIND
    assert b.replica.proofs == {}


def test_an_honest_author_is_never_accused():
    a, b = Side("a"), Side("b")
    a.put("k", "l", "m")
    b.pull(a, A)
    for n in range(60):
        a.put("k" if n % 2 else f"x{n % 7}", body=None if n % 3 == 0 else b"\x80")
    while a.replica.rest(SCOPE, a.now):
        a.commit()
    before = list(b.disk.entries(A))
    assert not rewritten(b.replica.heads[A], before, a.disk.entries(A))
    assert b.pull(a, A, full=True) is Outcome.APPLIED
    assert b.replica.proofs == {}


def test_what_proves_nothing_is_no_proof():
    one, two = twins()
    first, second = (side.replica.heads[A] for side in (one, two))
    assert holds(Proof(first, second), ROSTER.verify)
    assert not holds(Proof(first, first), ROSTER.verify)
    assert not holds(Proof(first, second._replace(signature=b"x")), ROSTER.verify)
    one.put("again")
    assert not holds(Proof(one.replica.heads[A], second), ROSTER.verify)


def test_proofs_are_bounded_undone_with_their_transaction_and_kept_by_both_storages():
    side = Side("b")
    for n in range(PROOFS_MAX + 5):
        head = signed(SetId(f"n{n}", "fleet"), 3)
        side.replica.add_proof(Proof(head, head))
    assert len(side.replica.proofs) == PROOFS_MAX
    side.replica.undo_to(0)
    assert side.replica.proofs == {}
    db = sqlite3.connect(":memory:", isolation_level=None)
    for statement in SCHEMA:
        db.execute(statement)
    one, two = twins()
    proof = Proof(one.replica.heads[A], two.replica.heads[A])
    for storage in (SqlStorage(db), MemoryStorage()):
        assert storage.proofs() == []
        storage.save_proof(proof)
        storage.save_proof(proof)
        assert storage.proofs() == [proof]
    db.close()


class TellingWire(QueuedWire):
    """Whose shells keep what holds."""

    def perform(self, name, effects):
        for effect in effects:
            if isinstance(effect, Convict):
                kept = [p for p in effect.proofs if holds(p, ROSTER.verify)]
                for proof in kept:
                    self.members[name].replica.convict(proof, self.members[name].now)
                session = self.sessions[name]
                super().perform(name, session.on_convicted(len(effect.proofs) - len(kept)))
            else:
                super().perform(name, [effect])


def test_members_that_hold_different_branches_prove_it_and_tell():
    one, two = twins()
    b, h = Member("b"), Member("h")
    b.pull(one, A)
    h.pull(two, A)
    wire = TellingWire(b, h)
    wire.start()
    wire.run()
    assert b.proofs.keys() == h.proofs.keys() == {A}
    assert any(body["t"] == "proofs" for _, body in wire.sent)
    message = Proofs(tuple(b.proofs.values()))
    assert parse(body_of(message)) == message


def test_a_peer_that_tells_false_proofs_is_dropped():
    a = Side("a")
    a.put("k")
    head = a.replica.heads[A]
    session = Member("b").session("h")
    (told,) = session.on_frame(body_of(Proofs((Proof(head, head),) * STRIKES_MAX)), 0.0)
    assert isinstance(told, Convict)
    assert [type(e) for e in session.on_convicted(STRIKES_MAX)] == [Drop]


def test_another_head_for_our_point_is_pulled_for_its_signature():
    one, two = twins()
    b = Member("b")
    b.pull(one, A)
    other = two.replica.heads[A].head
    known = Known(A, other.epoch, other.seq, other.root)
    session = b.session("h")
    session.on_frame({"t": "root?", "n": 1, "v": 2}, 0.0)
    said = {"t": "announce", "g": ROSTER.register.digest(), "more": False,
            "heads": [[*known.id, known.epoch, known.seq, known.root]]}  # fmt: skip
    pulls = [e.body for e in session.on_frame(said, 0.0) if isinstance(e, Send)]
    assert [body["wants"] for body in pulls] == [[["a", SCOPE, other.epoch, other.seq - 1]]]
