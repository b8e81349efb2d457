"""What a node says of a BMC: read once for many, never with a login that was refused."""

from pathlib import Path
from typing import Any

import pytest
import trio

from drivers.errors import DeviceRefused, DeviceUnreachable
from mesh.errors import Refused
from mesh.proto import tables
from mesh.rest.health_view import ASKED, checked
from node.work import bmc_desk
from tests.support.bmc_words import said
from tests.support.work_site import WorkSite


@pytest.mark.parametrize("what", ASKED)
async def test_each_question_is_answered_with_its_age(tmp_path: Path, what: Any) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        before = site.work.now_ms()
        answer = await site.work.bmcs.read(site.server, what)
    assert site.bmc.reads == [what]
    assert before <= answer["read_ms"] <= site.work.now_ms()
    assert answer["server"] == site.server
    assert answer["node"] == site.node.node_id


async def test_many_who_ask_at_once_read_the_bmc_once(tmp_path: Path) -> None:
    answers: list[Any] = []
    async with WorkSite(tmp_path).running() as site:
        await site.accept()

        async def ask() -> None:
            answers.append(await site.work.bmcs.read(site.server, "sensors"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
    assert site.bmc.reads == ["sensors"]
    assert all(answer == answers[0] for answer in answers)


async def test_a_refused_login_is_not_tried_again_before_the_secret_changes(
    tmp_path: Path,
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.password = "somebody changed it"
        with pytest.raises(Refused, match="was refused") as first:
            await site.work.bmcs.read(site.server, "sensors")
        assert "not tried again" not in str(first.value)
        site.bmc.password = None  # it would be let in now, but nobody asks
        for what in ASKED:
            with pytest.raises(Refused, match="so that the account is not locked"):
                await site.work.bmcs.read(site.server, what)
        row = site.store.get(site.scope, tables.SERVER, site.server).body
        bmc = {**row["bmc"], "secret": "bmc2"}
        site.opens[site.node.node_id] = {"bmc1": 1, "bmc2": 1}
        body = {**row, "bmc": bmc}
        await site.store.write(lambda tx: tx.put(site.scope, tables.SERVER, site.server, body))
        assert (await site.work.bmcs.read(site.server, "sensors"))["readings"]


@pytest.mark.parametrize("trouble", [DeviceRefused("bmc: no"), DeviceUnreachable("bmc: gone")])
async def test_other_troubles_are_the_drivers_sentence_and_pass(
    tmp_path: Path, trouble: Exception
) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.bmc.trouble.append(trouble)
        with pytest.raises(Refused, match=str(trouble)):
            await site.work.bmcs.read(site.server, "events")
        assert (await site.work.bmcs.read(site.server, "events"))["more"]


async def test_a_server_without_a_bmc_and_a_stranger_are_refused(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept(bmc=False)
        with pytest.raises(Refused, match="has no BMC"):
            await site.work.bmcs.read(site.server, "sensors")
        with pytest.raises(Refused, match="no server 'nobody'"):
            await site.work.bmcs.read("nobody", "sensors")
        handler = site.work.rpc_handlers()["server.bmc"]
        with pytest.raises(Refused):
            await handler("stranger", {"server": site.server, "what": "sensors"})
        for body in (None, [], {}, {"server": 1, "what": "sensors"}, {"server": "x"},
                     {"server": site.server, "what": "set_power"}):  # fmt: skip
            with pytest.raises(Refused, match=r"server\.bmc takes"):
                await handler(site.node.node_id, body)


async def test_a_node_without_the_login_says_so_and_asks_another(tmp_path: Path) -> None:
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        site.opens[site.node.node_id] = {}
        handler = site.work.rpc_handlers()["server.bmc"]
        answer = await handler(site.node.node_id, {"server": site.server, "what": "bios"})
        assert set(answer) == {"elsewhere"}
        with pytest.raises(Refused):
            await site.work.bmcs.read(site.server, "bios")

        async def other(_node: str, body: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return said(body, read_ms=7)

        second = site.org.admit("node2", roles=("node",)).node_id
        site.peers.nodes[second] = {"server.bmc": other}
        found = await site.work.bmcs.read(site.server, "bios")
        assert (found["node"], found["read_ms"]) == (second, 7)
    assert site.bmc.reads == []


async def test_a_bmc_that_hangs_is_given_up_and_the_queue_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bmc_desk, "NODE_S", 0.3)
    monkeypatch.setattr(bmc_desk, "WAITING_MAX", 1)
    async with WorkSite(tmp_path).running() as site:
        await site.accept()
        hangs = trio.Event()

        async def forever() -> Any:
            hangs.set()
            await trio.sleep_forever()

        site.bmc.sensors = forever  # type: ignore[method-assign]

        async def ask() -> None:
            with pytest.raises(Refused, match="did not answer within"):
                await site.work.bmcs.read(site.server, "sensors")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await hangs.wait()
            with pytest.raises(Refused, match="under way here"):
                await site.work.bmcs.read(site.server, "events")
        assert (await site.work.bmcs.read(site.server, "events"))["entries"]


GOOD = said({"what": "sensors"})


@pytest.mark.parametrize(
    "answer",
    [None, [], 7, {}, {"read_ms": 1}, {**GOOD, "read_ms": "now"}, {**GOOD, "readings": {}},
     {**GOOD, "readings": [{"name": "x"}]}, {**GOOD, "attempts": [1]},
     {**GOOD, "read_ms": 1 << 60}, {**GOOD, "extra": [[[[[[1]]]]]]},
     {**GOOD, "readings": [{**GOOD["readings"][0], "value": float("nan")}]},
     {**GOOD, "readings": [{**GOOD["readings"][0], "state": "fine"}]},
     {**GOOD, "readings": [{**GOOD["readings"][0], "name": "n" * 9999}]},
     {**GOOD, "readings": GOOD["readings"] * 2000}],
)  # fmt: skip
def test_what_another_member_says_has_its_type_or_is_nothing(answer: Any) -> None:
    assert checked("sensors", "s", "n", answer) is None
    assert checked("sensors", "s", "n", GOOD) is not None
