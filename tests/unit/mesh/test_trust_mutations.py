"""Role keys, handshakes and state files that were once good: changed, they change nothing."""

import io
import os
import random

from mesh.errors import CodecError
from mesh.proto.codec import pack
from mesh.proto.courier import file_end, file_head, file_piece, open_piece, read_pieces
from mesh.proto.handshake import Acceptor, Dialler, Done, Send
from mesh.proto.record import IK, XX
from mesh.proto.register import Register
from mesh.proto.sync_wire import Records, body_of
from tests.support.mutations import check
from tests.support.trust import identity
from tests.unit.mesh.test_handshake import Pair, newer
from tests.unit.mesh.test_register_keys import ORG, POOL

COUNT = int(os.environ.get("RACKMESH_MUTATIONS", "4000"))


def test_changed_records_of_role_keys_change_nothing():
    register = Register(ORG.root_fp)
    for _ in range(3):
        for record in POOL:
            register.merge(record)
    before = register.digest()

    def feed(data: bytes) -> None:
        register.merge(data)
        assert register.digest() == before

    check(POOL, 21, COUNT, feed)


def test_changed_messages_make_no_member():
    pair = Pair(b=newer("b")).knowing(a_knows=identity("b").key_record)
    pair.run()
    good = [sent.message for sent in pair.wire if sent.message]
    rng = random.Random(3)

    def feed(data: bytes) -> None:
        acceptor = Acceptor(pair.b, pair.of_b, rng.randbytes)
        dialler = Dialler(pair.b.node_id, pair.a, pair.of_a, rng.randbytes)
        dialler.start()
        for kind in (IK, XX):
            effects = [*acceptor.on_message(kind, data), *dialler.on_message(kind, data)]
            assert not any(isinstance(effect, Done) for effect in effects)
            sent = sum(len(effect.message) for effect in effects if isinstance(effect, Send))
            assert sent <= 1024

    check(good, 22, COUNT, feed)


def test_changed_state_files_end_with_a_sentence():
    piece = pack(body_of(Records(0, tuple(POOL[:4]), False)))
    root = ORG.root_fp
    whole = file_head(root) + file_piece(piece) + file_piece(piece) + file_end(2)

    def feed(data: bytes) -> None:
        try:
            for found in read_pieces(io.BytesIO(data).read, root):
                assert found == piece
        except CodecError:
            pass

    check([whole], 23, COUNT, feed)

    def feed_piece(data: bytes) -> None:
        try:
            open_piece(data)
        except CodecError:
            pass

    check([piece], 24, COUNT, feed_piece)
