"""What may be ordered in which state, what a plan looks like, what evidence proves."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from node.proto import lifecycle as lc
from node.proto.evidence import missing_proof
from node.proto.first_boot import INFO, first_boot, seal_first_boot
from node.proto.plan import plan
from node.work.agent_work import AgentWork, disks_to_wipe

ASSET = "b3:" + "ab" * 32
DEPLOY = {"server": "s", "asset": ASSET, "image": "demo", "hostname": "web1"}


def server(state: str, **more: Any) -> dict[str, Any]:
    base = {"id": "s", "name": "srv1", "state": state, "cleaned": False, "hold": False}
    return {**base, "bmc": {"url": "http://b"}, "macs": ["m"], **more}


LEGAL = {
    lc.DEPLOY: {"available", "deploying failed", "deploy-wait failed"},
    lc.RELEASE: {
        "available", "active", "deploying failed", "deploy-wait failed", "deleting failed",
        "cleaning failed",
    },
    lc.POWER: set(lc.STATES),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "state"), list(itertools.product(LEGAL, sorted(lc.STATES))))
def test_every_order_in_every_state_is_legal_or_refused_with_a_sentence(
    kind: str, state: str
) -> None:
    refusal = lc.refuse(kind, {"server": "s"}, server(state))
    if state in LEGAL[kind]:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal.startswith(f"srv1 is {state}; ")


ORDERED = {
    lc.DEPLOY: {**DEPLOY, "boot": None}, lc.RELEASE: {}, lc.POWER: {"on": True},
    lc.PASSWORD: {},
}  # fmt: skip


@pytest.mark.parametrize(("kind", "state"), list(itertools.product(ORDERED, sorted(lc.STATES))))
def test_nothing_but_promotion_is_legal_on_a_monitored_server(kind: str, state: str) -> None:
    only = server(state, administration="monitored", cleaned=False, hold=True)
    assert lc.refuse(kind, {"server": "s"}, only) == (
        "srv1 is monitored, so it is never powered, booted or wiped; promote it first:"
        " rackmesh server promote srv1"
    )
    for step in plan(kind, {"server": "s", **ORDERED[kind]}, "srv1", True):
        untouched = step.do in ("fetch",)
        assert (lc.refuse_step(step.do, only) is None) == untouched
        assert lc.refuse_step(step.do, server(state)) is None
    assert lc.refuse_step("a verb of next year", only) is not None


@pytest.mark.parametrize("state", sorted(lc.STATES))
def test_a_monitored_server_is_promoted_when_it_is_active(state: str) -> None:
    only = server(state, administration="monitored", hold=True)
    assert (lc.refuse(lc.PROMOTE, {"server": "s"}, only) is None) == (state == "active")
    assert "managed already" in str(lc.refuse(lc.PROMOTE, {}, server(state)))


@pytest.mark.parametrize("oob", [False, True])
def test_no_step_of_an_adoption_touches_the_server(oob: bool) -> None:
    params = {"inspect": "oob"} if oob else {}
    only = server("adopting", administration="monitored")
    steps = [*plan(lc.ADOPT, params, "srv1", True), *plan(lc.PROMOTE, {}, "srv1", True)]
    assert [step.id for step in steps] == ["inspect" if oob else "record", "promote"]
    for step in steps:
        assert lc.refuse_step(step.do, only) is None
        assert not (step.touches or step.dirties or step.ramdisk or step.net_boot)


def test_two_machines_cannot_have_one_serial_number_or_bmc() -> None:
    mac, other = "52:54:00:00:00:01", "52:54:00:00:00:02"
    known = [server("active", id="a", name="srv1", macs=[mac], serial=None)]
    new = {"machine": other, "name": "srv2", "server": "b"}
    seen = [{"mac": mac, "serial": "CZ 123"}, {"mac": other, "serial": " cz 123 "}]
    assert "serial number cz 123 is that of srv1 already" in str(
        lc.refuse_accept(new, known, seen)
    )
    for none in ("To be filled by O.E.M.", "0000000", "", None, "Default string"):
        alike = [{"mac": mac, "serial": none}, {"mac": other, "serial": none}]
        assert lc.refuse_accept(new, known, alike) is None
    told = {"macs": [other], "name": "srv2", "server": "b", "serial": "CZ 123"}
    assert "serial number" in str(lc.refuse_accept(told, known, seen[:1]))
    assert lc.refuse_accept({**told, "serial": "CZ 124"}, known, seen[:1]) is None
    assert "is already accepted as srv1" in str(
        lc.refuse_accept({**told, "macs": [other, mac]}, known)
    )
    assert lc.refuse_accept({**new, "bmc": {"url": "http://b"}}, known) == (
        "the BMC http://b is that of srv1 already"
    )
    assert "no MAC address" in str(lc.refuse_accept({"name": "x", "server": "b"}, known))
    by_bmc = {"name": "x", "server": "b", "inspect": "oob", "bmc": {"url": "http://c"}}
    assert lc.refuse_accept(by_bmc, known) is None


def test_refusals_say_what_would_be_right() -> None:
    assert lc.refuse(lc.DEPLOY, {}, server("active")) == "srv1 is active; release it first"
    assert lc.refuse(lc.RELEASE, {}, server("available", cleaned=True)) == (
        "srv1 is available and clean; there is nothing to release"
    )
    assert lc.refuse(lc.DEPLOY, {}, server("available", hold=True)) == (
        "srv1 is held; take the hold off first"
    )
    assert lc.refuse(lc.POWER, {}, server("active", bmc=None)) == (
        "srv1 has no BMC: press its power button"
    )
    assert "accept it first" in str(lc.refuse(lc.POWER, {"server": "x"}, None))


def test_accept_refuses_machines_and_names_that_are_taken() -> None:
    mac = "52:54:00:00:00:01"
    known = [server("active", id="a", name="srv1", macs=[mac])]
    new = {"machine": "52-54-00-00-00-02", "name": "srv2", "server": "b"}
    assert lc.refuse_accept(new, known) is None
    assert lc.refuse_accept({**new, "machine": mac}, known) == (
        f"machine {mac} is already accepted as srv1"
    )
    assert "name srv1 is taken" in str(lc.refuse_accept({**new, "name": "srv1"}, known))
    assert "is taken by srv1" in str(lc.refuse_accept({**new, "server": "a"}, known))
    assert lc.refuse_accept({**new, "server": "a", "machine": mac}, known) is None  # again
    assert "is not a MAC" in str(lc.refuse_accept({**new, "machine": "huh"}, known))


def test_every_unstable_state_has_a_failed_twin_that_leads_somewhere() -> None:
    for state, twin in lc.FAILED_TWIN.items():
        assert lc.legal(state, twin)
        assert lc.TRANSITIONS[twin]
        assert not lc.legal(twin, "available")
        assert not lc.legal(twin, "active")
    assert {s for s in lc.TRANSITIONS if s is not None} == lc.STATES


def test_only_orders_that_lose_data_are_destructive() -> None:
    assert lc.destructive(lc.RELEASE, {}, server("active"))
    assert lc.destructive(lc.DEPLOY, {}, server("available"))
    assert lc.destructive(lc.DEPLOY, {}, None)
    assert not lc.destructive(lc.DEPLOY, {}, server("available", cleaned=True))
    assert not lc.destructive(lc.DEPLOY, {"boot": {"kind": "live"}}, server("available"))
    assert not lc.destructive(lc.POWER, {}, None)
    assert not lc.destructive(lc.ACCEPT, {}, None)


NAMES = {
    (lc.ACCEPT, True): ["record server", "inspect"],
    (lc.DEPLOY, True): [
        "fetch image", "power off", "boot from network", "power on", "ramdisk reports",
        "write image", "first-boot data", "boot from disk", "restart: off", "restart: on",
        "phone-in",
    ],
    (lc.DEPLOY, False): [
        "fetch image", "ramdisk reports", "write image", "first-boot data", "restart",
        "phone-in",
    ],
    (lc.RELEASE, True): [
        "power off", "boot from network", "power on", "ramdisk reports", "wipe disks",
        "power off",
    ],
    (lc.RELEASE, False): ["ramdisk reports", "wipe disks", "power off"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "bmc"), list(NAMES))
def test_plans_are_as_the_contract_has_them(kind: str, bmc: bool) -> None:
    steps = plan(kind, {**DEPLOY, "on": True}, "srv1", bmc)
    assert [step.name for step in steps] == NAMES[kind, bmc]
    ids = [step.id for step in steps]
    assert len(set(ids)) == len(ids)
    for before, step in itertools.pairwise(steps):
        assert step.after == (before.id,)
    for step in steps:
        assert step.redo is None or ids.index(step.redo) <= ids.index(step.id)
        assert step.do not in ("power", "boot") or bmc
    assert [step.id for step in steps if step.ramdisk] == [
        name for name in ("power-on", "ramdisk", "write", "first-boot", "wipe") if name in ids
    ]


def test_an_order_to_power_is_one_step() -> None:
    (step,) = plan(lc.POWER, {"on": False}, "srv1", True)
    assert (step.name, step.kind) == ("power off", "set")


def test_evidence_must_prove_the_whole_work() -> None:
    wrote = {"bytes": 10, "sha256": "aa"}
    assert missing_proof("write_image", "srv1", wrote, 10, "aa") is None
    assert "reads back as sha256 aa, but the image has bb" in str(
        missing_proof("write_image", "srv1", wrote, 10, "bb")
    )
    assert "wrote 10 bytes of an image of 11" in str(
        missing_proof("write_image", "srv1", wrote, 11, "aa")
    )
    wiped = {"bytes": 10, "verified_bytes": 10, "nonzero": 0}
    assert missing_proof("wipe", "srv1", wiped, None, None) is None
    for wrong in (
        {"nonzero": 1},
        {"nonzero": None},
        {"nonzero": False},
        {"verified_bytes": 9},
        {"bytes": 0, "verified_bytes": 0},
    ):
        assert missing_proof("wipe", "srv1", {**wiped, **wrong}, None, None) is not None
    assert missing_proof("first_boot", "srv1", {"cidata": "raw"}, None, None) is None
    assert missing_proof("first_boot", "srv1", {}, None, None) is not None
    assert missing_proof("reboot", "srv1", {}, None, None) is None


def test_a_release_wipes_every_writable_disk() -> None:
    two = {"disks": [{"serial": "a"}, {"serial": "b"}, {"serial": "usb", "fixed": False}]}
    assert list(disks_to_wipe(two)) == [{"serial": "a"}, {"serial": "b"}]
    assert list(disks_to_wipe({"disks": [{"serial": ""}]})) == [{"first": True}]
    assert list(disks_to_wipe({})) == [{"first": True}]
    nameless = {"disks": [{"serial": ""}, {"serial": ""}]}  # the agent will refuse the second
    assert list(disks_to_wipe(nameless)) == [{"first": True}, {"serial": ""}]


def test_first_boot_data_is_yaml_that_no_order_can_break_out_of() -> None:
    urls = ["http://10.0.0.1:8470/phone/v1/c", "http://10.0.0.2:8470/phone/v1/c"]
    params = {**DEPLOY, "ssh_keys": ['ssh-ed25519 A "x"\n- evil: 1'], "hostname": "web1"}
    data = first_boot(params, "s", 2, urls)
    assert data["user_data"].startswith("#cloud-config\n")
    user = yaml.safe_load(data["user_data"])
    assert user["hostname"] == "web1"
    assert user["ssh_authorized_keys"] == ['ssh-ed25519 A "x"\n- evil: 1']
    assert user["phone_home"]["url"] == urls[0]
    assert yaml.safe_load(data["meta_data"]) == {
        "instance-id": "s-2", "local-hostname": "web1", "rackmesh-phone-in": urls,
    }  # fmt: skip
    own = first_boot({**params, "user_data": "#!/bin/sh\ntrue\n"}, "s", 2, urls)
    assert own["user_data"] == "#!/bin/sh\ntrue\n"
    assert own["meta_data"] == data["meta_data"]


def test_first_boot_data_opens_only_in_its_session() -> None:
    key = X25519PrivateKey.generate()
    blob = seal_first_boot(key.public_key().public_bytes_raw(), "s1", {"user_data": "x"})
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(blob, key, info=INFO + b"s1") == b'{"user_data": "x"}'
    with pytest.raises(InvalidTag):
        suite.decrypt(blob, key, info=INFO + b"s2")


def test_a_wipe_is_refused_while_the_bound_machine_has_named_no_disks() -> None:
    wipe = next(s for s in plan(lc.RELEASE, {"server": "s"}, "srv1", True) if s.id == "wipe")
    job = {"server_name": "srv1", "attempt": 1, "params": {}, "steps": []}
    assert AgentWork(wipe, job, {}, None, 1).refusal == (
        "srv1 has not named its disks in this job; retry the job"
    )
    many = AgentWork(wipe, job, {}, {"disks": [], "disks_cut": 80}, 1)
    assert many.refusal == "srv1 has 80 disks, more than can be wiped in one job"
    one = AgentWork(wipe, job, {}, {"disks": [{"serial": "D1"}], "disks_cut": None}, 1)
    assert (one.refusal, one.command.args) == (None, {"disk": {"serial": "D1"}})
