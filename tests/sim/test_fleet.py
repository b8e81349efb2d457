"""Whole fleets of real cores, by seed; and that every check of theirs can fail.

``scripts/sim --scenario chaos`` (and ``rejoin``, ``storm``, ``darkhub``) runs as many seeds as
one likes; this is the portion for every run of the tests.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.proto import detector, handshake
from tests.sim import (
    chaos_scenario,
    darkhub_scenario,
    fleet_checks,
    fleet_link,
    rejoin_scenario,
    storm_scenario,
)
from tests.sim.clockwork import Violation
from tests.sim.fleet import Fleet, plans
from tests.sim.fleet_dialling import Dialling
from tests.sim.fleet_faults import FAULTS, calm, revoke_member
from tests.sim.remembered import remembered_signatures

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def remembering():
    with remembered_signatures():
        yield


# -- portions of the scenarios -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_chaos_ends_well_with_seed(seed):
    figures = chaos_scenario.one_seed(seed)
    assert (figures["lost"], figures["resurrected"]) == (0, 0)
    assert figures["places"] > 5


def test_every_fault_strikes_in_the_seeds_of_this_portion():
    struck = {name for seed in range(24) for name in chaos_scenario.Chaos(seed, None).names}
    assert struck == set(FAULTS)


@pytest.mark.parametrize("seed", range(24))
def test_a_site_dark_for_eight_weeks_comes_back_by_itself_with_seed(seed):
    figures = rejoin_scenario.one_seed(seed)
    assert figures["manual_steps"] == 0
    assert (figures["lost"], figures["resurrected"]) == (0, 0)
    assert figures["days"] == 56


@pytest.mark.parametrize("seed", range(4))
def test_sites_go_on_without_any_hub_with_seed(seed):
    figures = darkhub_scenario.one_seed(seed)
    assert (figures["admitted"], figures["revoked"]) == (1, 1)
    assert (figures["lost"], figures["resurrected"]) == (0, 0)


@pytest.mark.parametrize("seed", range(2))
def test_a_mass_restart_ends_in_idle_traffic_with_seed(seed):
    figures = storm_scenario.one_seed(seed, sites=4, nodes=4)
    assert figures["settled_s"] < storm_scenario.SETTLED_S
    assert figures["handshakes"] > len(plans(4, 4, 2))


TRACE = """
from tests.sim.chaos_scenario import one_seed
print(one_seed(0)["trace"], one_seed(4)["trace"])
"""


def _trace(hash_seed: str) -> str:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", TRACE], cwd=ROOT, env=env, check=True,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout.strip()


def test_a_seed_gives_the_same_trace_whatever_the_hash_seed():
    first = _trace("1")
    assert first == _trace("2")
    assert len(set(first.split())) == 2


# -- negative controls: a planted bug is found -------------------------------------------------


def _small(seed: int = 1, **changes) -> Fleet:
    fleet = Fleet(seed, plans(2, 3, 1), **changes)
    fleet.run_until(15.0)
    return fleet


def test_a_handshake_that_cannot_fall_back_is_found(monkeypatch):
    """Keys were rotated while the site was dark: without XX it knows nobody's key."""
    monkeypatch.setattr(handshake, "IK_BYTES_MIN", 1 << 20)
    with pytest.raises(Violation, match="not within"):
        rejoin_scenario.one_seed(0)


def test_members_that_dial_nobody_are_found(monkeypatch):
    fleet = _small()
    for member in fleet.members.values():
        member.crash()
    monkeypatch.setattr(Dialling, "look", lambda self: None)
    for member in fleet.members.values():
        member.start()
    fleet.write(fleet.member("s0n0"))
    fleet.run_until(fleet.now + 1.0)
    with pytest.raises(Violation, match="not within"):
        fleet.wait("all agree", fleet.equal, 60.0)


def test_observers_in_a_hurry_are_found(monkeypatch):
    """Without patience, a quorum and self-suppression, loss and stalls make false verdicts."""
    monkeypatch.setattr(detector, "SILENCE_S", 1.2)
    monkeypatch.setattr(detector, "PROBE_S", 1.1)
    monkeypatch.setattr(detector, "STABLE_S", 0.01)
    monkeypatch.setattr(detector, "AGREE_LEAST", 1)
    monkeypatch.setattr(detector, "LATE_S", 100.0)
    fleet = _small()
    fleet.net.datagram_loss = 0.9
    fleet.net.loss = 0.5
    with pytest.raises(Violation, match="which was sending"):
        fleet.run_until(fleet.now + 120.0)


def test_a_register_that_believes_anybody_is_found():
    fleet = _small()
    member = fleet.member("s0n1")
    name = fleet.member("s1n0").author
    fleet.checks.on_register(member)
    fleet.checks._published.discard(member.book.record("roster", name))
    with pytest.raises(Violation, match="nobody signed"):
        fleet.checks.on_register(member)


