"""A site at work on one job at one device, under one policy, from one seed.

It puts together nodes, networks, device and weather, and keeps the books. Rule: weather comes
from the seed and the kind of site alone, so all policies of a seed meet the same.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.proto.rendezvous import owner
from node.proto.job import new_steps
from node.proto.plan import Step
from node.proto.tenure import Declined, Grant, Tenure, Times
from tests.sim.clockwork import Clockwork
from tests.sim.work_device import Device
from tests.sim.work_node import JOB, Node
from tests.sim.work_process import Net, Steps, never

NAMES: Final = ("a", "b", "c")
BEGIN_S: Final = 5.0
QUIET_S: Final = 40.0
"""After the end of job and weather: the last order has arrived."""
RUN_S_MAX: Final = 1500.0
LOSS: Final = 0.08

Make = Callable[[str, float, dict[str, Grant]], Tenure]


class Naive(Tenure):
    """A lease and nothing else: who is not heard for ``lease_s`` has lost its jobs."""

    def holds(self, job: str, epoch: int, now: float) -> bool:
        """Say whether a majority renewed, or of two, whether the other is silent."""
        if super().holds(job, epoch, now):
            return True
        own = self.grants.get(job)
        lost = own is not None and own.epoch > epoch and own.owner != self.me
        others = [self.unheard_s(name, now) for name in self._members]
        return len(others) == 1 and others[0] >= self.times.lease_s and not lost

    def may_claim(self, holder: str, fenced: bool, now: float) -> bool:
        """Say whether the lease has run out, as heard here."""
        return self.unheard_s(holder, now) >= self.times.lease_s

    def judge(
        self, job: str, claim: Grant, named: Grant, row: Grant | None, fenced: bool, now: float
    ) -> None:
        """Decline what is older, and while the holder is heard."""
        known = max([named, self.grants.get(job, named)], key=lambda grant: grant.epoch)
        if claim.epoch <= known.epoch:
            raise Declined("older", known)
        if known.owner != claim.owner and not self.may_claim(known.owner, fenced, now):
            raise Declined("heard", known)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a site decides who drives a device."""

    name: str
    times: Times
    careful: bool
    """Begins are told to others, devices fenced or left alone, one-shot steps parked."""

    def make(self, me: str, now: float, grants: dict[str, Grant]) -> Tenure:
        """Make a node's core."""
        return (Tenure if self.careful else Naive)(me, self.times, now, grants)


OURS: Final = Policy("ours", Times(), True)
NAIVE: Final = Policy("naive", Times(), False)
GUARD30: Final = Policy("guard30", Times(lease_s=30.0, margin_s=18.0), False)
"""The heir waits for 30 s; the holder counts on its lease as long as ours do."""


class Site:
    """One run."""

    def __init__(
        self, seed: int, policy: Policy, plan: tuple[Step, ...], size: int, fence: bool
    ) -> None:
        self.clock, self.policy, self.plan = Clockwork(seed), policy, plan
        self.rng = random.Random(f"{seed} chance")
        self.device = Device(self.clock, fence and policy.careful)
        self.device_loss, self.device_slow = 0.04, 0.2
        """Parts of the device's messages that are lost, and that take up to ``order_s``."""
        self.settle_s = 0.0
        """A server takes up to so long to go off or on."""
        self.net = Net(self.clock, self.rng, LOSS)
        self.other_net = Net(self.clock, self.rng, LOSS)
        self.names: list[str] = list(NAMES[:size])
        self.recorded = False
        self.cuts, self.kill_at, self.killed_at = 0, 0, 0.0
        self.first = owner(self.names, JOB) or ""
        self.resumed_at: float | None = None
        self.nodes = [Node(self, name) for name in self.names]
        self.clock.after(BEGIN_S, self._order)

    def node(self, name: str) -> Node:
        """Return a node."""
        return self.nodes[self.names.index(name)]

    def _order(self) -> None:
        row: dict[str, Any] = {
            "id": JOB, "kind": "sim", "site": "lab", "server": "s", "state": "queued",
            "waits_for": None, "params": {}, "attempt": 1, "attempt_first": 1,
            "steps": new_steps(self.plan), "started_ms": None, "ended_ms": None,
            "error": None, "from_state": "available", "agent": None,
            "runner": self.first, "epoch": 1,
        }  # fmt: skip
        for node in self.nodes:
            node.row = node.disk_row = ((1, 0.0, ""), row)

    # -- what happens ----------------------------------------------------------------------

    def cut(self, node: Node) -> Steps:
        """Pass a boundary of a runner: it may be killed here."""
        if self.kill_at and node.name == self.first:
            self.cuts += 1
            if self.cuts == self.kill_at:
                self.killed_at = self.clock.now
                node.die()
                yield never

    def went_on(self, node: Node) -> None:
        """Note that a runner's step had its effect."""
        if self.killed_at and self.resumed_at is None and node.name != self.first:
            self.resumed_at = self.clock.now

    def best_row(self) -> Mapping[str, Any]:
        """Return the newest row that any disk holds."""
        rows = [node.disk_row for node in self.nodes if node.disk_row is not None]
        return max(rows, key=lambda row: row[0])[1] if rows else {"state": "queued"}

    def poll_machine(self) -> None:
        """Let the machine speak to whoever runs its job, each second."""
        up = self.device.up
        for node in self.nodes if up else []:
            if node.process.alive and not node.process.stopped and node.runner is not None:
                node.runner.on_machine(str(up))
        self.clock.after(1.0, self.poll_machine)

    def run(self, weather_until: float = 0.0) -> bool:
        """Run until the job has ended and all is quiet; False when it never ends."""
        clock = self.clock
        while clock.now < RUN_S_MAX:
            clock.run_until(clock.now + 5.0)
            ended = all(node.ended() for node in self.nodes if node.process.alive)
            if ended and clock.now > BEGIN_S and clock.now >= weather_until:
                clock.run_until(clock.now + QUIET_S)
                clock.note(self.best_row()["state"], self.device.power, self.device.flashes)
                return True
        return False
