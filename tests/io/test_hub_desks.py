"""Orders, assets, secrets over a real mesh store: what is signed, what repeats, what stays."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import trio

from hub.desks import SecretDesk, VerdictDesk
from hub.errors import BadRequest, Conflict, NotFound
from hub.store import WAITING
from mesh.answers import Answers
from mesh.errors import Refused
from mesh.host.clock import FixedClock
from mesh.proto import tables
from mesh.proto.naming import open_name
from mesh.proto.order import open_order
from mesh.rest.calls import Call, given, read_call
from mesh.rest.operations import OPERATIONS
from mesh.rest.problems import RequestProblem
from mesh.store import Tx
from tests.support.hub_office import MAC, SERVER, SITE, office, pieces, said


async def test_an_order_is_signed_so_that_the_site_can_check_it_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        accepted = await at.orders.submit(
            {"kind": "server.power", "server": "web-1", "params": {"on": True}}, "admin"
        )
        row = at.store.get(SITE, tables.ORDER, accepted["order"])
        assert row is not None
        order = open_order(row.body["signed"], at.org.register, 0, site="lab")
        assert (order.kind, order.author) == ("server.power", "admin@hub")
        assert order.params == {"server": SERVER, "on": True}
        assert accepted["job"] == accepted["order"] == order.id


async def test_an_order_that_the_site_would_refuse_is_refused_at_the_hub(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as at:
        with pytest.raises(
            RequestProblem, match="available and clean; there is nothing to release"
        ):
            await at.orders.submit({"kind": "server.release", "server": "web-1"}, "admin")
        assert at.store.rows(SITE, tables.ORDER) == []


async def test_who_gave_an_order_finds_its_job_at_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        accepted = await at.orders.submit(
            {"kind": "server.power", "server": "web-1", "params": {"on": True}}, "admin"
        )
        await at.ingest.read_all()
        (job,) = at.reports.find("job", accepted["job"])
        assert (job["state"], job["server_name"]) == ("queued", "web-1")
        assert job["waits_for"] == "waits for a node of site lab to take it up"
        await at.put(SITE, tables.JOB, accepted["job"], state="running", kind="server.power")
        (job,) = at.reports.find("job", accepted["job"])
        assert job["state"] == "running"


async def test_a_cancel_that_waits_for_its_runner_is_shown_as_a_waiting_job(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as at:
        job = "01890000-0000-7000-8000-0000000000aa"
        await at.put(
            SITE, tables.JOB, job, id=job, state="running", kind="server.power", runner="n9",
            server=SERVER, site="lab",
        )  # fmt: skip
        accepted = await at.orders.submit({"kind": "job.cancel", "job": job}, "admin")
        await at.ingest.read_all()
        (verb,) = at.reports.find("job", accepted["order"])
        assert (verb["kind"], verb["state"], verb["server_name"]) == (
            "job.cancel", "queued", "web-1",
        )  # fmt: skip
        assert verb["waits_for"] == f"waits for the node that runs job {job} to take it up"
        assert verb["not_after_ms"] > 0


def call(operation: str, body: Any, key: str | None, who: str = "admin", **parts: str) -> Call:
    return read_call(OPERATIONS[operation], who, parts, {}, json.dumps(body).encode(), key)


async def test_a_repeated_key_gives_the_same_order_and_another_request_is_refused(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as at:
        memory = Answers(at.store.write, FixedClock())

        async def order(asked: Call) -> Any:
            return await at.orders.submit(given(asked.body), asked.who, asked.keep)

        request = {"kind": "server.power", "server": "web-1", "params": {"on": True}}
        first = await memory.answer(call("createOrder", request, "k1"), order)
        inner = {**request, "idempotency_key": "k1"}
        anew = Answers(at.store.write, FixedClock())
        for again in (memory, anew):  # also after a restart
            assert await again.answer(call("createOrder", inner, None), order) == first
        assert len(at.store.rows(SITE, tables.ORDER)) == 1
        other = {**request, "params": {"on": False}}
        with pytest.raises(RequestProblem, match="another request") as caught:
            await memory.answer(call("createOrder", other, "k1"), order)
        assert caught.value.code == "key-reused"
        await memory.answer(call("createOrder", other, "k1", "somebody else"), order)
        assert len(at.store.rows(SITE, tables.ORDER)) == 2


async def test_a_request_that_failed_may_be_repeated_under_its_key(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        memory = Answers(at.store.write, FixedClock())

        async def order(asked: Call) -> Any:
            return await at.orders.submit(given(asked.body), asked.who, asked.keep)

        release = call("createOrder", {"kind": "server.release", "server": "web-1"}, "k1")
        with pytest.raises(RequestProblem, match="nothing to release"):
            await memory.answer(release, order)
        await at.put(
            SITE, tables.SERVER, SERVER, id=SERVER, name="web-1", site="lab", macs=[MAC],
            state="active", cleaned=True, bmc=None,
        )  # fmt: skip
        assert (await memory.answer(release, order))["item"]["server"] == SERVER


async def test_the_same_key_twice_at_once_is_carried_out_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        memory = Answers(at.store.write, FixedClock())
        entered, go_on = trio.Event(), trio.Event()

        async def slow(asked: Call) -> Any:
            entered.set()
            await go_on.wait()
            return {"name": "x"}

        declare = call("declareAsset", {"name": "x"}, "k1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.answer, declare, slow)
            await entered.wait()
            with pytest.raises(RequestProblem, match="being carried out now"):
                await memory.answer(declare, slow)
            go_on.set()


async def test_an_answer_with_a_secret_is_repeated_but_never_written_down(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as at:
        memory = Answers(at.store.write, FixedClock())

        async def make(_asked: Call) -> Any:
            await trio.lowlevel.checkpoint()
            return {"id": "t1", "token": "canary-text"}

        asked = call("createToken", {"site": "lab"}, "k1")
        first = await memory.answer(asked, make)
        assert await memory.answer(asked, make) == first
        assert first["item"]["token"] == "canary-text"
        with pytest.raises(RequestProblem, match="held a secret and is not kept"):
            await Answers(at.store.write, FixedClock()).answer(asked, make)
    assert not any(b"canary-text" in path.read_bytes() for path in tmp_path.glob("state.db*"))


async def test_a_group_is_one_id_under_the_signature_of_every_order(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        for n, state in enumerate(("active", "active", "available"), 2):
            key = f"01890000-0000-7000-8000-00000000000{n}"
            await at.put(
                SITE, tables.SERVER, key, id=key, name=f"web-{n}", site="lab", macs=[],
                state=state, cleaned=True, bmc=None,
            )  # fmt: skip
        release = {"kind": "server.release", "filter": "site:lab name:web-*"}
        with pytest.raises(RequestProblem, match="4 servers are meant by now, not 3"):
            await at.orders.submit_group({**release, "expect": 3}, "admin")
        made = await at.orders.submit_group({**release, "expect": 4}, "admin")
        assert [order["server_name"] for order in made["orders"]] == ["web-2", "web-3"]
        assert [refused["server_name"] for refused in made["refused"]] == ["web-1", "web-4"]
        assert "nothing to release" in made["refused"][0]["detail"]
        assert made["destructive"] == 2
        rows = at.store.rows(SITE, tables.ORDER)
        signed = [open_order(row.body["signed"], at.org.register, 0) for row in rows]
        assert {order.group for order in signed} == {made["group"]}
        await at.ingest.read_all()
        assert {job["server_name"] for job in at.reports.grouped(made["group"])} == {
            "web-2", "web-3",
        }  # fmt: skip
        told = await at.orders.tell_group(made["group"], "job.cancel", "admin")
        assert sorted(told["jobs"]) == sorted(order["job"] for order in made["orders"])
        with pytest.raises(RequestProblem, match="none has failed or is parked"):
            await at.orders.tell_group(made["group"], "job.retry", "admin")
        with pytest.raises(NotFound, match="there is no group 'x'"):
            await at.orders.tell_group("x", "job.retry", "admin")


async def test_a_group_of_a_thousand_servers_is_one_write(tmp_path: Path) -> None:
    async with office(tmp_path) as at:

        def write(tx: Tx) -> None:
            for n in range(1001):
                key = f"01890000-0000-7000-8000-0000000a{n:04d}"
                bmc = {"url": "http://b/"}
                body = {"id": key, "name": f"many-{n}", "state": "active", "bmc": bmc}
                tx.put(SITE, tables.SERVER, key, body)

        await at.store.write(write)
        await at.ingest.read_all()
        power = {"kind": "server.power", "params": {"on": True}}
        with pytest.raises(RequestProblem, match="a group has at most 1000 servers"):
            await at.orders.submit_group({**power, "filter": "name:many-*"}, "admin")
        some = {**power, "filter": "name:many-* name:!many-1000"}
        made = await at.orders.submit_group(some, "admin")
        assert len(made["orders"]) == len(at.store.rows(SITE, tables.ORDER)) == 1000


async def test_an_order_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        with pytest.raises(RequestProblem, match="nobody"):
            await at.orders.submit({"kind": "server.release", "server": "nobody"}, "a")
        with pytest.raises(RequestProblem, match="no order"):
            await at.orders.submit({"kind": "server.explode"}, "a")
        deploy = {"kind": "server.deploy", "server": "web-1", "params": {"image": "x"}}
        with pytest.raises(RequestProblem, match="no asset"):
            await at.orders.submit(deploy, "a")
        assert at.store.rows(SITE, tables.ORDER) == []


async def test_an_upload_is_kept_named_and_served_in_chunks(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        content = b"image" * 1000
        with pytest.raises(NotFound, match="register it first"):
            await at.assets.upload("img", pieces(content))
        await at.assets.declare(said("img", None, hashlib.sha256(content).hexdigest(), ["lab"]))
        await at.assets.upload("img", pieces(content[:7], content[7:]))
        row = at.store.get(tables.FLEET, tables.NAME, "img")
        assert row is not None
        named = open_name(row.body["signed"], at.org.register)
        assert named.size == len(content)
        chunk = await at.assets.rpc_handlers()["cache.chunk"](
            "n", {"asset": named.asset, "index": 0}
        )
        assert chunk == content
        accepted = await at.orders.submit(
            {"kind": "server.deploy", "server": "web-1", "params": {"image": "img"}}, "admin"
        )
        order_row = at.store.get(SITE, tables.ORDER, accepted["order"])
        assert order_row is not None
        order = open_order(order_row.body["signed"], at.org.register, 0)
        assert order.params["asset"] == named.asset
        assert order.order_class == "normal", "the server is cleaned"


async def test_an_upload_with_another_hash_is_refused_and_gets_no_name(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.assets.declare(said("img", None, "a" * 64, []))
        with pytest.raises(Conflict):
            await at.assets.upload("img", pieces(b"something else"))
        assert at.store.get(tables.FLEET, tables.NAME, "img") is None


async def test_garbage_from_members_is_refused(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        for handler in at.assets.rpc_handlers().values():
            for body in (None, 7, [], {}, {"asset": "b3:x", "index": 0}, {"asset": 1}):
                with pytest.raises(Refused):
                    await handler("n", body)


async def test_a_claim_becomes_a_signed_name_and_a_second_opinion_an_event(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as at:
        await at.assets.declare(said("img", "https://example.net/img", None, ["lab"]))
        first, second = "a" * 64, "b" * 64
        await at.put(
            tables.FLEET, tables.ASSET, "img", asset="b3:" + first, size=5, sha256=first
        )
        assert await at.assets.sign_claims() == 1
        assert at.assets.names()["img"].asset == "b3:" + first
        assert await at.assets.sign_claims() == 0
        await at.put(
            tables.FLEET, tables.ASSET, "img", asset="b3:" + second, size=5, sha256=second
        )
        before = at.bus.ring.newest
        assert await at.assets.sign_claims() == 0
        assert at.assets.names()["img"].asset == "b3:" + first
        told = at.bus.ring.after(before)
        assert told is not None
        assert told[0].data["conflict"] == second
        assert at.assets.conflicts() == ["img"]
        await at.assets.sign_claims()
        assert at.bus.ring.after(before) == told, "told once"


async def test_a_name_that_stands_for_content_is_not_declared_otherwise(tmp_path: Path) -> None:
    content, url = b"image" * 1000, "https://example.net/img"
    sha256 = hashlib.sha256(content).hexdigest()
    async with office(tmp_path) as at:
        await at.assets.declare(said("img", url, "a" * 64, []))
        await at.assets.declare(said("img", url, None, []))  # not signed yet: a slip is mended
        await at.put(
            tables.FLEET, tables.ASSET, "img", asset="b3:" + sha256, size=5, sha256=sha256
        )
        assert await at.assets.sign_claims() == 1
        for other, declared in (
            ("https://example.net/other", None), (url, "b" * 64), (None, None),
            ("https://example.net/other", "b" * 64),
        ):  # fmt: skip
            with pytest.raises(Conflict, match=f"img stands for sha256 {sha256} already"):
                await at.assets.declare(said("img", other, declared, ["lab"]))
        row = at.store.get(tables.FLEET, tables.REFERENCE, "img")
        assert row is not None
        assert (row.body["url"], row.body["want"]) == (url, [])
        await at.assets.declare(said("img", url, None, ["lab"]))
        mirror = "https://mirror.example.net/img"
        await at.assets.declare(said("img", mirror, sha256.upper(), []))
        row = at.store.get(tables.FLEET, tables.REFERENCE, "img")
        assert row is not None
        assert (row.body["url"], row.body["sha256"]) == (
            "https://mirror.example.net/img", sha256,
        )  # fmt: skip
        assert row.body["want"] == ["lab"]


async def test_an_upload_never_changes_what_a_name_stands_for(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.assets.declare(said("img", None, None, []))
        await at.assets.upload("img", pieces(b"first"))
        named = at.assets.names()["img"]
        with pytest.raises(Conflict, match=named.sha256):
            await at.assets.upload("img", pieces(b"second"))
        await at.assets.declare(said("img", None, None, ["lab"]))
        await at.assets.upload("img", pieces(b"first"))
        assert at.assets.names()["img"] == named


async def test_a_site_that_wants_an_asset_no_more_is_taken_off(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.assets.declare(said("img", "https://example.net/x", None, ["lab"]))
        await at.assets.unwant("img", "lab")
        row = at.store.get(tables.FLEET, tables.REFERENCE, "img")
        assert row is not None and row.body["want"] == []
        with pytest.raises(NotFound, match="does not want"):
            await at.assets.unwant("img", "lab")


async def test_what_no_node_could_fetch_is_no_reference(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        for url in ("file:///etc/passwd", "https://", "http://u:p@host/x", "http://a b", "x"):
            with pytest.raises(BadRequest, match="url"):
                await at.assets.declare(said("img", url, None, []))
        with pytest.raises(BadRequest, match="sha256"):
            await at.assets.declare(said("img", "https://example.net/x", "zz", []))
        with pytest.raises(NotFound, match="no site"):
            await at.assets.want("img", "nowhere")
        with pytest.raises(NotFound, match="no asset"):
            await at.assets.want("img", "lab")


async def test_the_ledger_follows_what_nodes_hand_on(tmp_path: Path) -> None:
    async with office(tmp_path) as at, trio.open_nursery() as nursery:
        desk = SecretDesk(at.store, at.org.register)
        await desk.set("bmc-1", "lab", "bmc", "secret")
        late, far = at.org.admit("late").node_id, at.org.admit("far", "far").node_id
        before = desk.list()[0]["released"]
        for node, secret in ((late, "bmc-1"), (late, "unknown"), (far, "bmc-1")):
            await at.put(SITE, tables.SECRET_COPY, f"{node}/{secret}", version=1)
        nursery.start_soon(desk.run)
        with trio.fail_after(10):
            while desk.list()[0]["released"] == before:
                await at.store.wait_past(at.store.version)
        assert desk.list()[0]["released"] == sorted([*before, late])
        nursery.cancel_scope.cancel()


async def test_a_secret_stands_nowhere_in_plain(tmp_path: Path) -> None:
    canary = "canary-5ac1b7"
    async with office(tmp_path) as at:
        desk = SecretDesk(at.store, at.org.register)
        secret = await desk.set("bmc-1", "lab", "bmc", canary)
        assert (secret["version"], len(secret["released"])) == (1, 1)
        assert canary not in repr(desk.list())
        await at.ingest.read_all()
        with pytest.raises(Refused, match="no node"):
            await desk.set("bmc-2", "nowhere", "bmc", canary)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path


async def test_a_machine_is_put_aside_and_back_for_good(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        mac = "52:54:00:00:00:77"
        await at.put(
            SITE, tables.SIGHTING, mac, mac=mac, first_ms=1, last_ms=2, port="sw1 Gi0/1"
        )
        await at.put(
            SITE, tables.INVENTORY, mac,
            inventory={"system": {"vendor": "Dell", "product": "R640", "serial": "S1"}},
        )  # fmt: skip
        desk = VerdictDesk(at.store, at.reports)
        given = await desk.give("52-54-00-00-00-77", None, True, "ann")
        await at.ingest.read_all()
        (seen,) = at.reports.find("pending", mac)
        assert given == seen
        assert (seen["vendor"], seen["model"], seen["serial"]) == ("Dell", "R640", "S1")
        assert (seen["port"], seen["rejected"], seen["rejected_by"]) == (
            "sw1 Gi0/1",
            True,
            "ann",
        )
        assert at.reports.counts("pending", WAITING) == {}
        await desk.give(mac, "lab", False, "ben")
        await at.ingest.read_all()
        assert at.reports.find("pending", mac)[0]["rejected"] is False
        with pytest.raises(RequestProblem, match="no machine"):
            await desk.give(mac, "elsewhere", True, "ann")
        with pytest.raises(RequestProblem, match="no MAC"):
            await desk.give("all of them", None, True, "ann")