def test_a_register_that_goes_back_is_found():
    fleet = _small()
    member, hub = fleet.member("s0n1"), fleet.hubs()[0]
    old = fleet.register.record("roster", fleet.member("s1n0").author)
    fleet.publish(fleet.org.begin_rotation(), hub)
    fleet.wait("all know", fleet.equal, 60.0)
    subject = ("roster", fleet.member("s1n0").author)
    kept = member.book._entries[subject]
    assert kept.wire != old
    older = fleet.register.__class__(fleet.org.root_fp)
    for record in fleet.org.__class__("fleet", plans(2, 3, 1)).founding():
        older.merge(record)
    member.book._entries[subject] = older._entries[subject]
    member.book._generation += 1
    with pytest.raises(Violation, match="goes back"):
        fleet.checks.on_register(member)


def test_a_member_that_lets_the_revoked_in_is_found():
    fleet = _small()
    member, gone = fleet.member("s0n1"), fleet.member("s0n2")
    revoke_member(fleet, gone, fleet.hubs()[0])
    fleet.run_until(fleet.now + 5.0)
    assert not member.book.active(gone.author)
    with pytest.raises(Violation, match="no member"):
        fleet.on_link(member, gone.author)
    for other in fleet.members.values():
        other.book.active = lambda name: True
    with pytest.raises(Violation, match=r"no member|revoked"):
        fleet.run_until(fleet.now + 60.0)


def test_queues_that_grow_without_end_are_found(monkeypatch):
    fleet = _small()
    fleet.checks.sample()
    monkeypatch.setattr(fleet_checks, "MESSAGES_HELD_MAX", 20)
    member = fleet.member("s0n0")
    member._pump = lambda: None
    for _ in range(40):
        fleet.write(member)
    with pytest.raises(Violation, match="holds"):
        fleet.checks.sample()


def test_rows_that_vanish_or_come_back_are_found():
    fleet = _small()
    for _ in range(30):
        fleet.write(fleet.member("s0n0"))
    fleet.run_until(fleet.now + 5.0)
    assert fleet.checks.at_rest()["lost"] == 0
    truth = next(one for one in fleet.checks.truth.values() if one.value)
    truth.value = -1
    assert fleet.checks.at_rest()["lost"] > 0
    truth.value = None
    assert fleet.checks.at_rest()["resurrected"] > 0


def test_a_handshake_that_costs_seconds_is_found(monkeypatch):
    """The hub is busy for minutes after everybody came back at once."""
    monkeypatch.setattr(fleet_link, "HANDSHAKE_CPU_S", 2.0)
    with pytest.raises(Violation, match="not within"):
        storm_scenario.one_seed(0, sites=4, nodes=4)


def test_a_rejoin_without_the_news_is_found(monkeypatch):
    """Members of the later release write no new field: what must come through is not there."""
    monkeypatch.setattr(rejoin_scenario, "BACK_S", 60.0)
    monkeypatch.setattr(rejoin_scenario.Rejoin, "_news", lambda self: None)
    with pytest.raises(Violation, match="the dark site is back: not within"):
        rejoin_scenario.one_seed(0)


def test_sites_without_keys_of_their_own_are_found(monkeypatch):
    """Nobody believes a site that admits and revokes when no document says that it may."""
    build = darkhub_scenario.Fleet

    def undelegated(seed, members, **given):
        fleet = build(seed, members, **given)
        for member in (fleet, *fleet.members.values()):
            book = getattr(member, "book", None) or fleet.register
            book.trust = dataclasses.replace(book.trust, site_keys={})
            book._chain.current = book.trust
        return fleet

    monkeypatch.setattr(darkhub_scenario, "Fleet", undelegated)
    figures = darkhub_scenario.one_seed(0)
    assert (figures.get("admitted", 0), figures.get("revoked", 0)) == (0, 0)


def test_a_clone_is_noticed_and_all_is_well_without_it():
    fleet = _small()
    member = fleet.member("s0n1")
    before = fleet.checks.noticed(member.author)
    twin = fleet.clone(member)
    fleet.run_until(fleet.now + 3.0)
    fleet.write(member)
    fleet.write(twin)
    fleet.wait("it is noticed", lambda: fleet.checks.noticed(member.author) > before, 75.0)
    twin.crash(power=True)
    fleet.wait("all agree", fleet.equal, 150.0)


def test_a_hostile_peer_is_dropped_and_a_correct_one_that_is_dropped_is_found():
    fleet = _small()
    FAULTS["rogue"](fleet, fleet.now + 60.0)
    fleet.run_until(fleet.now + 60.0)
    calm(fleet)
    fleet.wait("the others agree", fleet.equal, 150.0)
    assert fleet.counters["bad frames"] > 20
    bad = next(iter(fleet.rogues))
    fleet.rogues.clear()
    with pytest.raises(Violation, match="drops correct"):
        fleet.on_dropped(fleet.hubs()[0], bad, "talks nonsense")
