"""Secrets of devices: sealed to a site's nodes, with a ledger of who could read them."""

import pytest

from mesh.errors import Refused
from mesh.proto.tables import (
    HUBS,
    SECRET,
    SECRET_COPY,
    SECRET_INDEX,
    pair_scope,
    site_scope,
)
from mesh.proto.trust import REVOKED, SUSPENDED, make_key_record
from mesh.secrets import (
    Readable,
    copy_for,
    copy_key,
    exposed_secrets,
    note_released,
    read_secret,
    set_secret,
)
from tests.support.rows import RowStore, World
from tests.support.trust import Org, identity

PASSWORD = b"calvin-and-hobbes"


class Fleet:
    """A hub and three nodes, two of them of the site ``lab``."""

    def __init__(self) -> None:
        self.org, self.world = Org(), World()
        self.hub = self.org.admit_hub()
        for label, site in (("n1", "lab"), ("n2", "lab"), ("far", "far")):
            self.org.admit(label, site)
        self.store = RowStore(self.world, self.hub.node_id, now_ms=77)

    def set(self, secret_id="bmc-1", plaintext=PASSWORD, site="lab"):
        return set_secret(self.store, self.org.register, secret_id, "bmc", plaintext, site=site)

    def read(self, label, secret_id="bmc-1"):
        who = identity(label)
        store = RowStore(self.world, who.node_id)
        return read_secret(store, self.org.register, who, secret_id)


def ids(*labels) -> list[str]:
    return sorted(identity(label).node_id for label in labels)


def test_every_active_node_of_the_site_and_nobody_else_can_read_it():
    fleet = Fleet()
    fleet.org.register.merge(fleet.org.roster(identity("n2"), status=SUSPENDED, version=2))
    released = fleet.set()
    assert (released.version, list(released.nodes)) == (1, ids("n1"))
    assert fleet.read("n1") == PASSWORD
    for label in ("n2", "far", "hub"):
        with pytest.raises(Refused, match="has no secret 'bmc-1'"):
            fleet.read(label)


def test_the_ledger_remembers_everybody_who_could_ever_read_it():
    fleet = Fleet()
    fleet.set()
    fleet.org.register.merge(fleet.org.roster(identity("n2"), status=REVOKED, version=2))
    fleet.org.admit("n3")
    assert fleet.set(plaintext=b"new").version == 2
    entry = fleet.store.get(HUBS, SECRET_INDEX, "bmc-1").body
    assert entry["released"] == ids("n1", "n2", "n3")
    assert (entry["site"], entry["kind"], entry["changed_ms"]) == ("lab", "bmc", 77)
    assert exposed_secrets(fleet.store, identity("n2").node_id) == ["bmc-1"]
    assert exposed_secrets(fleet.store, identity("far").node_id) == []
    assert fleet.read("n3") == b"new"


def test_a_sealed_row_moved_to_another_secret_or_version_does_not_open():
    fleet = Fleet()
    fleet.set()
    scope = pair_scope(identity("n1").node_id)
    body = fleet.store.get(scope, SECRET, "bmc-1").body
    fleet.store.put(scope, SECRET, "bmc-2", body)
    fleet.store.put(scope, SECRET, "bmc-1", {**body, "version": 9})
    for secret_id in ("bmc-1", "bmc-2"):
        with pytest.raises(Refused, match="does not open"):
            fleet.read("n1", secret_id)


