"""Orders: who may give them, where, until when, and what they may call themselves."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.ids import uuid7
from mesh.proto.order import (
    KINDS,
    Order,
    OrderRefused,
    check_class,
    check_params,
    open_order,
    order_class,
    sign_order,
)
from mesh.proto.sign import sign_record
from mesh.proto.trust import SUSPENDED
from tests.support.trust import Org, identity

NOW_MS = 1_800_000_000_000
ID = uuid7(NOW_MS, bytes(10))
SERVER = uuid7(NOW_MS, b"server-id-")
DEPLOY = {
    "server": SERVER,
    "image": "debian-12",
    "asset": "b3:" + "0" * 64,
    "hostname": "web-1",
    "ssh_keys": ["ssh-ed25519 AAAA me"],
}
GOOD = {
    "server.accept": {
        "machine": "52:54:00:00:00:01",
        "name": "s1",
        "server": SERVER,
        "bmc": None,
    },
    "server.adopt": {
        "macs": ["52:54:00:00:00:01"],
        "name": "s1",
        "server": SERVER,
        "bmc": None,
    },
    "server.promote": {"server": SERVER},
    "server.boot-by": {"server": SERVER, "by": "media"},
    "bmc.scan": {"networks": ["10.0.0.0/24"]},
    "server.deploy": DEPLOY,
    "server.release": {"server": SERVER},
    "server.power": {"server": SERVER, "on": True},
    "server.password": {"server": SERVER},
    "job.cancel": {"job": SERVER},
    "job.retry": {"job": SERVER},
    "job.skip": {"job": SERVER, "reason": "seen to by hand"},
    "job.kill": {"job": SERVER},
    "job.hold": {"job": SERVER},
    "job.unhold": {"job": SERVER},
    "job.confirm": {"job": SERVER, "done": True, "reason": "the LED says so"},
    "job.archive": {"job": SERVER},
    "secret.release": {"node": "a" * 32, "name": "fra1-b"},
}


def an_order(kind="server.power", **changes) -> Order:
    order = Order(
        id=ID,
        region="eu",
        region_epoch=1,
        site="lab",
        kind=kind,
        params=GOOD[kind],
        author="ops@hub",
        not_after_ms=NOW_MS + 60_000,
        order_class=order_class(kind, {}, None),
    )
    return replace(order, **changes)


def opened(org: Org, order: Order, signer=None, **how) -> Order:
    data = sign_order(order, signer or org.orders, org.root_fp)
    return open_order(data, org.register, NOW_MS, **{"site": "lab", **how})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_order_of_the_hub_is_what_was_signed(kind):
    order = an_order(kind)
    assert opened(Org(), order) == order


@pytest.mark.parametrize(
    ("kind", "cleaned", "expected"),
    [
        ("server.release", True, "destructive"),
        ("server.release", None, "destructive"),
        ("server.deploy", False, "destructive"),
        ("server.deploy", None, "destructive"),
        ("server.deploy", True, "normal"),
        ("server.accept", False, "normal"),
        ("server.power", False, "normal"),
        ("job.retry", False, "normal"),
    ],
)
def test_the_class_follows_from_the_body_and_the_servers_state(kind, cleaned, expected):
    assert order_class(kind, GOOD[kind], cleaned) == expected


def test_an_order_that_hides_its_class_is_refused():
    with pytest.raises(OrderRefused, match="would destroy data"):
        opened(Org(), an_order("server.release", order_class="normal"))
    deploy = an_order("server.deploy", order_class="normal")
    assert opened(Org(), deploy) == deploy  # cannot be told before the server is looked at
    assert opened(Org(), deploy, server_cleaned=True) == deploy
    with pytest.raises(OrderRefused, match="would destroy data"):
        opened(Org(), deploy, server_cleaned=False)
    with pytest.raises(OrderRefused, match="would destroy data"):
        check_class(deploy, None)


def test_a_cautious_deploy_is_accepted_and_a_lie_is_not():
    cautious = an_order("server.deploy", order_class="destructive")
    assert opened(Org(), cautious, server_cleaned=True) == cautious
    with pytest.raises(OrderRefused, match="is not"):
        opened(Org(), an_order(order_class="destructive"))


def test_an_order_of_an_older_epoch_is_refused():
    org = Org()
    org.register.merge(org.trust_document(2, epoch=3))
    with pytest.raises(OrderRefused, match="of epoch 2 of region eu, which is in epoch 3"):
        opened(org, an_order(region_epoch=2))
    assert opened(org, an_order(region_epoch=3))
    admitted = sign_order(an_order(region_epoch=2), org.orders, org.root_fp)
    assert open_order(admitted, org.register, None).region_epoch == 2


def test_an_order_for_another_site_is_refused():
    with pytest.raises(OrderRefused, match="is for site far, this is lab"):
        opened(Org(), an_order(site="far"))


def test_an_order_past_its_time_is_refused_but_can_be_read():
    org, order = Org(), an_order(not_after_ms=NOW_MS - 5_000)
    with pytest.raises(OrderRefused, match="ran out of time 5 s ago"):
        opened(org, order)
    data = sign_order(order, org.orders, org.root_fp)
    assert open_order(data, org.register, None) == order


@pytest.mark.parametrize("key", ["membership", "assets", "root"])
def test_another_role_key_gives_no_orders(key):
    org = Org()
    with pytest.raises(OrderRefused, match="gives no orders"):
        opened(org, an_order(), getattr(org, key))


def test_a_key_of_another_region_gives_no_orders_here():
    with pytest.raises(OrderRefused, match="gives no orders"):
        opened(Org(), an_order(region="us"))


def test_another_organisations_order_is_refused():
    org, foreign = Org(), Org("evil")
    data = sign_order(an_order(), foreign.orders, foreign.root_fp)
    with pytest.raises(OrderRefused, match="not an order of this organisation"):
        open_order(data, org.register, NOW_MS)


def test_a_site_operator_gives_orders_for_its_own_site_only():
    org = Org()
    who = org.admit("op", "lab", ("node", "site-operator"))
    order = an_order(region="", region_epoch=0, author=f"1000@{who.node_id}")
    assert opened(org, order, who) == order
    far = replace(order, site="far")
    with pytest.raises(OrderRefused, match="gives no orders for site far"):
        opened(org, far, who, site="far")
    with pytest.raises(OrderRefused, match="author that its signer is not"):
        opened(org, replace(order, author="1000@hub"), who)


def test_a_node_without_the_role_or_suspended_gives_no_orders():
    org = Org()
    plain = org.admit("n1")
    operator = org.admit("op", "lab", ("site-operator",))
    org.register.merge(org.roster(operator, "lab", ("site-operator",), SUSPENDED, version=2))
    for who in (plain, operator, identity("stranger")):
        with pytest.raises(OrderRefused, match="gives no orders"):
            opened(org, an_order(region="", author=f"0@{who.node_id}"), who)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_required_parameter_is_required(kind):
    for missing in GOOD[kind]:
        if missing in ("bmc", "ssh_keys"):
            continue
        params = {key: value for key, value in GOOD[kind].items() if key != missing}
        with pytest.raises(OrderRefused, match=missing):
            check_params(kind, params)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("server.deploy", {"asset": "b3:xyz"}, "asset"),
        ("server.deploy", {"hostname": "a b"}, "hostname"),
        ("server.deploy", {"ssh_keys": ["a\nb"]}, "line break"),
        ("server.deploy", {"user_data": "x" * 40_000}, "user_data"),
        ("server.accept", {"bmc": {"url": "file:///etc/passwd"}}, "bmc.url"),
        (
            "server.accept",
            {"bmc": {"url": "http://root:pw@10.0.0.9/"}},
            "user name or password",
        ),
        ("server.power", {"on": 1}, "on"),
        ("server.accept", {"machine": None}, "machine"),
        ("server.accept", {"machine": None, "inspect": "oob"}, "inspect needs a BMC"),
        ("server.accept", {"inspect": "later"}, "inspect"),
        ("server.adopt", {"macs": []}, "macs"),
        ("server.adopt", {"macs": ["52-54-00-00-00-01"]}, "macs"),
        ("server.adopt", {"ip": "10.0.0.300"}, "ip"),
        ("server.adopt", {"tags": ["a b"]}, "tags"),
        ("server.adopt", {"serial": 7}, "serial"),
        ("bmc.scan", {"networks": ["10.0.0.0/8"]}, "too many"),
        ("bmc.scan", {"networks": ["10.0.0.0/21"] * 17}, "networks"),
        ("bmc.scan", {"networks": ["fe80::/64"]}, "no IPv4 network"),
        ("server.power", {"server": "1"}, "UUIDv7"),
    ],
)
def test_wrong_parameters_get_one_sentence(kind, change, says):
    with pytest.raises(OrderRefused, match=says) as caught:
        check_params(kind, {**GOOD[kind], **change})
    assert "\n" not in str(caught.value)


def test_unknown_parameters_of_a_newer_version_are_kept():
    order = an_order(params={**GOOD["server.power"], "later": 1})
    assert opened(Org(), order).params["later"] == 1


def test_parameters_that_no_row_could_hold_are_refused():
    deep = []
    for _ in range(60):
        deep = [deep]
    for extra in (deep, {b"k": 1}, {"a": {b"k": 1}}, ["x" * 45_000]):
        with pytest.raises(OrderRefused, match="cannot be carried out"):
            check_params("server.power", {**GOOD["server.power"], "later": extra})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_but_a_refusal(data):
    with pytest.raises(OrderRefused):
        open_order(data, Org().register, NOW_MS)


@given(
    st.dictionaries(
        st.sampled_from(["id", "region", "epoch", "site", "do", "params", "author", "class"]),
        JSON,
    ),
    st.sampled_from(sorted(KINDS)),
)
def test_signed_garbage_never_raises_anything_but_a_refusal(body, kind):
    org = Org()
    good = {"id": ID, "region": "eu", "epoch": 1, "site": "lab", "do": kind, "author": "a",
            "not_after_ms": NOW_MS, "class": "normal"}  # fmt: skip
    record = sign_record(org.orders, "order", 1, org.root_fp, {**good, **body})
    with contextlib.suppress(OrderRefused):
        open_order(record, org.register, NOW_MS)


@pytest.mark.parametrize(
    ("changes", "signer", "told"),
    [
        ({"not_after_ms": NOW_MS - 1}, "orders", True),
        ({"region_epoch": 0}, "orders", True),
        ({"order_class": "destructive"}, "orders", True),
        ({"site": "far"}, "orders", False),
        ({"not_after_ms": NOW_MS - 1}, "assets", False),
    ],
)
def test_only_who_may_give_orders_here_is_told_what_became_of_one(changes, signer, told):
    org = Org()
    order = an_order(**changes)
    with pytest.raises(OrderRefused) as caught:
        opened(org, order, getattr(org, signer))
    assert caught.value.order == (order if told else None)
