"""Leases among a site's nodes and takeovers (node/proto/tenure.py)."""

import pytest

from node.proto.tenure import Declined, Grant, Tenure, Times

TIMES = Times()
JOB = "job"
A, B, C = "a", "b", "c"


def site(*names: str) -> dict[str, Tenure]:
    """Make the nodes of a site at time 0."""
    nodes = {name: Tenure(name, TIMES, 0.0) for name in names}
    for node in nodes.values():
        node.set_members(names, 0.0)
    return nodes


def renew(nodes: dict[str, Tenure], holder: str, now: float, *voters: str) -> None:
    """Let voters renew a holder's lease, all that there are when none is named."""
    for voter in voters or nodes.keys() - {holder}:
        nodes[holder].on_renewed(voter, now, nodes[voter].on_renew(holder, now))


def look(node: Tenure, now: float) -> None:
    """Let time pass without a standstill."""
    node._ticked = now - 1
    node.tick(now)


def test_a_node_alone_holds_its_jobs_always():
    alone = site(A)[A]
    assert alone.holds(JOB, 1, 1e9)
    assert alone.votes_needed(B) == 1


def test_a_node_of_three_holds_while_a_majority_has_renewed_lately():
    nodes = site(A, B, C)
    assert not nodes[A].holds(JOB, 1, 0.0), "not before anybody has"
    renew(nodes, A, 10.0, B)
    assert nodes[A].holds(JOB, 1, 22.0)
    assert not nodes[A].holds(JOB, 1, 22.1)
    assert nodes[A].heard_of(22.1) == 2


def test_a_voter_grants_only_what_the_holder_cannot_count_on_any_more():
    nodes = site(A, B, C)
    renew(nodes, A, 100.0)
    claim, stands = Grant(2, B), Grant(1, A)
    look(nodes[C], 114.9)
    with pytest.raises(Declined, match="heard of just now"):
        nodes[C].judge(JOB, claim, stands, None, True, 114.9)
    nodes[C].judge(JOB, claim, stands, None, True, 115.0)
    assert not nodes[A].holds(JOB, 1, 115.0)


def test_who_comes_back_is_told_and_keeps_its_other_jobs():
    nodes = site(A, B, C)
    for voter in (B, C):
        nodes[voter].record(JOB, Grant(2, B))
    renew(nodes, A, 200.0)
    assert not nodes[A].holds(JOB, 1, 200.0)
    assert nodes[A].holds("another", 1, 200.0)
    assert nodes[A].stands(JOB, Grant(1, A)) == Grant(2, B)
    renew(nodes, B, 200.0)
    assert nodes[B].holds(JOB, 2, 200.0)


def test_one_voter_that_granted_in_vain_takes_nothing_away():
    nodes = site(A, B, C)
    nodes[B].record(JOB, Grant(2, C))
    renew(nodes, A, 50.0)
    assert nodes[A].holds(JOB, 1, 50.0), "the third one renewed"


def test_an_epoch_is_granted_once_and_to_one():
    nodes = site(A, B, C)
    nodes[C].record(JOB, Grant(2, B))
    nodes[C].judge(JOB, Grant(2, B), Grant(1, A), None, True, 20.0)  # asked again
    for claim in (Grant(2, A), Grant(1, A)):
        with pytest.raises(Declined, match="epoch 2 of it is out") as declined:
            nodes[C].judge(JOB, claim, Grant(1, A), None, True, 20.0)
        assert declined.value.grant == Grant(2, B)
    renew(nodes, B, 20.0)
    with pytest.raises(Declined, match="just now"):
        nodes[C].judge(JOB, Grant(3, A), Grant(2, B), None, True, 20.0)


def test_a_claim_never_uses_an_epoch_twice():
    node = site(A, B, C)[A]
    stands = Grant(4, B)
    assert node.claim(JOB, stands) == Grant(5, A)
    assert node.claim(JOB, stands) == Grant(6, A)
    assert node.claim(JOB, Grant(9, C)) == Grant(10, A)


