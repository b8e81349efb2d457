"""A node's shell around the core of leases, as the simulator has it: asks, votes, takes over.

The decisions are those of ``node/proto/tenure.py``; the waits are those of
``node/work/tenure.py`` and ``node/work/takeover.py``. Rules: a grant is in memory before it is
on disk, and on disk before it is said; a voter hands its row of the job along; a row that is
written with an older epoch never beats one with a newer; who stood still begins its runner
anew; a row is made ours only while we hold the job.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mesh.proto.rendezvous import owner
from node.proto.hold import doubted
from node.proto.job import ENDED
from node.proto.tenure import Declined, Grant
from tests.sim.work_process import Arm, Process, Steps, Task, sleep
from tests.sim.work_runner import Runner

if TYPE_CHECKING:
    from tests.sim.work_site import Site

JOB: Final = "job"
LOOK_S: Final = 1.0
PROBE_S: Final = 3.0
WRITE_S: Final = (0.002, 0.03)
"""How long a write takes until it is durable."""

Row = dict[str, Any]
Stamped = tuple[tuple[int, float, str], Row]
"""A row with what it is ranked by: epoch, time, author."""


class Node:
    """One node of the site: what it has on disk, and the life that it has now."""

    def __init__(self, site: "Site", name: str) -> None:
        self.site, self.name = site, name
        self.process = Process(site.clock, site.rng, name)
        self.disk_row: Stamped | None = None
        self.disk_grants: dict[str, Grant] = {}
        self.cached = False
        self.runner: Runner | None = None
        self.boot()

    # -- lives -----------------------------------------------------------------------------

    def boot(self) -> None:
        """Begin a life with what is on disk."""
        now = self.process.now()
        self.process.alive = True
        self.tenure = self.site.policy.make(self.name, now, dict(self.disk_grants))
        self.tenure.set_members(self.site.names, now)
        self.row = copy.deepcopy(self.disk_row)
        self.runner = None
        self.claiming = False
        self.quiet_until = now + self.site.policy.times.order_s
        """Until then orders of before may arrive at a device that knows no sessions."""
        self.process.later(self.site.rng.uniform(0, 1), self._look)
        self.process.later(self.site.rng.uniform(0, 1), self._renew)

    def die(self) -> None:
        """End this life."""
        if self.runner is not None:
            self.runner.stop()
        self.runner = None
        self.process.die()

    # -- rows ------------------------------------------------------------------------------

    def epoch(self) -> int:
        """Return the epoch of the row here."""
        return self.row[0][0] if self.row else 0

    def ended(self) -> bool:
        """Say whether the job has ended, as far as is known here."""
        return self.row is not None and self.row[1]["state"] in ENDED

    def take_row(self, row: Stamped | None) -> None:
        """Merge what another node says of the job."""
        if row is None or (self.row is not None and row[0] <= self.row[0]):
            return
        self.row = self.disk_row = copy.deepcopy(row)
        runner = self.runner
        if runner is not None and (row[1]["runner"], row[0][0]) != (self.name, runner.epoch):
            self.drop_runner()

    def write_row(self, body: Row) -> Steps:
        """Write the row durably, then tell the others."""
        stamp = (int(body["epoch"]), self.process.now(), self.name)
        row = (stamp, copy.deepcopy(body))
        yield sleep(self.process, self.site.rng.uniform(*WRITE_S))
        if self.row is not None and self.row[0][0] > stamp[0]:
            return False
        self.row = self.disk_row = row
        yield from self.site.cut(self)
        for peer in self.peers():
            self.site.net.send(self.name, peer.process, peer.take_row, row)
        return True

    def ask_receipt(self, peer: "Node", row: Stamped) -> Callable[[float], Arm]:
        """Ask a node to say when it has a row on its disk."""

        def answer(reply: Callable[[Any], None], row: Stamped) -> None:
            peer.take_row(row)
            peer.process.later(peer.site.rng.uniform(*WRITE_S), reply, peer.name)

        return self.site.net.ask(self.process, peer.process, answer, row)

    def peers(self) -> list["Node"]:
        """Return the other nodes."""
        return [node for node in self.site.nodes if node is not self]

    # -- the lease -------------------------------------------------------------------------

    def holds(self) -> bool:
        """Say whether the job of the row here may be worked on here."""
        if self.row is None or self.row[1]["runner"] != self.name:
            return False
        return self.tenure.holds(JOB, self.epoch(), self.process.now())

    def _renew(self) -> None:
        self.process.later(self.site.policy.times.renew_s, self._renew)
        if not self.ended():
            for peer in self.peers():
                Task(self._renew_at(peer)).start()

    def _renew_at(self, peer: "Node") -> Steps:
        asked = self.process.now()

        def answer(reply: Callable[[Any], None], row: Stamped | None) -> None:
            peer.take_row(row)
            reply((peer.tenure.on_renew(self.name, peer.process.now()), peer.row))

        ask = self.site.net.ask(self.process, peer.process, answer, self.row)
        got = yield ask(self.site.policy.times.renew_s)
        if got is not None:
            self.take_row(got[1])
            vain = self.tenure.on_renewed(peer.name, asked, got[0])
            if vain and not self.claiming:
                self._take_back(peer, vain[0][1])
        elif len(self.site.names) == 2:
            ask = self.site.other_net.ask(self.process, peer.process, _here)
            seen = yield ask(PROBE_S)
            self.tenure.on_probed(peer.name, seen is not None, self.process.now())

    # -- takeover --------------------------------------------------------------------------

    def _look(self) -> None:
        now = self.process.now()
        self.process.later(LOOK_S, self._look)
        if self.tenure.tick(now):
            self.drop_runner()
        if self.row is None or self.ended():
            return
        if self.runner is not None and not self.holds():
            self.drop_runner()
        row_grant = Grant(self.epoch(), self.row[1]["runner"])
        stands = self.tenure.stands(JOB, row_grant)
        if stands == row_grant and stands.owner == self.name:
            if self.runner is None and not self.claiming and self.holds():
                self._run(taken=False)
        elif not self.claiming and self._heir(stands):
            self.claiming = True
            Task(self._claim(stands)).start()

    def _heir(self, stands: Grant) -> bool:
        now, fenced = self.process.now(), self.fenced()
        if stands.owner == self.name:  # won, but not written yet
            return self.tenure.holds(JOB, stands.epoch, now)
        if not self.tenure.may_claim(stands.owner, fenced, now):
            return False
        lease_s = self.site.policy.times.lease_s
        heard = [n for n in self.site.names if self.tenure.unheard_s(n, now) < lease_s]
        return owner(heard, JOB) == self.name

    def fenced(self) -> bool:
        """Say whether nothing of the job's runner can reach the device once it is taken over.

        A begin is at another node before the device is touched, so that in a site of three a
        majority knows it; in one of two nobody may have been left to tell.
        """
        policy = self.site.policy
        if not policy.careful or self.site.device.fence:
            return True
        return len(self.site.names) <= 3 and not self.device_begun()

    def device_begun(self) -> bool:
        """Say whether a step that sends orders to the device was begun, by the row here."""
        assert self.row is not None
        states = {e["id"]: e["state"] for e in self.row[1]["steps"]}
        device = {"power", "boot", "flash"}
        return any(states[s.id] != "waiting" for s in self.site.plan if s.do in device)

    def _claim(self, stands: Grant) -> Steps:
        try:
            if stands.owner != self.name:
                claim = self.tenure.claim(JOB, stands)
                if not (yield from self._gather(claim, stands)):
                    for peer in self.peers():
                        self._take_back(peer, claim)
                    return
            else:
                claim = stands
            assert self.row is not None
            if self.epoch() >= claim.epoch or self.ended():
                return
            body = {**self.row[1], "runner": self.name, "epoch": claim.epoch}
            if len(self.site.names) == 2 and self.site.policy.careful:
                body = doubted(body)
            if (yield from self.write_row(body)) and self.holds() and self.runner is None:
                self.site.clock.note("taken over", self.name, claim.epoch)
                self._run(taken=True)
        finally:
            self.claiming = False

    def _take_back(self, peer: "Node", claim: Grant) -> None:
        def drop() -> None:
            if peer.tenure.grants.get(JOB) == claim:
                peer.tenure.forget([JOB])
                peer.disk_grants.pop(JOB, None)

        self.site.net.send(self.name, peer.process, drop)

    def _gather(self, claim: Grant, stands: Grant) -> Steps:
        """Ask all at once; the claimant's own vote is the last."""
        needed = self.tenure.votes_needed(stands.owner) - 1
        got: list[bool] = []
        fenced = self.fenced()

        def ask(peer: "Node") -> Steps:
            def answer(reply: Callable[[Any], None], row: Stamped | None) -> None:
                peer.take_row(row)
                Task(peer.vote(claim, stands, fenced, reply)).start()

            arm = self.site.net.ask(self.process, peer.process, answer, self.row)
            said = yield arm(self.site.policy.times.renew_s)
            if said is not None:
                self.take_row(said[1])
                got.append(said[0])

        if needed:
            for peer in self.peers():
                Task(ask(peer)).start()
            for _ in range(60):
                if sum(got) >= needed or len(got) == len(self.peers()):
                    break
                yield sleep(self.process, 0.05)
        if sum(got) < needed:
            return False
        yield lambda resume: Task(self.vote(claim, stands, fenced, resume)).start()
        return self.tenure.grants.get(JOB) == claim

    def vote(
        self, claim: Grant, named: Grant, fenced: bool, reply: Callable[[Any], None]
    ) -> Steps:
        """Judge a claim; keep what was granted, then say so, with the row that is here."""
        row = Grant(self.epoch(), self.row[1]["runner"]) if self.row else None
        fenced = fenced and (self.row is None or self.fenced())
        try:
            self.tenure.judge(JOB, claim, named, row, fenced, self.process.now())
        except Declined:
            reply((False, self.row))
            return
        self.tenure.record(JOB, claim)
        yield sleep(self.process, self.site.rng.uniform(*WRITE_S))
        self.disk_grants[JOB] = claim
        reply((True, self.row))

    # -- the runner ------------------------------------------------------------------------

    def _run(self, taken: bool) -> None:
        assert self.row is not None
        assert self.runner is None
        self.runner = Runner(self, copy.deepcopy(self.row[1]), taken)
        self.runner.start()

    def drop_runner(self) -> None:
        """Stop working on the job; what was sent is on its way all the same."""
        if self.runner is not None:
            self.runner.stop()
            self.runner = None
            self.quiet_until = self.process.now() + self.site.policy.times.order_s


def _here(reply: Callable[[Any], None]) -> None:
    reply(True)
