"""What a hub shows of a BMC: asked live, by whichever node can, said in one sentence."""

from pathlib import Path
from typing import Any

import pytest

from hub.bmc import certificate, read_bmc
from hub.errors import Conflict, NotFound, Unavailable
from mesh.errors import RemoteRefused, Unreachable
from tests.support.bmc_words import give_bmc, said
from tests.support.hub_bench import NODE_A, NODE_B, Bench
from tests.unit.hub.test_pages import console

WEB_1 = {"id": "s1", "name": "web-1", "site": "fra1", "bmc": "https://bmc-1.invalid"}


async def ask(bench: Bench, what: Any = "sensors", server: dict[str, Any] = WEB_1) -> Any:
    return await read_bmc(bench.peers, bench.services.store, server, what)


async def test_the_next_node_is_asked_when_one_cannot(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, _):
        bench.peers.links = {NODE_A: None, NODE_B: None}
        answers = [{"elsewhere": "the secret is not for us"}, said({"what": "sensors"})]
        bench.peers.answers["server.bmc"] = lambda _body: answers.pop(0)
        found = await ask(bench)
        assert found["node"] == NODE_B
        assert [node for node, method, _ in bench.peers.asked] == [NODE_A, NODE_B]
        assert bench.peers.asked[0][2] == {"server": "s1", "what": "sensors"}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Unreachable("x"), Unavailable, "did not answer"),
        (RemoteRefused("bmc: the password was refused"), Conflict, "password was refused"),
        ({"elsewhere": "no secret here"}, Unavailable, "no secret here"),
        ({"readings": 7}, Unavailable, "makes no sense"),
    ],
)
async def test_no_answer_is_one_sentence(
    tmp_path: Path, answer: Any, kind: type[Exception], words: str
) -> None:
    async with console(tmp_path) as (bench, _):
        bench.peers.answers["server.bmc"] = answer
        with pytest.raises(kind, match=words):
            await ask(bench)
        bench.peers.links = {}
        with pytest.raises(Unavailable, match="no node of site fra1 is linked"):
            await ask(bench)
        with pytest.raises(Conflict, match="web-1 has no BMC"):
            await ask(bench, server={**WEB_1, "bmc": None})


async def test_the_page_reads_nothing_before_somebody_asks(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        give_bmc(bench)
        await bench.ingest.read_all()
        page = await browser.text("/servers/s1")
        assert "Read the sensors now" in page
        assert 'href="?read=sensors#sensors"' in page
        assert bench.peers.asked == []
        page = await browser.text("/servers/s1?read=sensors")
        assert "91.5 °C" in page
        assert "&gt; 90/100" in page
        assert 'href="?read=sensors,events#events"' in page
        page = await browser.text("/servers/s1?read=sensors,events")
        assert "PSU 1: &lt;failure&gt;" in page
        assert "older entries left out" in page
        assert "clock not set" in page
        count = len(bench.peers.asked)
        assert count == 3
        await browser.text("/servers/s1?read=sensors,events&part=server,facts")
        assert len(bench.peers.asked) == count  # an event renews other parts only


async def test_the_page_says_why_there_is_nothing_to_see(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, browser):
        give_bmc(bench)
        await bench.ingest.read_all()
        bench.peers.answers["server.bmc"] = RemoteRefused("bmc: the password was refused")
        page = await browser.text("/servers/s1?read=sensors,nonsense")
        assert "bmc: the password was refused." in page
        assert "Read again" in page
        assert "This server has no BMC" in await browser.text("/servers/s2?read=events")


async def test_a_certificate_is_looked_at_by_a_node_of_the_site(tmp_path: Path) -> None:
    async with console(tmp_path) as (bench, _):
        give_bmc(bench)
        peers, store = bench.peers, bench.services.store
        found = await certificate(peers, store, "fra1", "https://10.0.0.9")
        assert (found["node"], found["sha256"]) == (NODE_A, "ab" * 32)
        with pytest.raises(NotFound, match="no node of a site 'nowhere'"):
            await certificate(peers, store, "nowhere", "https://10.0.0.9")
        for wrong in ({"sha256": "zz"}, {"sha256": "ab"}, None, 7):
            peers.answers["bmc.certificate"] = wrong
            with pytest.raises(Unavailable, match="makes no sense"):
                await certificate(peers, store, "fra1", "https://10.0.0.9")
        peers.links = {}
        with pytest.raises(Unavailable, match="is linked to this hub"):
            await certificate(peers, store, "fra1", "https://10.0.0.9")
