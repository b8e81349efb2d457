"""The page of the mesh: the picture, the halos, the lists that say the same."""

from hub.proto.mesh_map import NODES_MAX, RING, SITES_MAX, draw
from mesh.rest.mesh_types import MeshAway
from tests.support.hub_bench import HUB, NODE_B
from tests.support.mesh_seen import SeenMesh, link
from tests.unit.hub.test_pages import console


def seen(**others: list[str]) -> SeenMesh:
    """A hub linked to a1 and b1, and what these and others say of each other."""
    mesh = SeenMesh(HUB, "hub", lambda: [link("a1", "a1", "one"), link("b1", "b1", "two")])
    sites = {"a": "one", "b": "two", "c": "three"}
    mesh.others = {
        node: [link(peer, peer, sites[peer[0]]) for peer in peers]
        for node, peers in others.items()
    }
    return mesh


def test_members_that_nobody_sees_stand_in_a_halo_of_their_own():
    mesh = seen(a1=["a2"], b1=[])
    mesh.away = [
        MeshAway(node="c1", name="c1", site="three", role="node", since_ms=1, by="here")
    ]
    topology = mesh.looked()[1]
    assert topology["unknown"] == ["c1"]
    picture = draw(topology)
    assert [halo.part for halo in picture.halos] == [None]
    assert {dot.node["node"] for dot in picture.dots} == {HUB, "a1", "a2", "b1", "c1"}
    assert len(picture.lines) == 3


def test_a_part_that_is_only_linked_to_itself_has_its_own_number_and_halo():
    topology = seen(a1=[], c1=["c2"])
    found = topology.looked()[1]
    assert [(p["nodes"], p["here"]) for p in found["parts"]] == [(3, True), (2, False)]
    assert [halo.part for halo in draw(found).halos] == [1]


def test_a_whole_mesh_has_no_halo_and_equal_topologies_equal_pictures():
    mesh = seen(a1=["b1"], b1=["a1"])
    first, second = draw(mesh.looked()[1]), draw(mesh.looked()[1])
    assert first == second
    assert first.halos == []
    assert [edge.edge["said_by"] for edge in first.lines].count(2) == 1


def test_what_does_not_fit_is_counted():
    many = [link(f"n{n:03}", f"n{n:03}", f"site{n:03}") for n in range(SITES_MAX + 7)]
    crowd = [link(f"m{n:03}", f"m{n:03}", "site000") for n in range(NODES_MAX + 4)]
    picture = draw(SeenMesh(HUB, "hub", lambda: [*many, *crowd]).looked()[1])
    assert picture.sites_left_out == 7
    assert [label.more for label in picture.labels if label.text == "site000"] == [5]
    assert all(0 <= dot.x <= 720 and 0 <= dot.y <= 720 for dot in picture.dots)
    assert RING < 360


async def test_the_page_says_in_words_what_the_picture_shows(tmp_path):
    async with console(tmp_path) as (bench, browser):
        away = MeshAway(
            node=NODE_B, name="fra1-b", site="fra1", role="node", since_ms=None, by="here"
        )
        bench.services.mesh.away = [away]
        text = await browser.text("/mesh")
        assert "Nobody who answers has a link to fra1-b" in text
        assert "this hub has no link to it" in text
        assert "<svg" in text
        assert "1.2 ms" in text
