"""Who may drive a site's jobs now: leases among its nodes, and when a dead node's job moves.

Theory of operation. Every node asks all others to renew its lease a few times in a lease's
time. A node may work on its jobs while a majority of the site (itself counted) has renewed
within ``lease_s`` less ``margin_s``, measured from when it asked. A voter lets another node
have a job only when it has not heard of the job's holder for ``lease_s``, measured from when
it heard, and remembers that durably; whoever renews afterwards is told. So between the last
renewal that a holder may count on and a grant by any voter of the same majority lies the
margin, and two majorities share a voter: no two nodes hold one job of one epoch at a time.

What was begun before the lease ended may still be on its way to a device. So a job whose
device cannot be fenced moves only ``guard_s`` after its holder was last heard, by the heir and
by each voter of its majority: a holder that the heir alone is deaf to works until the voters
are, too. ``pause_s`` is the longest standstill of a process that does no harm there.

Epochs are granted in vain, too, when a claimant dies or finds too few. So a voter asks for
whom its word may still count: the owner of its own grant, else of its row of the job, and the
one that the claim names; and a claim that names less than the voter knows is declined. A voter
that has the job by its row lets it go once it does not hold it any more. A claimant's own vote
is its last, so what it did not vote for itself it never uses, and takes back wherever it hears
of it: a holder that had granted it would stand still for ever.

A site of two has no majority without both. There a node goes on for ``guard_s`` less the
longest order less the margin after it was last renewed, or when the other is silent on the
mesh and on the provisioning network; it takes a job over after ``guard_s``, and such silence;
that silence lasts ``guard_s``, too, where the device cannot be fenced. When both networks fail
between two nodes that live, both go on: nothing that they could ask tells them.

It knows no jobs, no rows, no network. Times are seconds of one clock that counts while the
machine sleeps and that nobody sets (CLOCK_BOOTTIME). Rule: a node that stood still has heard
nobody, so it judges nobody silent by what it did not read (``tick``).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds; every node of a site has the same."""

    renew_s: float = 3.0
    """Between two renewals."""
    idle_s: float = 30.0
    """The same while the site has no open job: nothing to hold, and nothing to take over."""
    lease_s: float = 15.0
    """A holder unheard for so long may lose its jobs."""
    margin_s: float = 3.0
    """A holder counts on so much less, for clocks that run differently."""
    order_s: float = 15.0
    """The longest that one order is on its way to a device (``BmcLimits.request_s``)."""
    guard_s: float = 70.0
    """For devices that cannot be fenced, and for all in sites of two; see ``pause_s``."""
    silent_s: float = 15.0
    """Silence on both networks before the other node of two counts as gone."""
    stall_s: float = 4.0
    """A node that did not look for so long stood still."""

    def __post_init__(self) -> None:
        """Refuse what cannot be safe."""
        assert self.renew_s < self.lease_s - self.margin_s
        assert self.lease_s < self.guard_s - self.order_s - self.margin_s

    @property
    def pause_s(self) -> float:
        """Return the longest pause of a process that does no harm without a fence.

        A holder may have been heard for the last time ``lease_s`` (the margin included) before
        it looked whether it holds, stood still then, and sent its order afterwards.
        """
        return self.guard_s - self.lease_s - self.order_s


@dataclass(frozen=True, slots=True)
class Grant:
    """A voter's word that a job is a node's from an epoch on."""

    epoch: int
    owner: str


class Declined(Exception):
    """A claim was not granted; ``grant`` is what stands against it."""

    def __init__(self, sentence: str, grant: Grant) -> None:
        super().__init__(sentence)
        self.grant = grant


@dataclass(slots=True)
class _Peer:
    heard: float
    """It asked us to renew, as a voter sees it."""
    renewed: float = -inf
    """When we asked what it last renewed."""
    silent: float | None = None
    """Since when nothing of it was heard on either network."""
    probed: float = -inf
    granted: Mapping[str, Grant] = field(default_factory=dict)
    """Jobs that it has granted to others."""


