"""The register: who may say what, which of two records holds, in every order of arrival."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.codec import pack
from mesh.proto.register import Ignored, Merged, Register, Rejected
from mesh.proto.sign import KeySigner, sign_record
from mesh.proto.trust import (
    LEFT,
    REVOKED,
    SUSPENDED,
    OrderKeys,
    make_hub_record,
    make_key_record,
    make_trust_document,
)
from tests.support.trust import Org, identity, seed


def filled() -> Org:
    org = Org()
    org.admit_hub()
    org.admit("n1")
    org.admit("n2", roles=("node", "site-operator"))
    org.admit("n3", site="other")
    return org


def test_a_member_is_what_roster_and_key_record_say():
    org = Org()
    who = org.admit("n1", "lab", ("node",))
    member = org.register.member(who.node_id)
    assert member is not None
    assert (member.site, member.roles, member.status) == ("lab", frozenset({"node"}), "member")
    assert (member.kem_public, member.kem_epoch) == (who.kem_public, 1)
    assert org.register.active(who.node_id)
    assert org.register.role_key("orders") == (org.orders.public,)
    assert org.register.order_keys("eu") == OrderKeys(1, (org.orders.public,))


def test_records_of_another_organisation_are_rejected():
    org, foreign = Org(), Org("evil")
    who = identity("n1")
    assert isinstance(org.register.merge(foreign.trust), Rejected)
    assert isinstance(org.register.merge(foreign.roster(who)), Rejected)
    assert org.register.members() == []


def test_only_a_membership_key_admits():
    org = Org()
    org.membership = org.orders
    assert org.register.merge(org.roster(identity("n1"))) == Rejected(
        "not signed by a membership key"
    )


def test_a_trust_document_must_be_signed_by_the_root_itself():
    org = Org()
    forged = make_trust_document(
        KeySigner(seed("thief")), version=9, membership=[], assets=[], orders={}
    )
    assert isinstance(org.register.merge(forged), Rejected)


def test_a_roster_record_waits_for_its_trust_document():
    org = Org()
    record = org.roster(identity("n1"), trust_version=2)
    assert isinstance(org.register.merge(record), Rejected)
    assert isinstance(org.register.merge(org.trust_document(2)), Merged)
    assert [one.wire for one in org.register.take_released()] == [record]
    assert org.register.active(identity("n1").node_id)


def test_trust_version_orders_before_version():
    org = Org()
    who = identity("n1")
    org.register.merge(org.trust_document(2))
    org.register.merge(org.roster(who, site="b", trust_version=2, version=1))
    old = org.roster(who, site="a", trust_version=1, version=900)
    assert org.register.merge(old) == Ignored()
    assert org.register.member(who.node_id).site == "b"


@pytest.mark.parametrize("first_revoked", [True, False])
def test_revoked_beats_every_version(first_revoked):
    org = Org()
    who = identity("n1")
    revoked = org.roster(who, status=REVOKED, version=2)
    later = org.roster(who, version=50)
    for record in (revoked, later) if first_revoked else (later, revoked):
        org.register.merge(record)
    assert org.register.member(who.node_id).status == REVOKED
    assert not org.register.active(who.node_id)


@pytest.mark.parametrize("status", [SUSPENDED, LEFT, REVOKED])
def test_who_is_not_a_member_now_may_author_nothing(status):
    org = Org()
    who = org.admit("n1")
    org.register.merge(org.roster(who, status=status, version=2))
    assert not org.register.may_author(who.node_id, "fleet")
    assert not org.register.carries(who.node_id, "site:lab")
    org.register.merge(org.roster(who, version=3))
    assert org.register.active(who.node_id) == (status != REVOKED)


def test_an_equal_version_with_other_bytes_raises_one_alarm_and_the_lower_hash_holds():
    org = Org()
    who = identity("n1")
    a, b = org.roster(who, site="a"), org.roster(who, site="b")
    other = Register(org.root_fp)
    other.merge(org.trust)
    for register, records in ((org.register, (a, b)), (other, (b, a))):
        for record in records:
            register.merge(record)
        assert register.counters["alarm"] == 1
        assert [alarm.subject for alarm in register.alarms] == [who.node_id]
    assert org.register.digest() == other.digest()


def test_the_same_record_again_is_ignored_without_alarm():
    org = filled()
    assert all(isinstance(org.register.merge(r), Ignored) for r in org.register.records())
    assert org.register.counters["alarm"] == 0


def test_what_a_sender_adds_around_a_record_is_not_kept():
    org = Org()
    record = org.roster(identity("n1"))
    padded = b"\x84\xa1x\xa4junk" + record[1:]
    assert isinstance(org.register.merge(padded), Merged)
    assert org.register.records()[1] == record
    assert org.register.merge(record) == Ignored()


def test_key_and_hub_records_are_only_of_members():
    org = Org()
    stranger = identity("stranger")
    url = ["https://x.example"]
    hub_record = make_hub_record(stranger, org.root_fp, version=1, urls=url)
    assert org.register.merge(stranger.key_record) == Rejected("not about a member")
    assert org.register.merge(hub_record) == Rejected("not about a member")


def test_a_node_that_calls_itself_a_hub_is_not_listed():
    org = Org()
    who = org.admit("n1")
    hub = org.admit_hub()
    org.register.merge(
        make_hub_record(who, org.root_fp, version=1, urls=["https://evil.example"])
    )
    assert [address.node_id for address in org.register.hubs()] == [hub.node_id]


def test_a_higher_key_epoch_replaces_the_key():
    org = Org()
    who = org.admit("n1")
    org.register.merge(make_key_record(who, bytes(31) + b"\x09", 2))
    member = org.register.member(who.node_id)
    assert (member.kem_epoch, member.kem_public[-1]) == (2, 9)
    assert org.register.merge(who.key_record) == Ignored()


@pytest.mark.parametrize(
    ("who", "scope", "author", "carry"),
    [
        ("n1", "fleet", True, True),
        ("n1", "hubs", False, False),
        ("n1", "site:lab", True, True),
        ("n1", "site:other", False, False),
        ("n1", "site:", False, False),
        ("n1", "pair:{n1}", True, True),
        ("n1", "pair:{n2}", False, False),
        ("n1", "pair:", False, False),
        ("n1", "nonsense", False, False),
        ("hub", "fleet", True, True),
        ("hub", "hubs", True, True),
        ("hub", "site:other", True, True),
        ("hub", "pair:{n1}", True, True),
    ],
)
def test_scope_rules(who, scope, author, carry):
    org = filled()
    ids = {label: identity(label).node_id for label in ("n1", "n2", "hub")}
    scope = scope.format(**ids)
    assert org.register.may_author(ids[who], scope) == author
    assert org.register.carries(ids[who], scope) == carry


def test_a_pair_set_is_carried_by_its_node_and_all_hubs():
    org = filled()
    second = org.admit_hub("hub2")
    ids = {label: identity(label).node_id for label in ("n1", "n2", "hub")}
    scope = f"pair:{ids['n1']}"
    assert org.register.carries(ids["hub"], scope, author=ids["hub"])
    assert org.register.carries(ids["n1"], scope, author=ids["hub"])
    assert org.register.carries(second.node_id, scope, author=ids["hub"])
    assert not org.register.carries(ids["n2"], scope, author=ids["hub"])


@pytest.mark.parametrize("number", range(20))
def test_the_order_of_arrival_does_not_matter_seed(number):
    rng = random.Random(number)
    org = filled()
    who = identity("n1")
    records = org.register.records()
    records += [org.roster(who, version=2, site="x"), org.roster(who, version=2, site="y")]
    records += [org.roster(identity("n2"), status=REVOKED, version=2)]
    records += [org.trust_document(2), org.roster(identity("n3"), trust_version=2)]
    digests = set()
    for _ in range(3):
        register = Register(org.root_fp)
        for _ in range(4):  # what was too early comes again, as in every session
            rng.shuffle(records)
            for record in records:
                register.merge(record)
        digests.add(register.digest())
    assert len(digests) == 1


def test_records_rebuild_an_equal_register_in_one_pass():
    org = filled()
    copy = Register(org.root_fp)
    assert all(isinstance(copy.merge(record), Merged) for record in org.register.records())
    assert copy.digest() == org.register.digest()
    assert copy.members() == org.register.members()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1 << 63) | st.text(max_size=8) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["kind", "version", "trust", "identity", "site", "roles", "status", "heads", "orders",
     "membership", "assets", "urls", "tls_sha256", "epoch", "kem", "caps", "name"]
)  # fmt: skip


@given(st.binary(max_size=400))
def test_garbage_never_raises(data):
    assert isinstance(Register(bytes(20)).merge(data), Rejected)


@given(st.sampled_from(["trust", "roster", "key", "hub"]), st.dictionaries(NAMES, VALUES))
def test_signed_garbage_never_raises(kind, body):
    org = Org()
    signers = {"trust": org.root, "roster": org.membership}
    root_fp = bytes(20) if kind == "key" else org.root_fp
    signer = signers.get(kind, identity("n1"))
    record = sign_record(signer, kind, 1, root_fp, {**body, "kind": kind})
    org.register.merge(record)
    org.register.members()
    org.register.hubs()


def test_a_truncated_record_is_rejected_at_every_length():
    org = Org()
    record = org.roster(identity("n1"))
    assert all(
        isinstance(org.register.merge(record[:size]), Rejected) for size in range(len(record))
    )
    assert isinstance(org.register.merge(pack({"b": 1})), Rejected)
