"""After a start or a standstill a node waits for the others before it goes on alone."""

from node.proto.hold import Hold, Met, doubted, witnessed


def test_it_waits_until_the_others_were_linked_for_a_while() -> None:
    hold = Hold(settle_s=30, meet_s=2)
    hold.begin(100)
    assert hold.look(100, others=True, met=False)
    assert hold.look(101, others=True, met=True)
    assert hold.look(102, others=True, met=False), "lost again"
    assert hold.look(103, others=True, met=True)
    assert hold.look(104.9, others=True, met=True)
    assert not hold.look(105, others=True, met=True)
    assert not hold.on
    assert not hold.look(106, others=True, met=False), "it is over until the next standstill"


def test_it_does_not_wait_for_ever_and_a_lone_node_not_at_all() -> None:
    hold = Hold(settle_s=30, meet_s=2)
    hold.begin(100)
    assert hold.look(129.9, others=True, met=False)
    assert not hold.look(130, others=True, met=False)
    hold.begin(200)
    assert not hold.look(200, others=False, met=True)


def test_a_job_is_known_elsewhere_once_a_step_of_it_was_confirmed_and_done() -> None:
    def job(**step: object) -> dict[str, object]:
        return {"steps": [{"state": "done", "kind": "set", "solo": False} | step]}

    assert witnessed(job())
    assert not witnessed(job(solo=True))
    assert not witnessed(job(state="running")), "its begin may not have left this node"
    assert not witnessed(job(kind="observe")), "looking needs no receipt"
    assert not witnessed({"steps": []})


def test_a_node_counts_as_met_when_it_was_linked_for_long_enough_without_a_break() -> None:
    met = Met(2.0)
    assert met.look({"b"}, 10.0) == frozenset()
    assert met.look({"b", "c"}, 11.9) == frozenset()
    assert met.look({"b", "c"}, 12.0) == {"b"}
    assert met.look({"c"}, 14.0) == {"c"}
    assert met.look({"b", "c"}, 14.1) == {"c"}  # b was away: what it did is on its way
    assert met.look({"b", "c"}, 16.1) == {"b", "c"}


def test_a_one_shot_step_that_may_have_been_begun_counts_as_begun():
    names = (("off", "set", "done"), ("flash", "one-shot", "waiting"), ("on", "set", "waiting"))
    job = {
        "id": "j",
        "steps": [
            {"id": name, "kind": kind, "state": state, "attempts": 0}
            for name, kind, state in names
        ],
    }
    row = doubted(job)
    assert [step["state"] for step in row["steps"]] == ["done", "running", "waiting"]
    assert [step["attempts"] for step in row["steps"]] == [0, 1, 0]
    assert job["steps"][1]["state"] == "waiting", "the row that stands is left as it is"
    row["steps"][1]["state"] = "done"
    assert doubted(row) == row