def test_a_secret_for_an_older_key_says_to_set_it_again():
    fleet = Fleet()
    fleet.org.register.merge(make_key_record(identity("n1"), identity("x").kem_public, 2))
    fleet.set()
    with pytest.raises(Refused, match="set it again"):
        fleet.read("n1")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"secret_id": "a b"}, "no name"),
        ({"plaintext": b""}, "1 to"),
        ({"plaintext": bytes(20_000)}, "1 to"),
        ({"site": "empty"}, "no node that could keep"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(how, says):
    with pytest.raises(Refused, match=says):
        Fleet().set(**how)


def test_a_secrets_id_belongs_to_one_site():
    fleet = Fleet()
    fleet.set()
    with pytest.raises(Refused, match="belongs to site lab"):
        fleet.set(site="far")


def test_the_plaintext_is_in_no_row():
    fleet = Fleet()
    fleet.set()
    assert not any(PASSWORD.decode() in repr(row) for row in fleet.world.rows.values())


@pytest.mark.parametrize("body", [{}, {"version": 1}, {"version": "1", "kem_epoch": 1},
                                  {"version": 1, "kem_epoch": 1, "sealed": b"x"}])  # fmt: skip
def test_a_garbage_row_is_one_sentence(body):
    fleet = Fleet()
    fleet.store.put(pair_scope(identity("n1").node_id), SECRET, "bmc-1", {"id": "x", **body})
    with pytest.raises(Refused, match=r"does not open|has no secret"):
        fleet.read("n1")


def test_a_node_knows_which_secrets_it_can_open_and_tries_a_row_once():
    fleet, who = Fleet(), identity("n1")
    fleet.set("bmc-1")
    fleet.set("far-1", site="far")
    store = RowStore(fleet.world, who.node_id)
    readable = Readable(store, fleet.org.register, who)
    assert readable.versions() == {"bmc-1": 1}
    row = fleet.store.get(pair_scope(who.node_id), SECRET, "bmc-1").body
    assert readable.versions() == {"bmc-1": 1}
    fleet.store.put(pair_scope(who.node_id), SECRET, "bmc-1", {**row, "sealed": b"x" * 64})
    assert readable.versions() == {}
    later = fleet.org.admit("n3")
    assert Readable(store, fleet.org.register, later).versions() == {}


def hand_on(fleet, giver, taker, secret_id="bmc-1"):
    who, node = identity(giver), identity(taker).node_id
    store = RowStore(fleet.world, who.node_id)
    body = copy_for(store, fleet.org.register, who, node, secret_id)
    store.put(site_scope("lab"), SECRET_COPY, copy_key(node, secret_id), body)
    return body


def test_a_node_hands_a_secret_on_to_one_that_joined_later():
    fleet = Fleet()
    fleet.set()
    fleet.org.admit("late", "lab")
    with pytest.raises(Refused, match="has no secret"):
        fleet.read("late")
    body = hand_on(fleet, "n1", "late")
    assert PASSWORD not in repr(body).encode()
    assert fleet.read("late") == PASSWORD
    late = identity("late")
    readable = Readable(RowStore(fleet.world, late.node_id), fleet.org.register, late)
    assert readable.versions() == {"bmc-1": 1}
    fleet.org.admit("later", "lab")
    hand_on(fleet, "late", "later")
    assert fleet.read("later") == PASSWORD, "whoever can open it can hand it on"


def test_the_newest_version_counts_wherever_it_stands():
    fleet = Fleet()
    fleet.set()
    fleet.org.admit("late", "lab")
    hand_on(fleet, "n1", "late")
    fleet.set(plaintext=b"new")
    assert fleet.read("late") == b"new", "set again: the copy is out of date"
    hand_on(fleet, "n1", "late")
    assert fleet.read("late") == b"new"


def test_a_copy_for_another_node_or_of_garbage_opens_nothing():
    fleet = Fleet()
    fleet.set()
    for label in ("late", "other"):
        fleet.org.admit(label, "lab")
    body = hand_on(fleet, "n1", "late")
    store, other = RowStore(fleet.world, identity("n1").node_id), identity("other").node_id
    reader = RowStore(fleet.world, other)
    readable = Readable(reader, fleet.org.register, identity("other"))
    for wrong in (
        body, {**body, "sealed": b"x"}, {"version": "2"}, {**body, "sealed": [[]]},
        {**body, "version": {}}, {**body, "kem_epoch": None}, {**body, "version": 1 << 70},
    ):  # fmt: skip
        store.put(site_scope("lab"), SECRET_COPY, copy_key(other, "bmc-1"), wrong)
        with pytest.raises(Refused, match=r"does not open|has no secret"):
            fleet.read("other")
        assert readable.versions() == {}
    with pytest.raises(Refused, match="has no secret"):
        hand_on(fleet, "other", "late", "bmc-2")


def test_the_ledger_notes_who_was_handed_a_secret_of_that_site():
    fleet = Fleet()
    fleet.set()
    late = identity("late").node_id
    note_released(fleet.store, "bmc-1", "far", late)
    assert exposed_secrets(fleet.store, late) == []
    note_released(fleet.store, "bmc-1", "lab", late)
    note_released(fleet.store, "unknown", "lab", late)
    assert exposed_secrets(fleet.store, late) == ["bmc-1"]