def test_a_device_that_cannot_be_fenced_is_left_alone_longer():
    nodes = site(A, B, C)
    renew(nodes, A, 0.0)
    assert nodes[B].may_claim(A, True, 15.0)
    assert not nodes[B].may_claim(A, False, 69.9)
    assert nodes[B].may_claim(A, False, 70.0)


def test_who_stood_still_judges_nobody_silent():
    nodes = site(A, B, C)
    renew(nodes, A, 0.0)
    assert nodes[B].tick(60.0)
    assert nodes[B].unheard_s(A, 60.0) == 0.0
    assert not nodes[B].may_claim(A, True, 74.9)
    assert not nodes[B].tick(61.0)


def test_of_two_the_one_that_is_left_goes_on_when_the_other_is_silent_on_both_networks():
    nodes = site(A, B)
    renew(nodes, A, 0.0)
    assert nodes[A].holds(JOB, 1, 52.0)
    assert not nodes[A].holds(JOB, 1, 52.1)
    nodes[A].on_probed(B, False, 40.0)
    assert not nodes[A].holds(JOB, 1, 54.9)
    nodes[A].on_probed(B, False, 53.0)
    assert nodes[A].holds(JOB, 1, 55.0)
    assert not nodes[A].holds(JOB, 1, 70.0), "it must have looked just now"
    nodes[A].on_probed(B, True, 70.0)
    nodes[A].on_probed(B, False, 71.0)
    assert not nodes[A].holds(JOB, 1, 85.9), "it was there on the other network"


def test_a_voter_that_heard_the_holder_keeps_an_heir_from_a_device_that_cannot_be_fenced():
    """The heir alone had been deaf to the holder, which worked on by the voter's word."""
    nodes = site(A, B, C)
    renew(nodes, A, 100.0, C)
    assert nodes[A].holds(JOB, 1, 112.0), "it orders now, and the order takes a while"
    assert nodes[B].may_claim(A, False, 116.0)
    claim, stands = Grant(2, B), Grant(1, A)
    with pytest.raises(Declined, match="just now"):
        nodes[C].judge(JOB, claim, stands, stands, False, 116.0)
    nodes[C].judge(JOB, claim, stands, stands, False, 170.0)
    assert 112.0 + TIMES.pause_s + TIMES.order_s <= 170.0


def test_a_grant_in_vain_lets_nobody_take_a_job_from_who_works_on_it():
    """Of five, b was granted the job by c alone, and died; a goes on by d and e."""
    nodes = site(A, B, C, "d", "e")
    nodes[C].record(JOB, Grant(2, B))
    renew(nodes, A, 100.0)
    assert nodes[A].holds(JOB, 1, 110.0)
    claim, named, row = Grant(3, C), Grant(2, B), Grant(1, A)
    nodes[C].judge(JOB, claim, named, row, True, 110.0)
    for name in (A, "d", "e"):
        with pytest.raises(Declined, match="just now"):
            nodes[name].judge(JOB, claim, named, row, True, 110.0)


def test_a_claim_that_names_less_than_a_voter_knows_is_declined():
    """d granted b; without its word the other voters would not ask whether b lives."""
    nodes = site(A, B, C, "d", "e")
    nodes["d"].record(JOB, Grant(2, B))
    with pytest.raises(Declined, match="does not know of epoch 2") as declined:
        nodes["d"].judge(JOB, Grant(5, C), Grant(1, A), Grant(1, A), True, 200.0)
    assert declined.value.grant == Grant(2, B)
    renew(nodes, B, 200.0)
    with pytest.raises(Declined, match="just now"):
        nodes["e"].judge(JOB, Grant(5, C), Grant(2, B), Grant(1, A), True, 200.0)
    nodes["d"].judge(JOB, Grant(5, B), Grant(1, A), Grant(1, A), True, 200.0)  # its own


def test_a_holder_lets_go_of_what_it_does_not_hold_and_of_an_order_only_after_the_guard():
    nodes = site(A, B, C)
    renew(nodes, A, 100.0)
    claim, named = Grant(3, C), Grant(2, B)
    assert nodes[A].holds(JOB, 1, 112.0)
    with pytest.raises(Declined, match="just now"):
        nodes[A].judge(JOB, claim, named, Grant(1, A), True, 112.0)
    nodes[A].judge(JOB, claim, named, Grant(1, A), True, 112.1)
    with pytest.raises(Declined, match="just now"):
        nodes[A].judge(JOB, claim, named, Grant(1, A), False, 181.9)
    nodes[A].judge(JOB, claim, named, Grant(1, A), False, 182.0)


