"""Members are revoked, suspended and resumed: by a hub anywhere, by a site in itself."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.errors import Refused
from mesh.member_desk import MemberDesk, find_member, last_heads
from mesh.membership import Voice
from mesh.proto.relay import CAPABILITY
from mesh.proto.sets import SetId
from mesh.proto.trust import (
    HEADS_MAX,
    MEMBER,
    REVOKED,
    ROSTER,
    SUSPENDED,
    RosterRecord,
    make_roster_record,
    make_trust_document,
    open_roster_record,
    open_trust_document,
)
from mesh.proto.void import with_site_key
from mesh.register_store import RegisterStore
from tests.support.trust import Org, identity

HEAD = SimpleNamespace(scope="site:lab", epoch=7, seq=9, root=b"r" * 16)


class Office:
    """A register on disk, and the desks of a hub and of a site operator's node."""

    def __init__(self, folder: Any) -> None:
        self.org = org = Org()
        self.hub = org.admit_hub()
        self.boss = org.admit("boss", roles=("node", "site-operator"))
        for label, site in (("n1", "lab"), ("n2", "lab"), ("far", "shop")):
            org.register.merge(org.roster(identity(label), site, name=label))
        trust = open_trust_document(org.trust, org.root_fp)
        named = with_site_key(trust, "lab", self.boss.public)
        self.named = make_trust_document(
            org.root, version=named.version, membership=named.membership, assets=named.assets,
            orders=named.orders, site_keys=named.site_keys,
        )  # fmt: skip
        self.store = RegisterStore.open(folder / "register", org.root_fp)
        self.store.merge_all(org.register.records())
        n1 = identity("n1").node_id
        heads: Mapping[Any, Any] = {
            SetId(n1, "site:lab"): SimpleNamespace(head=HEAD),
            SetId("other", "site:lab"): SimpleNamespace(head=HEAD),
        }
        self.by_hub = MemberDesk(
            self.store, self.hub.node_id, Voice(org.membership), lambda: heads,
            lambda node: ["bmc-1"] if node == n1 else [],
        )  # fmt: skip
        self.by_site = MemberDesk(
            self.store, self.boss.node_id, Voice(self.boss.signer, "lab"), lambda: heads,
            lambda node: ["bmc-1"],
        )  # fmt: skip

    def status(self, label: str) -> str:
        member = self.store.register.member(identity(label).node_id)
        assert member is not None
        return member.status


async def test_a_hub_revokes_with_the_last_heads_and_says_what_to_change(tmp_path):
    office = Office(tmp_path)
    done = await office.by_hub.change("revoke", "n1", "ann")
    assert (done.member.status, done.secrets) == (REVOKED, ("bmc-1",))
    assert done.member.heads == {"site:lab": (7, 9, b"r" * 16)}
    again = RegisterStore.open(tmp_path / "register")
    assert not again.register.active(identity("n1").node_id)
    with pytest.raises(Refused, match="it must join anew"):
        await office.by_hub.change("resume", "n1", "ann")
    assert (await office.by_hub.change("revoke", "n1", "ann")).secrets == ("bmc-1",)


async def test_a_suspended_member_comes_back(tmp_path):
    office = Office(tmp_path)
    for verb, status in (("suspend", SUSPENDED), ("resume", MEMBER), ("suspend", SUSPENDED)):
        done = await office.by_hub.change(verb, identity("n1").node_id, "ann")
        assert (done.member.status, done.secrets, done.member.heads) == (status, (), {})


async def test_a_site_ends_its_own_nodes_once_the_root_has_named_its_key(tmp_path):
    office = Office(tmp_path)
    with pytest.raises(Refused, match="does not name this site lab's key"):
        await office.by_site.change("revoke", "n1", "bob")
    office.store.merge(office.named)
    with pytest.raises(Refused, match="was admitted by a hub"):
        await office.by_site.change("suspend", "n1", "bob")
    for other in ("far", office.hub.node_id):
        with pytest.raises(Refused, match="is none of site lab"):
            await office.by_site.change("revoke", other, "bob")
    done = await office.by_site.change("revoke", "n1", "bob")
    assert (done.member.status, done.secrets) == (REVOKED, ("bmc-1",))
    assert office.store.register.admitted_by(identity("n1").node_id) == "lab"
    assert office.status("far") == MEMBER


