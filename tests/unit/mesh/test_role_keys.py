"""How the root comes to name a hub's keys, and takes them back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import CodecError, Refused
from mesh.proto.register import Ignored, Merged
from mesh.proto.role_keys import (
    RoleKeys,
    make_role_keys_record,
    open_role_keys_record,
    sign_document,
    with_keys,
    without_keys,
)
from mesh.proto.sign import KeySigner
from mesh.proto.trust import (
    KEYS_PER_ROLE_MAX,
    REGIONS_MAX,
    OrderKeys,
    Retired,
    open_trust_document,
)
from tests.support.trust import Org, identity, seed

HUB = identity("second")
OTHER = identity("third")


def keys_of(label: str, hub: str = HUB.node_id, region: str = "us") -> RoleKeys:
    public = [KeySigner(seed(f"{label}/{name}")).public for name in ("m", "o", "a")]
    return RoleKeys(hub, region, *public)


def test_a_record_of_keys_says_whose_they_are():
    org, keys = Org(), keys_of("second")
    record = make_role_keys_record(HUB.signer, org.root_fp, keys)
    assert open_role_keys_record(record, org.root_fp) == keys


def test_a_record_of_another_organisation_or_with_a_flipped_bit_is_refused():
    org, keys = Org(), keys_of("second")
    record = make_role_keys_record(HUB.signer, org.root_fp, keys)
    with pytest.raises(CodecError):
        open_role_keys_record(record, Org("other").root_fp)
    for at in range(0, len(record), 7):
        broken = bytearray(record)
        broken[at] ^= 1
        try:
            found = open_role_keys_record(bytes(broken), org.root_fp)
        except CodecError:
            continue
        assert found == keys, "only the names of the envelope may be spelled otherwise"


@given(st.binary(max_size=400))
def test_garbage_never_raises_anything_else(data: bytes):
    with pytest.raises(CodecError):
        open_role_keys_record(data, Org().root_fp)


def test_the_next_document_names_the_hub_too_and_keeps_the_rest():
    org, keys = Org(), keys_of("second")
    before = open_trust_document(org.trust, org.root_fp)
    assert not keys.named_in(before)
    made = open_trust_document(sign_document(org.root, with_keys(before, keys)), org.root_fp)
    assert made.version == before.version + 1
    assert keys.named_in(made)
    assert made.membership == (*before.membership, keys.membership)
    assert made.orders == {**before.orders, "us": OrderKeys(1, (keys.orders,))}
    assert isinstance(org.register.merge(sign_document(org.root, made)), Merged)
    with pytest.raises(Refused, match="named already"):
        with_keys(made, keys)


def test_a_hub_of_a_known_region_joins_its_epoch():
    org = Org()
    before = open_trust_document(org.trust_document(4, epoch=7), org.root_fp)
    made = with_keys(before, keys_of("second", region="eu"))
    assert made.orders["eu"].epoch == 7
    assert len(made.orders["eu"].keys) == 2


def test_keys_are_taken_back_and_the_region_with_them():
    org, keys = Org(), keys_of("second")
    before = open_trust_document(org.trust, org.root_fp)
    both = with_keys(before, keys)
    made = without_keys(both, keys.all)
    retired = {keys.membership: Retired("", 2)}
    assert made == replace(before, version=3, retired=retired), "whom it admitted stays"
    assert open_trust_document(sign_document(org.root, made), org.root_fp) == made
    with pytest.raises(Refused, match="no such key"):
        without_keys(made, keys.all)


def test_the_last_key_of_a_role_stays():
    org = Org()
    trust = open_trust_document(org.trust, org.root_fp)
    for key in (org.membership.public, org.assets.public, org.orders.public):
        with pytest.raises(Refused, match="last keys of a role"):
            without_keys(trust, [key])


def test_full_roles_and_regions_are_refused_with_what_to_do():
    trust = open_trust_document(Org().trust, Org().root_fp)
    for number in range(KEYS_PER_ROLE_MAX - 1):
        trust = with_keys(trust, keys_of(f"hub{number}", region="eu"))
    with pytest.raises(Refused, match="void those of a hub that is gone"):
        with_keys(trust, keys_of("late", region="eu"))
    regions = {f"r{number}": OrderKeys(1, (bytes(32),)) for number in range(REGIONS_MAX)}
    with pytest.raises(Refused, match="regions already"):
        with_keys(replace(trust, orders=regions), keys_of("late", region="late"))


def test_another_root_signs_nothing_here():
    org = Org()
    trust = with_keys(open_trust_document(org.trust, org.root_fp), keys_of("second"))
    with pytest.raises(Refused, match="root key of organisation"):
        sign_document(Org("other").root, trust)


def test_an_older_document_that_comes_later_changes_nothing():
    org, keys = Org(), keys_of("second")
    trust = open_trust_document(org.trust, org.root_fp)
    org.register.merge(sign_document(org.root, with_keys(trust, keys)))
    assert isinstance(org.register.merge(org.trust), Ignored)
    assert keys.named_in(org.register.trust)