class Tenure:
    """One node's view; the shell asks the peers and keeps the grants on disk."""

    def __init__(
        self, me: str, times: Times, now: float, grants: Mapping[str, Grant] | None = None
    ) -> None:
        """``grants``: by job, what this node as a voter has granted before."""
        self.me, self.times = me, times
        self.grants: dict[str, Grant] = dict(grants or {})
        self._peers: dict[str, _Peer] = {}
        self._tried: dict[str, int] = {}
        self._members: list[str] = []
        self._size = 1
        self._began = self._ticked = now
        self._held: dict[str, float] = {}
        self._grew = -inf

    def set_members(self, members: Collection[str], now: float) -> None:
        """Take the active nodes of the site, this one included."""
        for name in self._peers.keys() - set(members):
            # Not dropped: a job of who left moves as that of who is silent.
            self._peers[name].renewed = -inf
        for name in set(members) - {self.me}:
            self._peers.setdefault(name, _Peer(now))
        if 0 < len(self._members) < len(set(members) - {self.me}):
            self._grew = now  # others may still go by the rule of the smaller site
        self._members = sorted(set(members) - {self.me})
        self._size = len(self._members) + 1

    def tick(self, now: float) -> bool:
        """Say whether this node stood still since the last call; then nobody is silent."""
        stalled = now - self._ticked > self.times.stall_s
        self._ticked = now
        if stalled:
            for peer in self._peers.values():
                peer.heard, peer.silent = max(peer.heard, now), None
        return stalled

    # -- as a holder -----------------------------------------------------------------------

    def on_renewed(
        self, voter: str, asked: float, granted: Mapping[str, Grant]
    ) -> list[tuple[str, Grant]]:
        """A voter renewed what we asked for at ``asked``, but for the jobs that it has granted
        to others; return the claims of ours that it granted in vain, for the shell to take
        back unless it still asks for them (its word did not come, or others declined).
        """
        peer = self._peers.get(voter)
        if peer is not None and asked >= peer.renewed:
            others = {job: grant for job, grant in granted.items() if grant.owner != self.me}
            peer.renewed, peer.granted, peer.silent = asked, others, None
        return [
            (job, grant)
            for job, grant in granted.items()
            if grant.owner == self.me and grant.epoch > self._own_epoch(job)
        ]

    def on_probed(self, name: str, answered: bool, now: float) -> None:
        """A peer that did not renew was looked for on the other network, too."""
        peer = self._peers.get(name)
        if peer is None:
            return
        peer.probed = now
        if answered:
            peer.silent = None
        elif peer.silent is None:
            peer.silent = now

    def holds(self, job: str, epoch: int, now: float) -> bool:
        """Say whether this node may work on a job that it has at an epoch."""
        own = self.grants.get(job)
        if own is not None and own.epoch > epoch and own.owner != self.me:
            return False
        until = self.times.lease_s - self.times.margin_s
        if self._size == 2:
            until = self.times.guard_s - self.times.order_s - self.times.margin_s
        votes = 1
        for name in self._members:
            peer = self._peers[name]
            fresh = now - peer.renewed <= until
            alone = self._size == 2 and self._gone(peer, now, self.times.silent_s)
            granted = peer.granted.get(job)
            votes += (fresh or alone) and (granted is None or granted.epoch <= epoch)
        held = votes > self._size // 2
        if held:
            self._held[job] = now
        return held

    def may_begin(self, now: float) -> bool:
        """Say whether this node may work on jobs of its own at all."""
        return self.holds("", 1, now)

    def heard_of(self, now: float) -> int:
        """Return how many nodes of the site, this one included, renewed it lately."""
        until = now - self.times.lease_s
        return 1 + sum(self._peers[name].renewed >= until for name in self._members)

    # -- as a voter and heir ---------------------------------------------------------------

    def on_renew(self, holder: str, now: float) -> dict[str, Grant]:
        """A holder asks; return the jobs that are somebody's by our word."""
        peer = self._peers.setdefault(holder, _Peer(now))
        peer.heard, peer.silent = now, None
        return dict(self.grants)

    def unheard_s(self, name: str, now: float) -> float:
        """Return for how long a node was not heard; one never heard of counts from now on."""
        if name == self.me:
            return 0.0
        return now - self._peers.setdefault(name, _Peer(now)).heard

    def stands(self, job: str, row: Grant) -> Grant:
        """Return who has a job by the highest epoch that we know of; ``row``: by its row."""
        known = [peer.granted[job] for peer in self._peers.values() if job in peer.granted]
        return max([row, *known, self.grants.get(job, row)], key=lambda grant: grant.epoch)

    def claim(self, job: str, stands: Grant) -> Grant:
        """Return the claim to make now; no epoch is claimed twice."""
        epoch = max(stands.epoch, self._tried.get(job, 0)) + 1
        self._tried[job] = epoch
        return Grant(epoch, self.me)

    def may_claim(self, holder: str, fenced: bool, now: float) -> bool:
        """Say whether a job of ``holder`` may be claimed; ``fenced``: its device can be."""
        unheard, wait_s = self.unheard_s(holder, now), self._wait_s(fenced, now)
        if self._size == 2 and holder in self._members:
            silent_s = self.times.silent_s if fenced else self.times.guard_s
            gone = self._gone(self._peers[holder], now, silent_s)
            return unheard >= self.times.guard_s and gone
        return unheard >= wait_s

    def judge(
        self, job: str, claim: Grant, named: Grant, row: Grant | None, fenced: bool, now: float
    ) -> None:
        """Raise Declined unless a claim may be granted; then call ``record`` at once.

        ``named``: what the claim says stands; ``row``: what this voter's row of the job says;
        ``fenced``: whether the claimant and, as far as it has the row, this voter say so.
        """
        own = self.grants.get(job)
        if claim == own:
            return  # asked again: the answer was lost
        mine = [grant for grant in (own, row) if grant is not None]
        known = max(mine, key=lambda grant: grant.epoch, default=named)
        if claim.epoch <= max(known.epoch, named.epoch):
            raise Declined(f"epoch {known.epoch} of it is out already", known)
        if named.epoch < known.epoch and known.owner != claim.owner:
            raise Declined(f"it does not know of epoch {known.epoch}", known)
        for grant in (known, named):
            if grant.owner != claim.owner and not self._over(job, grant, fenced, now):
                raise Declined("its holder was heard of just now", known)

    def record(self, job: str, grant: Grant) -> None:
        """Remember a grant: before it is written, for who renews meanwhile must be told; the
        claimant is answered only when it is durable."""
        self.grants[job] = grant

    def forget(self, jobs: Collection[str]) -> None:
        """Drop the grants of jobs that have ended, or that their claimant gave back."""
        for job in jobs:
            self.grants.pop(job, None)
            self._tried.pop(job, None)
            self._held.pop(job, None)

    def votes_needed(self, holder: str) -> int:
        """Return how many must grant a claim on a job of ``holder``, the claimant counted."""
        if self._size == 2 and holder in self._members:
            return 1
        return self._size // 2 + 1

    def _own_epoch(self, job: str) -> int:
        own = self.grants.get(job)
        return 0 if own is None else own.epoch

    def _over(self, job: str, grant: Grant, fenced: bool, now: float) -> bool:
        """Whether nobody works on a job by this grant, and nothing of it is on its way."""
        if grant.owner != self.me:
            return self.unheard_s(grant.owner, now) >= self._wait_s(fenced, now)
        if self.holds(job, grant.epoch, now):
            return False
        return fenced or now - self._held.get(job, self._began) >= self.times.guard_s

    def _wait_s(self, fenced: bool, now: float) -> float:
        settled = now - self._grew >= self.times.guard_s
        return self.times.lease_s if fenced and settled else self.times.guard_s

    def _gone(self, peer: _Peer, now: float, silent_s: float) -> bool:
        """Whether a peer is silent on both networks, as of a look of just now."""
        if peer.silent is None or now - peer.probed > self.times.lease_s:
            return False
        return now - peer.silent >= silent_s
