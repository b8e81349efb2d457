"""When nothing of a dead runner can reach a device any more (node/proto/fenced.py)."""

from node.proto.fenced import fenced
from node.proto.job import new_steps
from node.proto.plan import plan

URL = "https://10.0.0.9"
SERVER = {"id": "s", "bmc": {"url": URL, "secret": "bmc"}}
PARAMS = {"image": "os", "asset": "b3:" + "ab" * 32, "hostname": "web1"}
PLAN = plan("server.deploy", PARAMS, "web1", bmc=True)


def job(**more):
    return {"bmc": True, "params": PARAMS, "steps": new_steps(PLAN), **more}


def begun(name):
    row = job()
    entry = next(entry for entry in row["steps"] if entry["id"] == name)
    entry.update(state="running", attempts=1)
    return row


def test_a_device_that_shuts_others_out_is_fenced_by_the_address_where_that_was_seen():
    assert fenced(begun("power-off") | {"fence": URL}, SERVER, PLAN, 5)
    assert fenced(begun("power-off"), {**SERVER, "fence": URL}, PLAN, 5)
    assert not fenced(begun("power-off") | {"fence": "https://10.0.0.8"}, SERVER, PLAN, 2)


def test_a_job_that_has_no_device_needs_no_fence():
    assert fenced(begun("power-off"), {"id": "s", "bmc": None}, PLAN, 5)


def test_before_the_first_order_to_a_device_nothing_is_under_way_in_a_small_site():
    assert fenced(begun("fetch"), SERVER, PLAN, 3)
    assert not fenced(begun("power-off"), SERVER, PLAN, 3)
    assert not fenced(begun("fetch"), SERVER, PLAN, 4)
