"""Role keys are replaced by a new trust document: joins, names, orders go by the new ones."""

from dataclasses import replace

import pytest

from mesh.errors import CodecError, Refused
from mesh.hub_keys import HubKeys
from mesh.proto.naming import NameReader, SignedName, open_name, sign_name
from mesh.proto.order import Order, OrderRefused, open_order, order_class, sign_order
from mesh.proto.register import Merged
from mesh.proto.sign import KeySigner
from mesh.proto.trust import OrderKeys, make_trust_document
from mesh.proto.void import with_retired
from tests.support.office import HUB, Office
from tests.support.trust import identity, seed

NOW_MS = 1_800_000_000_000
NAME = SignedName("debian-12", "b3:" + "1" * 64, 1 << 30, "a" * 64, 7)


def new_ring(office: Office) -> HubKeys:
    """Keys of the next generation, in a ring of the same hub."""
    made = {
        name: KeySigner(seed(f"next/{name}")) for name in ("membership", "orders", "assets")
    }
    return replace(office.keys, **made)


def merge_next(office: Office, ring: HubKeys) -> None:
    """Name the new keys alone, as the root does when a ring is replaced."""
    old = office.register.register.trust
    assert old is not None
    both = replace(old, membership=(*old.membership, ring.membership.public))
    made = with_retired(both, [office.keys.membership.public])
    document = make_trust_document(
        office.keys.root(),
        version=made.version,
        membership=made.membership,
        assets=[ring.assets.public],
        orders={"eu": OrderKeys(2, (ring.orders.public,))},
        retired=made.retired,
    )
    assert office.register.merge(document)


async def test_a_hub_with_its_old_ring_admits_nobody_and_with_the_new_one_it_does(tmp_path):
    office = Office(tmp_path)
    text, _ = await office.desk.create_token("lab")
    await office.join(text)
    late, _ = await office.desk.create_token("lab")
    ring = new_ring(office)
    merge_next(office, ring)
    register = office.register.register
    assert register.active(HUB.node_id), "what the old key has signed stands"
    assert register.active(identity("n1").node_id)
    with pytest.raises(Refused, match="does not name this hub's membership key"):
        await office.join(late, "n2")
    office.desk._keys = ring
    result = await office.join(late, "n2")
    assert result.site == "lab"
    member = register.member(identity("n2").node_id)
    assert member is not None
    assert (member.status, member.trust_version) == ("member", 2)
    again, _ = await office.desk.create_token("lab")
    assert (await office.join(again, "n3")).site == "lab"


async def test_names_and_orders_of_the_old_keys_are_refused(tmp_path):
    office = Office(tmp_path)
    ring, root_fp, register = new_ring(office), office.keys.root_fp, office.register.register
    told: list[str] = []
    reader = NameReader(register, lambda name, _: told.append(name))
    old_name = sign_name(office.keys.assets, root_fp, NAME)
    order = Order(
        id="018f0000-0000-7000-8000-000000000000",
        region="eu",
        region_epoch=1,
        site="lab",
        kind="server.power",
        params={"server": "018f0000-0000-7000-8000-000000000001", "on": True},
        author="ops@hub",
        not_after_ms=NOW_MS + 60_000,
        order_class=order_class("server.power", {}, None),
    )
    old_order = sign_order(order, office.keys.orders, root_fp)
    assert reader.read(NAME.name, old_name) == NAME
    assert open_order(old_order, register, NOW_MS, site="lab") == order
    merge_next(office, ring)
    assert reader.read(NAME.name, old_name) is None
    assert told == [NAME.name]
    with pytest.raises(CodecError, match="not signed by an assets key"):
        open_name(old_name, register)
    assert reader.read(NAME.name, sign_name(ring.assets, root_fp, NAME)) == NAME
    with pytest.raises(OrderRefused):
        open_order(old_order, register, NOW_MS, site="lab")
    late = sign_order(replace(order, region_epoch=2), office.keys.orders, root_fp)
    with pytest.raises(OrderRefused):  # the new epoch does not make an old key good
        open_order(late, register, NOW_MS, site="lab")
    fresh = replace(order, region_epoch=2)
    signed = sign_order(fresh, ring.orders, root_fp)
    assert open_order(signed, register, NOW_MS, site="lab") == fresh


def test_merging_the_next_document_twice_changes_nothing(tmp_path):
    office = Office(tmp_path)
    merge_next(office, new_ring(office))
    digest = office.register.register.digest()
    for record in office.register.register.records():
        assert not isinstance(office.register.register.merge(record), Merged)
    assert office.register.register.digest() == digest
