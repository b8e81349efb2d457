"""Power that goes for everything at once in the middle of commits; processes that stop."""

import random
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.chaos.books import look
from tests.e2e.chaos.checker import violations
from tests.e2e.chaos.storm import (
    DEAD_SOCKETS,
    ChaosSite,
    Operator,
    Supervisor,
    settle,
)
from tests.support.fleet import until

pytestmark = [pytest.mark.slow, DEAD_SOCKETS]
SERVERS = 4
POWER_CUTS = 4
EVERYTHING = ("hub", "node-one", "node-two", "rack")
PAUSE_S = 60.0
"""Longer than any silence that links, heartbeats and machines are given here."""
SAID_S = 1.0


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[ChaosSite]:
    """A hub, two nodes at one site, a rack of four."""
    made = ChaosSite(tmp_path_factory.mktemp("power") / "fleet", servers=SERVERS)
    try:
        made.begin()
        yield made
    finally:
        made.processes.stop_all()


def in_order(site: ChaosSite, supervisor: Supervisor, operator: Operator) -> None:
    """Let everything end and judge what is left."""
    settle(site, supervisor, operator)
    books = look(site, operator.given, site.daemons)
    books.unanswered, books.ends = operator.unanswered, supervisor.ends
    found = violations(books)
    assert not found, "\n".join(found[:40])
    site.no_traceback()


def test_power_cuts_of_everything_at_once_lose_nothing_that_was_acknowledged(
    site: ChaosSite,
) -> None:
    rng = random.Random(11)
    supervisor, operator = Supervisor(site, rng), Operator(site, random.Random(12))
    for _ in range(POWER_CUTS):
        end = time.monotonic() + rng.uniform(3, 7)
        while time.monotonic() < end:
            supervisor.turn()
            operator.turn(more=True)
        # Orders are given until the very moment, so that commits are under way.
        supervisor.power_cut([name for name in EVERYTHING if name not in supervisor.down])
    in_order(site, supervisor, operator)


def test_a_node_and_the_hub_that_stand_still_for_a_minute_go_on_and_lose_nothing(
    site: ChaosSite,
) -> None:
    supervisor = Supervisor(site, random.Random(13))
    operator = Operator(site, random.Random(14))
    until("all are ordered", lambda: operator.turn(more=True) or len(operator.given) >= SERVERS)
    victim = pause_a_runner(site)
    other = next(data for name, data in site.daemons.items() if name not in ("hub", victim))
    try:
        site.pause("hub")
        end = time.monotonic() + PAUSE_S
        while time.monotonic() < end:
            supervisor.turn()
            time.sleep(0.2)
        assert site.status(other) is not None, "the others go on"
        waits = [job["waits_for"] for job in site.get(other, "/jobs") if job["waits_for"]]
        assert any(f"its runner {victim} is out of reach" in said for said in waits), waits
    finally:
        for name in (victim, "hub"):
            site.go_on(name)
    in_order(site, supervisor, operator)


def running(site: ChaosSite, data: Path) -> list[str]:
    """The runners of the jobs that run now, as a node sees them."""
    jobs = site.get(data, "/jobs") or []
    return [str(job["runner"]) for job in jobs if job["state"] == "running"]


def pause_a_runner(site: ChaosSite) -> str:
    """Let a node stand still while it runs a job; return its name.

    A job may end between the look and the pause: then that node goes on and the next is tried.
    """
    ids = {site.status(data)["node"]: name for name, data in site.daemons.items()}
    end = time.monotonic() + PAUSE_S
    while time.monotonic() < end:
        runner = until("a job runs", lambda: running(site, site.two))[0]
        victim = ids[runner]
        site.pause(victim)
        time.sleep(SAID_S)  # what it said last has come
        if runner in running(site, site.one if victim == "node-two" else site.two):
            return victim
        site.go_on(victim)
    raise AssertionError("no job runs longer than a look at it")
