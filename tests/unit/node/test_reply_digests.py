"""Nodes that answer the same packet otherwise at the same snapshot are found; no other is."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.proto import codec
from node.proto.reply_digests import (
    DIVERGED_S,
    KEPT_MAX,
    PAIRS_MAX,
    PEERS_MAX,
    WAITING_MAX,
    ReplyDigests,
    digest,
)

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"
ASKED, SAID, ELSE = digest(b"discover"), digest(b"offer"), digest(b"another offer")


def pair(one: bytes, two: bytes) -> tuple[ReplyDigests, ReplyDigests]:
    """Two nodes that were asked the same and said this."""
    ours, theirs = ReplyDigests(), ReplyDigests()
    ours.note("s1", ASKED, one, MAC)
    theirs.note("s1", ASKED, two, MAC)
    return ours, theirs


def test_equal_replies_are_compared_and_nothing_is_said() -> None:
    ours, theirs = pair(SAID, SAID)
    assert ours.on_message("peer", theirs.message(), 1.0) is None
    assert (ours.compared, ours.problem(1.0)) == (1, None)


def test_a_differing_reply_is_an_alarm_that_names_node_and_machine() -> None:
    ours, theirs = pair(SAID, ELSE)
    assert ours.on_message("peerpeerpeer", theirs.message(), 1.0) == MAC
    assert "peerpeer (1 replies, last to 52:54:00:77:00:01)" in str(ours.problem(2.0))
    assert ours.problem(DIVERGED_S + 2.0) is None


def test_replies_from_another_snapshot_are_not_compared() -> None:
    ours, theirs = ReplyDigests(), ReplyDigests()
    ours.note("s1", ASKED, SAID, MAC)
    theirs.note("s2", ASKED, ELSE, MAC)
    assert ours.on_message("peer", theirs.message(), 1.0) is None
    assert ours.compared == 0


def test_a_new_snapshot_forgets_what_was_said_from_the_old_one() -> None:
    ours = ReplyDigests()
    ours.note("s1", ASKED, SAID, MAC)
    ours.note("s2", digest(b"x"), SAID, OTHER)
    assert ours.message() == {"snapshot": "s2", "pairs": [[digest(b"x"), SAID]]}
    assert ours.message() is None
    old = {"snapshot": "s1", "pairs": [[ASKED, ELSE]]}
    assert ours.on_message("peer", old, 1.0) is None


def test_a_packet_that_only_one_has_seen_says_nothing() -> None:
    ours = ReplyDigests()
    ours.note("s1", ASKED, SAID, MAC)
    body = {"snapshot": "s1", "pairs": [[digest(b"never seen"), ELSE]]}
    assert ours.on_message("peer", body, 1.0) is None
    assert ours.problem(1.0) is None


def test_tables_and_messages_are_capped() -> None:
    ours = ReplyDigests()
    for number in range(2 * KEPT_MAX):
        ours.note("s1", number.to_bytes(8, "big"), SAID, MAC)
    assert len(ours._own) == KEPT_MAX
    assert len(ours._waiting) <= WAITING_MAX
    message = ours.message()
    assert message is not None
    assert len(message["pairs"]) == PAIRS_MAX
    assert len(codec.pack(message)) < 32 * 1024
    pairs = [[(2 * KEPT_MAX - 1 - n).to_bytes(8, "big"), ELSE] for n in range(2 * PAIRS_MAX)]
    for number in range(2 * PEERS_MAX):
        ours.on_message(f"p{number}", {"snapshot": "s1", "pairs": pairs}, 1.0)
    assert ours.compared == 2 * PEERS_MAX * PAIRS_MAX
    assert len(ours._diverged) == PEERS_MAX


odd = st.recursive(
    st.none() | st.integers() | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(odd | st.fixed_dictionaries({"snapshot": st.just("s1"), "pairs": odd}))
def test_garbage_from_a_member_never_raises_and_accuses_nobody(body: object) -> None:
    ours = ReplyDigests()
    ours.note("s1", ASKED, SAID, MAC)
    ours.on_message("peer", body, 1.0)
    assert ours.problem(1.0) is None