async def test_a_site_suspends_and_resumes_whom_it_admitted_itself(tmp_path):
    office = Office(tmp_path)
    office.store.merge(office.named)
    own = RosterRecord(identity("own").public, 2, 1, "lab", frozenset({"node"}), name="own")
    office.store.merge(make_roster_record(office.boss.signer, office.org.root_fp, own))
    for verb, status in (("suspend", SUSPENDED), ("resume", MEMBER)):
        await office.by_site.change(verb, "own", "bob")
        assert office.status("own") == status
    await office.by_hub.change("suspend", "own", "ann")
    with pytest.raises(Refused, match="was admitted by a hub"):
        await office.by_site.change("resume", "own", "bob")


async def test_a_node_that_is_no_operator_any_more_changes_nobody(tmp_path):
    office = Office(tmp_path)
    office.store.merge(office.named)
    record = office.org.roster(office.boss, roles=("node",), version=2)
    office.store.merge(record)
    with pytest.raises(Refused, match="no role site-operator"):
        await office.by_site.change("revoke", "n1", "bob")


async def test_a_member_relays_when_it_is_let_and_no_longer(tmp_path):
    office = Office(tmp_path)
    n1 = identity("n1").node_id
    for given in (True, True, False, True):
        done = await office.by_hub.let_relay("n1", "ann", given=given)
        assert (CAPABILITY in done.member.capabilities) == given
    version = done.member.version
    await office.by_hub.let_relay(n1, "ann", given=True)
    kept = RegisterStore.open(tmp_path / "register").register.member(n1)
    assert kept is not None
    assert (kept.capabilities, kept.version) == ({CAPABILITY}, version)
    await office.by_hub.change("suspend", "n1", "ann")
    await office.by_hub.change("resume", "n1", "ann")
    done = await office.by_hub.let_relay("n1", "ann", given=True)
    assert done.member.version == version + 2


async def test_not_everybody_can_be_let_relay_by_everybody(tmp_path):
    office = Office(tmp_path)
    with pytest.raises(Refused, match="hubs always relay"):
        await office.by_hub.let_relay(office.hub.node_id, "ann", given=True)
    with pytest.raises(Refused, match="there is no node"):
        await office.by_hub.let_relay("nobody", "ann", given=True)
    office.store.merge(office.named)
    with pytest.raises(Refused, match="was admitted by a hub"):
        await office.by_site.let_relay("n1", "bob", given=True)
    with pytest.raises(Refused, match="is none of site lab"):
        await office.by_site.let_relay("far", "bob", given=True)
    await office.by_hub.change("revoke", "n1", "ann")
    with pytest.raises(Refused, match="is no member"):
        await office.by_hub.let_relay("n1", "ann", given=True)


async def test_nobody_changes_its_own_membership(tmp_path):
    office = Office(tmp_path)
    with pytest.raises(Refused, match="nobody changes its own membership"):
        await office.by_hub.change("revoke", office.hub.node_id, "ann")


def test_a_name_that_two_nodes_have_is_no_name(tmp_path):
    office = Office(tmp_path)
    register = office.store.register
    assert find_member(register, "n2").node_id == identity("n2").node_id
    with pytest.raises(Refused, match="there is no node 'x'"):
        find_member(register, "x")
    office.store.merge(office.org.roster(identity("twin"), name="n2"))
    with pytest.raises(Refused, match="2 nodes are called 'n2'"):
        find_member(register, "n2")
    ended = office.org.roster(identity("twin"), name="n2", status=REVOKED, version=2)
    office.store.merge(ended)
    assert find_member(register, "n2").node_id == identity("n2").node_id


def test_a_record_with_the_most_heads_can_be_read():
    """A hub writes into every site: what it ends with is bounded, and fits a record."""
    node = "n" * 32
    scopes = [f"pair:{number:032d}" for number in range(HEADS_MAX)] + ["fleet", "site:lab"]
    heads: Any = {
        SetId(node, scope): SimpleNamespace(
            head=SimpleNamespace(scope=scope, epoch=1 << 60, seq=1 << 50, root=bytes(16))
        )
        for scope in scopes
    }
    found = last_heads(heads, node)
    assert len(found) == HEADS_MAX
    assert {"fleet", "site:lab"} <= found.keys()
    org = Org()
    record = RosterRecord(
        identity("h").public, 1, 1, "", frozenset({"hub"}), status=REVOKED, heads=found
    )
    signed = make_roster_record(org.membership, org.root_fp, record)
    assert open_roster_record(signed, org.root_fp)[0] == record
    assert org.register.merge(signed).__class__.__name__ == "Merged"
    assert org.register.record(ROSTER, identity("h").node_id) == signed
