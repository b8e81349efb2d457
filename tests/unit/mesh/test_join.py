"""The join exchange, both cores against each other, and everybody who must not get in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Refused
from mesh.identity import Identity
from mesh.proto.codec import pack, unpack_map
from mesh.proto.join import (
    REPLY_BYTES_MAX,
    JoinClient,
    JoinRequest,
    Refusal,
    check_request,
    grant_reply,
    open_request,
    refusal_reply,
    reply_records,
    server_payload,
)
from mesh.proto.register import Register
from mesh.proto.token import Token
from mesh.proto.trust import LEFT, REVOKED, SUSPENDED
from tests.support.trust import Org, identity

HASH = bytes(range(64))
NOW_MS = 1_800_000_000_000


def payload(org: Org, hub: Identity) -> bytes:
    records = [org.register.record(kind, subject) for kind, subject in
               (("trust", ""), ("roster", hub.node_id), ("key", hub.node_id))]  # fmt: skip
    return server_payload(*records)


def row(token: Token, **changes):
    values = {
        "id": token.id,
        "site": token.site,
        "roles": sorted(token.roles),
        "public": token.one_time_key().public,
        "expires_ms": token.expires_ms,
        "used_by": None,
        "revoked": False,
    }
    return {**values, **changes}


class Meeting:
    """One organisation, its hub and a node with a token."""

    def __init__(self, **token_changes) -> None:
        self.org = Org()
        self.hub = self.org.admit_hub()
        self.node = identity("new")
        self.token = self.org.token(self.hub, **token_changes)
        self.client = JoinClient(self.token, self.node, self.node.key_record, "edge-7")

    def request(self) -> bytes:
        self.client.accept_hub(payload(self.org, self.hub), self.hub.kem_public)
        return self.client.request(HASH)

    def opened(self) -> JoinRequest:
        opened = open_request(self.request(), HASH, self.node.kem_public, self.org.root_fp)
        assert isinstance(opened, JoinRequest)
        return opened

    def check(self, request: JoinRequest, token_row, known=None, now_ms=NOW_MS):
        return check_request(request, token_row, known, now_ms, self.org.root_fp)

    def admit(self, **changes) -> bytes:
        record = self.org.roster(self.node, **changes)
        self.org.register.merge(record)
        self.org.register.merge(self.node.key_record)
        records = reply_records(self.org.register, self.node.node_id, "lab")
        return grant_reply(records, {"site": "lab", "region": "eu"})


def test_a_node_with_a_good_token_is_admitted():
    meeting = Meeting()
    request = meeting.opened()
    assert (request.node_id, request.name) == (meeting.node.node_id, "edge-7")
    assert meeting.check(request, row(meeting.token)) is None
    result = meeting.client.finish(meeting.admit())
    assert (result.site, result.roles) == ("lab", frozenset({"node"}))
    assert result.hub_id == meeting.hub.node_id
    assert result.site_info == {"site": "lab", "region": "eu"}
    register = Register(result.root_fp)
    for record in result.records:
        register.merge(record)
    assert register.active(meeting.node.node_id)
    assert register.active(meeting.hub.node_id)
    assert register.hubs()[0].node_id == meeting.hub.node_id


# -- hubs that a node must not believe -----------------------------------------------------


def test_a_hub_of_another_organisation_is_refused():
    meeting, foreign = Meeting(), Org("other")
    hub = foreign.admit_hub()
    with pytest.raises(Refused, match="another organisation"):
        meeting.client.accept_hub(payload(foreign, hub), hub.kem_public)


def test_a_hub_that_the_token_does_not_name_is_refused():
    meeting = Meeting()
    second = meeting.org.admit_hub("hub2")
    with pytest.raises(Refused, match="not one that the join token names"):
        meeting.client.accept_hub(payload(meeting.org, second), second.kem_public)


def test_a_member_that_is_no_hub_is_refused():
    meeting = Meeting()
    node = meeting.org.admit("n1")
    with pytest.raises(Refused, match="not an active hub"):
        meeting.client.accept_hub(payload(meeting.org, node), node.kem_public)


@pytest.mark.parametrize("status", [SUSPENDED, LEFT, REVOKED])
def test_a_hub_that_is_not_active_is_refused(status):
    meeting = Meeting()
    record = meeting.org.roster(meeting.hub, "", ("hub",), status, version=2)
    meeting.org.register.merge(record)
    with pytest.raises(Refused, match="not an active hub"):
        meeting.client.accept_hub(payload(meeting.org, meeting.hub), meeting.hub.kem_public)


def test_a_hubs_records_over_another_static_key_are_refused():
    meeting = Meeting()
    with pytest.raises(Refused, match="something stands between"):
        meeting.client.accept_hub(
            payload(meeting.org, meeting.hub), identity("mitm").kem_public
        )


def test_a_hub_with_an_old_trust_document_is_refused():
    meeting = Meeting(trust_version=2)
    with pytest.raises(Refused, match="the token asks for 2 or later"):
        meeting.request()


@given(st.binary(max_size=200))
def test_garbage_from_a_hub_never_raises_anything_but_a_sentence(data):
    with pytest.raises(Refused):
        Meeting().client.accept_hub(data, bytes(32))


# -- nodes that a hub must not admit -------------------------------------------------------


def code(refusal) -> str:
    assert isinstance(refusal, Refusal)
    assert refusal.detail
    assert "\n" not in refusal.detail
    return refusal.code


def test_an_unknown_token_is_refused():
    meeting = Meeting()
    assert code(meeting.check(meeting.opened(), None)) == "unknown"


def test_a_wrong_secret_is_refused_with_an_alarm():
    meeting = Meeting(secret=bytes(16))
    right = meeting.org.token(meeting.hub)
    refusal = meeting.check(meeting.opened(), row(right))
    assert code(refusal) == "wrong"
    assert refusal.alarm


def test_a_token_used_by_another_identity_is_refused_with_an_alarm():
    meeting = Meeting()
    refusal = meeting.check(meeting.opened(), row(meeting.token, used_by="a" * 32))
    assert code(refusal) == "used"
    assert refusal.alarm


def test_the_same_identity_may_repeat_even_after_expiry():
    meeting = Meeting()
    used = row(meeting.token, used_by=meeting.node.node_id, expires_ms=1)
    assert meeting.check(meeting.opened(), used) is None


def test_an_expired_token_is_refused():
    meeting = Meeting()
    assert code(meeting.check(meeting.opened(), row(meeting.token, expires_ms=1))) == "expired"


def test_a_revoked_token_is_refused():
    meeting = Meeting()
    assert code(meeting.check(meeting.opened(), row(meeting.token, revoked=True))) == "revoked"


@pytest.mark.parametrize("changes", [{"site": "other"}, {"roles": ["hub"]}, {"roles": []}])
def test_another_site_or_other_roles_than_the_tokens_are_refused(changes):
    meeting = Meeting()
    assert code(meeting.check(meeting.opened(), row(meeting.token, **changes))) == "bounds"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(REVOKED, "node-revoked"), (SUSPENDED, "suspended")],
)
def test_a_known_bad_identity_is_refused(status, expected):
    meeting = Meeting()
    meeting.org.register.merge(meeting.org.roster(meeting.node, status=status))
    known = meeting.org.register.member(meeting.node.node_id)
    assert code(meeting.check(meeting.opened(), row(meeting.token), known)) == expected


def test_who_left_needs_a_new_token():
    meeting = Meeting()
    meeting.org.register.merge(meeting.org.roster(meeting.node, status=LEFT))
    known = meeting.org.register.member(meeting.node.node_id)
    request = meeting.opened()
    used = row(meeting.token, used_by=meeting.node.node_id)
    assert code(meeting.check(request, used, known)) == "used"
    assert meeting.check(request, row(meeting.token), known) is None


def test_a_request_replayed_on_another_handshake_is_refused_with_an_alarm():
    meeting = Meeting()
    request = meeting.request()
    kem = meeting.node.kem_public
    refusal = open_request(request, bytes(64), kem, meeting.org.root_fp)
    assert code(refusal) == "replayed"
    assert refusal.alarm


def test_a_request_over_another_static_key_is_refused():
    meeting = Meeting()
    other = identity("mitm").kem_public
    assert code(open_request(meeting.request(), HASH, other, meeting.org.root_fp)) == "identity"


def test_a_request_of_another_organisation_is_refused():
    meeting = Meeting()
    kem = meeting.node.kem_public
    other = Org("other").root_fp
    assert code(open_request(meeting.request(), HASH, kem, other)) == "signature"


def test_a_request_whose_body_was_changed_is_refused():
    meeting = Meeting()
    outer = unpack_map(meeting.request())
    body = unpack_map(outer["b"])
    forged = pack({**outer, "b": pack({**body, "site": "other"})})
    kem = meeting.node.kem_public
    assert code(open_request(forged, HASH, kem, meeting.org.root_fp)) == "signature"


def test_a_request_signed_by_another_identity_has_a_wrong_one_time_signature():
    """A thief who saw a request cannot put his own identity into it."""
    meeting = Meeting()
    thief = identity("thief")
    outer = unpack_map(meeting.request())
    body = unpack_map(outer["b"])
    body = pack({**body, "node": thief.node_id, "key_record": thief.key_record})
    signature = thief.sign("join", 1, meeting.org.root_fp, body)
    forged = pack({"b": body, "s": signature, "k": thief.public, "t": outer["t"]})
    opened = open_request(forged, HASH, thief.kem_public, meeting.org.root_fp)
    assert isinstance(opened, JoinRequest)
    assert code(meeting.check(opened, row(meeting.token))) == "wrong"


@given(st.binary(max_size=200))
def test_garbage_from_a_node_never_raises(data):
    assert code(open_request(data, HASH, bytes(32), bytes(20)))


# -- answers -------------------------------------------------------------------------------


def test_a_refusal_reaches_the_nodes_terminal_as_one_sentence():
    meeting = Meeting()
    meeting.request()
    reply = refusal_reply(Refusal("used", "the join token was used\nby another node"))
    with pytest.raises(Refused, match=r"^the join token was used by another node$"):
        meeting.client.finish(reply)


@pytest.mark.parametrize("changes", [{"site": "other"}, {"roles": ("node", "site-operator")}])
def test_an_answer_that_admits_to_something_else_is_refused(changes):
    meeting = Meeting()
    meeting.request()
    with pytest.raises(Refused, match="another site or other roles"):
        meeting.client.finish(meeting.admit(**changes))


def test_an_answer_without_our_own_roster_record_is_refused():
    meeting = Meeting()
    meeting.request()
    with pytest.raises(Refused, match="broken"):
        meeting.client.finish(grant_reply(meeting.org.register.records(), {}))


@given(st.binary(max_size=200))
def test_garbage_answers_never_raise_anything_but_a_sentence(data):
    meeting = Meeting()
    meeting.request()
    with pytest.raises(Refused):
        meeting.client.finish(data)


def test_a_large_register_is_cut_to_one_transport_record_and_keeps_what_matters():
    meeting = Meeting()
    meeting.request()
    for number in range(150):
        meeting.org.admit(f"far{number}", site="far")
    meeting.org.admit("near", site="lab")
    reply = meeting.admit()
    assert len(reply) <= REPLY_BYTES_MAX
    result = meeting.client.finish(reply)
    register = Register(result.root_fp)
    for record in result.records:
        register.merge(record)
    assert register.active(identity("near").node_id)
    assert register.hubs()
