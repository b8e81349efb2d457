"""The hub's desk: tokens are made, used once, refused with a reason, and never kept."""

import json

import pytest

from mesh.errors import Refused
from mesh.host import log
from mesh.join_desk import KEEP_ENDED_MS
from mesh.membership import Voice, admit, set_status
from mesh.proto.codec import unpack_map
from mesh.proto.tables import FLEET, HUBS, SITE, TOKEN
from mesh.proto.token import parse_token
from mesh.proto.trust import make_hub_record
from mesh.register_store import RegisterStore
from tests.support.office import HASH, HUB, Office
from tests.support.trust import identity


async def test_a_node_joins_and_is_a_durable_member_before_the_answer(tmp_path):
    office = Office(tmp_path)
    office.store.put(FLEET, SITE, "lab", {"title": "The lab", "region": "eu"})
    text, row = await office.desk.create_token("lab", ["node"])
    result = await office.join(text)
    assert result.site_info == {"site": "lab", "title": "The lab", "region": "eu"}
    again = RegisterStore.open(tmp_path / "register")
    assert again.register.active(identity("n1").node_id)
    assert again.register.member(identity("n1").node_id).kem_public == identity("n1").kem_public
    assert again.register.member(identity("n1").node_id).name == "n1"
    (used,) = office.desk.tokens()
    assert (used["id"], used["used_by"]) == (row["id"], identity("n1").node_id)
    assert used["used_ms"] == office.clock.now_ms()


async def test_the_same_node_may_repeat_and_another_one_may_not(tmp_path):
    office = Office(tmp_path)
    text, _ = await office.desk.create_token("lab")
    await office.join(text)
    version = office.register.version
    await office.join(text)
    assert office.register.version == version
    with pytest.raises(Refused, match="was used by another node"):
        await office.join(text, "thief")
    assert not office.register.register.active(identity("thief").node_id)
    assert office.desk.counters["alarm"] == 1


async def test_a_crash_between_token_and_roster_record_is_healed_by_the_same_node(tmp_path):
    office = Office(tmp_path)
    text, row = await office.desk.create_token("lab")
    used = {**row, "used_by": identity("n1").node_id}
    office.store.put(HUBS, TOKEN, row["id"], used)
    with pytest.raises(Refused, match="another node"):
        await office.join(text, "thief")
    result = await office.join(text, "n1")
    assert result.site == "lab"


async def test_expired_revoked_and_foreign_tokens_are_refused(tmp_path):
    office = Office(tmp_path / "a")
    text, row = await office.desk.create_token("lab", ttl_ms=1000)
    office.clock.advance(1000)
    with pytest.raises(Refused, match="has expired"):
        await office.join(text)
    text, row = await office.desk.create_token("lab")
    await office.desk.revoke_token(row["id"])
    with pytest.raises(Refused, match="was revoked"):
        await office.join(text)
    foreign = Office(tmp_path / "b")
    text, _ = await foreign.desk.create_token("lab")
    with pytest.raises(Refused, match="another organisation"):
        await office.join(text)
    assert [member.node_id for member in office.register.register.members()] == [HUB.node_id]


async def test_a_token_names_its_own_hub_first_and_the_others_after_it(tmp_path):
    office = Office(tmp_path)
    for label in ("h1", "h2", "h3"):
        who = identity(label)
        admit(office.keys, office.register, who.public, site="", roles=frozenset({"hub"}))
        url = [f"https://{label}:1"]
        office.register.merge(make_hub_record(who, office.keys.root_fp, version=1, urls=url))
    token = parse_token((await office.desk.create_token("lab"))[0])
    assert token.urls[0] == "https://hub.example:8443"
    assert (token.hub_ids[0], len(token.hub_ids), len(token.urls)) == (HUB.node_id, 4, 4)


async def test_a_request_from_another_handshake_is_refused(tmp_path):
    office = Office(tmp_path)
    text, _ = await office.desk.create_token("lab")
    with pytest.raises(Refused, match="another connection"):
        await office.join(text, handshake=bytes(63) + b"x")
    assert office.desk.tokens()[0]["used_by"] is None


async def test_a_revoked_node_does_not_come_back_with_a_new_token(tmp_path):
    office = Office(tmp_path)
    text, _ = await office.desk.create_token("lab")
    await office.join(text)
    set_status(
        Voice(office.keys.membership), office.register, identity("n1").node_id, "revoked"
    )
    text, _ = await office.desk.create_token("lab")
    with pytest.raises(Refused, match="revoked for good"):
        await office.join(text)


async def test_a_node_that_moves_gets_a_new_roster_version(tmp_path):
    office = Office(tmp_path)
    for site in ("lab", "far"):
        text, _ = await office.desk.create_token(site)
        await office.join(text)
    member = office.register.register.member(identity("n1").node_id)
    assert (member.site, member.version) == ("far", 2)


async def test_garbage_gets_an_answer_and_changes_nothing(tmp_path):
    office = Office(tmp_path)
    for data in (b"", b"\x00" * 100, b"\x81\xa1b\xc4\x00"):
        assert unpack_map(await office.desk.answer(data, HASH, bytes(32)))["ok"] is False
    assert office.desk.counters["refused garbage"] == 3


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"site": "No Site"}, "no site name"),
        ({"site": ""}, "needs a site"),
        ({"site": "lab", "roles": []}, "one or more of"),
        ({"site": "lab", "roles": ["king"]}, "one or more of"),
        ({"site": "lab", "ttl_ms": 0}, "lives between"),
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(tmp_path, how, says):
    with pytest.raises(Refused, match=says):
        await Office(tmp_path).desk.create_token(**how)


async def test_tokens_that_ended_long_ago_are_deleted(tmp_path):
    office = Office(tmp_path)
    await office.desk.create_token("lab", ttl_ms=1000)
    office.clock.advance(KEEP_ENDED_MS + 2000)
    _, row = await office.desk.create_token("lab")
    assert [token["id"] for token in office.desk.tokens()] == [row["id"]]
    with pytest.raises(Refused, match="no join token"):
        await office.desk.revoke_token("gone")


async def test_a_tokens_secret_is_in_no_row_and_in_no_log(tmp_path, capsys):
    log.configure("debug")
    office = Office(tmp_path)
    text, _ = await office.desk.create_token("lab")
    await office.join(text)
    with pytest.raises(Refused):
        await office.join(text, "thief")
    secret = parse_token(text).secret
    logged = capsys.readouterr().err
    assert "join token made" in logged
    assert all(json.loads(line)["service"] == "join" for line in logged.splitlines())
    for shown in (logged, repr(office.store.world.rows)):
        assert text not in shown
        assert secret.hex() not in shown
        assert repr(secret) not in shown
