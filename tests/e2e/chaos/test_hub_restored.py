"""The hub is lost while servers are deployed and comes back from a backup made before.

Every order that had reached a node is accounted for, by the same checker as after the kills;
what had reached nobody lies in the gap that the hub lists.
"""

import json
import random
from collections.abc import Generator
from typing import Any

import pytest
from demo_processes import wait_for

from tests.e2e.chaos.books import look
from tests.e2e.chaos.checker import violations
from tests.e2e.chaos.storm import DEAD_SOCKETS, ChaosSite, Operator, Supervisor, settle
from tests.support.fleet import run, until

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]
SERVERS = 4
PASSPHRASE = "four words make it"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[ChaosSite]:
    """A hub, two nodes at one site, a rack of four."""
    made = ChaosSite(tmp_path_factory.mktemp("restore") / "fleet", servers=SERVERS)
    try:
        made.begin()
        yield made
    finally:
        made.processes.stop_all()


def hub(site: ChaosSite, *words: str) -> Any:
    """Run a hub's command with the passphrase; return what it said as JSON."""
    said = run("hub", *words, "--data", site.hub, "--passphrase-file", "-", stdin=PASSPHRASE)
    assert said.code == 0, said.err
    return said


def report(site: ChaosSite) -> Any:
    """What the restored hub has got back, and what nobody can account for."""
    said = run("hub", "restore-report", "--json", "--data", site.hub)
    return json.loads(said.out)["item"] if said.code == 0 else {"state": None}


def shown(site: ChaosSite, order: str) -> bool:
    """Whether a node knows an order."""
    return any(site.get(data, f"/jobs/{order}") for data in (site.one, site.two))


def test_every_order_that_had_reached_a_node_outlives_the_hub(site: ChaosSite) -> None:
    supervisor = Supervisor(site, random.Random(21))
    operator = Operator(site, random.Random(22))
    backup = site.folder / "hub.backup"
    until("some are ordered", lambda: operator.turn(more=True) or len(operator.given) >= 2)
    hub(site, "backup", str(backup))
    until("all are ordered", lambda: operator.turn(more=True) or len(operator.given) >= SERVERS)
    until("they reached a node", lambda: all(shown(site, g.order) for g in operator.given))
    for name in ("node-one", "node-two"):
        site.pause(name)
    said = run("server", "power", "srv1", "on", "--json", "--data", site.hub)
    lost = json.loads(said.out)["item"]
    site.kill("hub")
    for name in ("node-one", "node-two"):
        site.go_on(name)
    hub(site, "restore", str(backup), "--replace")
    site.processes.start("hub", *site.hub_words())  # well again once the report is read
    wait_for("it went on", lambda: report(site)["state"] == "went on", 60, site.processes)
    settle(site, supervisor, operator)
    gap = report(site)
    assert gap["lost_from_ms"] <= int(lost["order"].replace("-", "")[:12], 16)
    assert gap["lost_from_ms"] < gap["lost_until_ms"]
    assert gap["jobs_without_order"] == []
    assert site.job(lost["order"], site.two)["state"] is None, "it had reached nobody"
    books = look(site, operator.given, site.daemons)
    found = violations(books)
    assert not found, "\n".join(found[:40])
    site.no_traceback()
