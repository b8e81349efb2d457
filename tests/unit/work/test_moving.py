"""Who tries a job next that its node cannot do (node/proto/moving.py)."""

from node.proto.moving import NODES_MAX, elsewhere

JOB = {"id": "01a21f84-5ecc-7f45-a034-ca0f49bfaae1", "runner": "a"}


def test_each_node_tries_once():
    able = ["a", "b", "c"]
    job = {**JOB, "tried_by": []}
    for _ in able[1:]:
        to = elsewhere(job, able)
        assert to not in [None, job["runner"], *job["tried_by"]]
        job = {**job, "runner": to, "tried_by": [*job["tried_by"], job["runner"]]}
    assert elsewhere(job, able) is None


def test_nobody_else_is_able():
    assert elsewhere(JOB, []) is None
    assert elsewhere(JOB, ["a"]) is None


def test_no_more_nodes_try_than_help():
    tried = [f"n{place}" for place in range(NODES_MAX - 1)]
    able = [f"m{place}" for place in range(9)]
    assert elsewhere({**JOB, "tried_by": tried}, able) is None
    assert elsewhere({**JOB, "tried_by": tried[1:]}, able) in able
