"""The hub's key ring and what a hub does to its register."""

import pytest

from mesh.errors import Refused
from mesh.hub_keys import load_or_make_hub_keys
from mesh.membership import Voice, admit, announce, found, set_status
from mesh.proto.ids import root_fingerprint
from mesh.proto.trust import open_trust_document
from mesh.proto.wrap import WrapCost
from mesh.register_store import RegisterStore
from tests.support.trust import identity

CHEAP = WrapCost(memory_kib=8, passes=1)
HUB = identity("hub")


def test_the_first_start_makes_everything_and_the_next_one_keeps_it(tmp_path):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu")
    again = load_or_make_hub_keys(tmp_path / "keys", "us", "too late")
    assert (again.root_fp, again.region) == (keys.root_fp, "eu")
    assert again.trust_document == keys.trust_document
    assert again.orders.public == keys.orders.public
    document = open_trust_document(keys.trust_document, keys.root_fp)
    assert document.membership == (keys.membership.public,)
    assert document.assets == (keys.assets.public,)
    assert document.orders["eu"].keys == (keys.orders.public,)
    assert keys.root_state == "plain"
    assert root_fingerprint(keys.root().public) == keys.root_fp
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_a_passphrase_wraps_the_root(tmp_path):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu", "correct horse", cost=CHEAP)
    assert keys.root_state == "wrapped"
    assert root_fingerprint(keys.root("correct horse").public) == keys.root_fp
    with pytest.raises(Refused, match="is wrong"):
        keys.root("wrong horse")
    with pytest.raises(Refused, match="give its passphrase"):
        keys.root()


def test_the_root_can_be_taken_away_and_brought_back(tmp_path):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu")
    keys.export_root(tmp_path / "stick" / "root.key")
    assert keys.root_state == "offline"
    with pytest.raises(Refused, match="offline"):
        keys.root()
    with pytest.raises(Refused, match="already offline"):
        keys.export_root(tmp_path / "other")
    assert load_or_make_hub_keys(tmp_path / "keys", "eu").root_fp == keys.root_fp
    (tmp_path / "stick" / "root.key").rename(tmp_path / "keys" / "root.key")
    assert keys.root_state == "plain"


def test_a_root_is_never_exported_over_another_file(tmp_path):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(Refused, match="already exists"):
        keys.export_root(tmp_path / "taken")
    assert keys.root_state == "plain"


@pytest.mark.parametrize("name", ["ring.key", "root.key"])
def test_a_damaged_file_is_one_sentence_and_stays(tmp_path, name):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu")
    path = tmp_path / "keys" / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Refused, match="damaged; restore it"):
        load_or_make_hub_keys(tmp_path / "keys", "eu").root()
    assert keys.root_fp


def test_a_ring_that_is_gone_is_not_made_anew(tmp_path):
    load_or_make_hub_keys(tmp_path / "keys", "eu")
    (tmp_path / "keys" / "ring.key").unlink()
    with pytest.raises(Refused, match=r"holds no ring\.key"):
        load_or_make_hub_keys(tmp_path / "keys", "eu")


def test_a_first_start_that_died_leaves_nothing_behind(tmp_path):
    (tmp_path / ".keys.new").mkdir()
    (tmp_path / ".keys.new" / "ring.key").write_text("half")
    load_or_make_hub_keys(tmp_path / "keys", "eu")
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_nothing_secret_is_in_repr(tmp_path):
    keys = load_or_make_hub_keys(tmp_path / "keys", "eu", entropy=lambda size: b"\x5a" * size)
    assert "5a5a5a5a" not in repr(keys)
    assert "ZZZZ" not in repr(keys)


# -- membership ----------------------------------------------------------------------------


def founded(path):
    keys = load_or_make_hub_keys(path / "keys", "eu")
    store = RegisterStore.open(path / "register", keys.root_fp)
    found(keys, HUB, store, urls=["https://h:1"], tls_sha256=bytes(32), name="h1")
    return keys, store


def test_founding_twice_changes_nothing(tmp_path):
    keys, store = founded(tmp_path)
    digest = store.register.digest()
    found(keys, HUB, store, urls=["https://h:1"], tls_sha256=bytes(32))
    assert store.register.digest() == digest
    assert store.register.member(HUB.node_id).roles == {"hub"}
    assert store.register.hubs()[0].urls == ("https://h:1",)
    assert store.register.hubs()[0].region == "eu"


def test_a_hub_that_moved_says_so_in_a_new_version(tmp_path):
    keys, store = founded(tmp_path)
    announce(keys, HUB, store, urls=["https://h:2"])
    assert store.register.hubs()[0].urls == ("https://h:2",)
    announce(keys, HUB, store, urls=["https://h:1"], tls_sha256=bytes(32))
    assert store.register.hubs()[0].urls == ("https://h:1",)


def test_members_come_and_go_and_revoked_is_for_good(tmp_path):
    keys, store = founded(tmp_path)
    who = identity("n1")
    admit(keys, store, who.public, site="lab", roles=frozenset({"node"}), name="edge")
    version = store.version
    admit(keys, store, who.public, site="lab", roles=frozenset({"node"}))
    assert store.version == version
    set_status(Voice(keys.membership), store, who.node_id, "suspended")
    set_status(Voice(keys.membership), store, who.node_id, "member")
    assert store.register.active(who.node_id)
    assert store.register.member(who.node_id).name == "edge"
    set_status(
        Voice(keys.membership),
        store,
        who.node_id,
        "revoked",
        heads={"site:lab": (1, 9, b"r" * 32)},
    )
    assert store.register.member(who.node_id).heads == {"site:lab": (1, 9, b"r" * 32)}
    with pytest.raises(Refused, match="for good"):
        set_status(Voice(keys.membership), store, who.node_id, "member")
    with pytest.raises(Refused, match="for good"):
        admit(keys, store, who.public, site="lab", roles=frozenset({"node"}))
    with pytest.raises(Refused, match="not in the register"):
        set_status(Voice(keys.membership), store, "x" * 32, "left")