def test_after_a_node_joined_the_guard_holds_for_who_goes_by_the_smaller_site():
    nodes = site(A, B)
    renew(nodes, A, 100.0)
    nodes[B].set_members([A, B, C], 101.0)
    assert nodes[A].holds(JOB, 1, 152.0)
    assert not nodes[B].may_claim(A, True, 153.0)
    assert nodes[B].may_claim(A, True, 171.0)
    nodes[B].judge(JOB, Grant(2, B), Grant(1, A), Grant(1, A), True, 171.0)


def test_of_two_a_device_that_cannot_be_fenced_is_left_alone_for_as_long_as_the_silence():
    nodes = site(A, B)
    renew(nodes, A, 0.0)
    assert nodes[A].holds(JOB, 1, 52.0), "it stands still now, and then orders"
    for second in range(53, 123, 5):
        nodes[B].on_probed(A, False, float(second))
    assert nodes[B].may_claim(A, True, 122.0)
    assert not nodes[B].may_claim(A, False, 122.0)
    assert nodes[B].may_claim(A, False, 123.0)


def test_of_two_a_job_moves_after_the_guard_and_silence_on_both_networks():
    nodes = site(A, B)
    renew(nodes, A, 0.0)
    assert not nodes[B].may_claim(A, True, 70.0), "nobody looked on the other network"
    nodes[B].on_probed(A, False, 54.0)
    nodes[B].on_probed(A, False, 69.0)
    assert not nodes[B].may_claim(A, True, 69.5)
    assert nodes[B].may_claim(A, True, 70.0)
    assert nodes[B].votes_needed(A) == 1
    nodes[B].record(JOB, Grant(2, B))
    renew(nodes, A, 80.0)
    assert not nodes[A].holds(JOB, 1, 80.0)


def test_the_job_of_a_node_that_left_the_site_needs_both_that_remain():
    nodes = site(A, B, C)
    renew(nodes, A, 0.0)
    for name in (B, C):
        nodes[name].set_members([B, C], 1.0)
    assert nodes[B].votes_needed(A) == 2
    assert nodes[B].may_claim(A, True, 15.0)
    nodes[C].judge(JOB, Grant(2, B), Grant(1, A), None, True, 15.0)


def test_a_holder_that_lost_a_job_to_nobody_takes_it_back():
    nodes = site(A, B, C)
    nodes[B].record(JOB, Grant(2, C))
    nodes[A].on_renewed(B, 20.0, nodes[B].on_renew(A, 20.0))
    assert not nodes[A].holds(JOB, 1, 20.0)
    stands = nodes[A].stands(JOB, Grant(1, A))
    assert nodes[A].may_claim(stands.owner, True, 20.0), "c is silent since the beginning"
    claim = nodes[A].claim(JOB, stands)
    nodes[B].judge(JOB, claim, stands, None, True, 20.0)
    for name in (A, B):
        nodes[name].record(JOB, claim)
    renew(nodes, A, 21.0, B)
    assert nodes[A].holds(JOB, claim.epoch, 21.0)


def test_a_claimant_hears_what_was_granted_in_vain_and_nothing_that_it_had_won():
    """Else a holds a job of its own no more, and b never takes it."""
    nodes = site(A, B, C)
    nodes[A].record(JOB, Grant(7, B))
    assert not nodes[A].holds(JOB, 1, 0.0)
    told = nodes[A].on_renew(B, 20.0)
    assert nodes[B].on_renewed(A, 20.0, told) == [(JOB, Grant(7, B))]
    assert nodes[B].stands(JOB, Grant(1, A)) == Grant(1, A)
    for later in (Grant(7, B), Grant(8, C)):
        nodes[B].record(JOB, later)
        assert nodes[B].on_renewed(A, 20.0, told) == []
