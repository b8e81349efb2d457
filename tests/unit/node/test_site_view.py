from node.proto.site_view import PATIENCE_S, SiteView


def test_a_node_that_has_just_started_counts_everybody() -> None:
    view = SiteView("a", 100.0)
    assert view.alive(["a", "b"], [], [], 101.0) == ["a", "b"]


def test_silence_counts_only_after_a_while() -> None:
    view = SiteView("a", 0.0)
    assert view.alive(["a", "b"], ["b"], [], 50.0) == ["a", "b"]
    assert view.alive(["a", "b"], [], [], 50.0 + PATIENCE_S - 0.1) == ["a", "b"]
    assert view.alive(["a", "b"], [], [], 50.0 + PATIENCE_S) == ["a"]
    assert view.alive(["a", "b"], ["b"], [], 200.0) == ["a", "b"]


def test_who_is_no_member_never_counts() -> None:
    view = SiteView("a", 0.0)
    assert view.alive(["a"], ["x"], [], 1.0) == ["a"]


def test_who_is_unreachable_for_the_site_does_not_count_though_its_link_stands() -> None:
    view = SiteView("a", 0.0)
    assert view.alive(["a", "b", "c"], ["b", "c"], ["b"], 50.0) == ["a", "c"]
    assert view.alive(["a", "b", "c"], ["b", "c"], [], 50.1) == ["a", "b", "c"]


def test_machines_are_sent_past_a_node_as_soon_as_its_link_ends() -> None:
    view = SiteView("a", 0.0)
    alive = view.alive(["a", "b", "c"], ["b"], [], 50.0 - PATIENCE_S)
    assert view.serving(alive, ["b"]) == ["a", "b"], "c was silent for too long"
    alive = view.alive(["a", "b"], [], [], 41.0)
    assert alive == ["a", "b"]
    assert view.serving(alive, []) == ["a"]
    assert view.serving(view.alive(["a", "b"], ["b"], [], 42.0), ["b"]) == ["a", "b"]


def test_machines_are_sent_to_a_node_that_may_not_have_linked_yet() -> None:
    view = SiteView("a", 100.0)
    assert view.serving(view.alive(["a", "b"], [], [], 101.0), []) == ["a", "b"]
