"""The join token: what it says, and what it tells a person when it is not whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Refused
from mesh.proto.token import check_expiry, parse_token
from tests.support.trust import Org, identity, seed


def text() -> str:
    return Org().token_text(identity("hub"))


def test_a_token_says_what_was_put_in():
    token = Org().token(identity("hub"))
    assert token.hub_ids == (identity("hub").node_id,)
    assert (token.site, token.roles, token.id) == ("lab", frozenset({"node"}), "t-0001")
    assert token.root_fp == Org().root_fp
    assert token.secret == seed("token")[:16]


def test_every_cut_is_told_apart():
    whole = text()
    for size in range(1, len(whole)):
        with pytest.raises(Refused, match="cut short"):
            parse_token(whole[:size])


def test_a_changed_character_is_told_apart():
    whole = text()
    for at in range(len("rm1.") + 3, len(whole)):
        wrong = whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]
        with pytest.raises(Refused, match="mistyped"):
            parse_token(wrong)


def test_line_breaks_and_spaces_do_no_harm():
    whole = text()
    assert parse_token(f"  {whole[:50]}\n  {whole[50:]}\n") == parse_token(whole)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("", "empty"), ("hello", "not a join token"), ("rm2.abc", "not a join token"),
     ("rm1." + "A" * 5000, "longer than"), ("rm1.!!!!!!!!!!!!", "mistyped")],
)  # fmt: skip
def test_what_is_no_token_gets_one_sentence(wrong, says):
    with pytest.raises(Refused, match=says) as caught:
        parse_token(wrong)
    assert "\n" not in str(caught.value)


def test_something_behind_the_token_is_told_apart():
    with pytest.raises(Refused, match="mistyped"):
        parse_token(text() + "AAAA")


def test_an_expired_token_says_so_by_the_callers_clock():
    token = Org().token(identity("hub"), expires_ms=1_000_000)
    check_expiry(token, 999_999)
    with pytest.raises(Refused, match=r"expired 1\.0 hours ago"):
        check_expiry(token, 1_000_000 + 3_600_000)
    with pytest.raises(Refused, match="expired"):
        parse_token(Org().token_text(identity("hub"), expires_ms=1), now_ms=2)


def test_the_one_time_key_follows_from_secret_organisation_and_id():
    org, hub = Org(), identity("hub")
    key = org.token(hub).one_time_key().public
    assert key == org.token(hub).one_time_key().public
    assert key != org.token(hub, token_id="t-0002").one_time_key().public
    assert key != org.token(hub, secret=bytes(16)).one_time_key().public


def test_the_secret_is_not_in_repr():
    token = Org().token(identity("hub"))
    assert token.secret.hex() not in repr(token)
    assert repr(token.secret) not in repr(token)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: f"rm1.{raw.hex()}"))
def test_garbage_never_raises_anything_but_a_sentence(wrong):
    with pytest.raises(Refused):
        parse_token(wrong)
