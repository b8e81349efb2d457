"""What a member says of the mesh: links, who is away, rates, and the topology of all."""

from dataclasses import dataclass, field
from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import Unreachable
from mesh.host.clock import FixedClock
from mesh.observer import FRESH_S, Observer, Who
from mesh.rest.mesh_view import LINKS_SAID_MAX, heard


@dataclass
class Info:
    since_ms: int = 5
    path: str = "relay hub1"
    address: str = "10.0.0.1:4770"
    dialled: bool = True
    round_trip_ms: float | None = 2.5
    bytes_in: int = 100
    bytes_out: int = 50


@dataclass
class Member:
    node_id: str
    site: str
    roles: frozenset[str] = frozenset({"node"})
    status: str = "member"
    name: str = ""


class Register:
    def __init__(self, *members: Member) -> None:
        self.all = list(members)

    def members(self) -> list[Member]:
        return self.all

    def digest(self) -> bytes:
        return bytes(16)


@dataclass
class Statistics:
    counters: dict[str, int] = field(default_factory=lambda: {"handshakes": 1})


class Peers:
    def __init__(self) -> None:
        self.links: dict[str, Info] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []

    def connected(self) -> dict[str, Info]:
        return dict(self.links)

    def statistics(self) -> Statistics:
        return Statistics()

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(node_id)
        answer = self.answers.get(node_id)
        if answer is None:
            raise Unreachable("gone")
        return answer


class Quiet:
    """A store and a replication with nothing in them."""

    heads: dict[Any, Any] = {}  # noqa: RUF012 - never written

    def authored(self, scope: str, table: str) -> list[Any]:
        return []

    def ages(self) -> dict[str, int]:
        return {"a2": 77}

    def statistics(self) -> dict[str, int]:
        return {"completed": 3}


def observer(peers: Peers, **more: Any) -> Observer:
    register = Register(
        Member("a1", "one"), Member("a2", "one"), Member("b1", "two"),
        Member("hub1", "", frozenset({"hub"})), Member("gone", "one", status="revoked"),
    )  # fmt: skip
    who = Who(node="a1", name="a1", site="one", role="node")
    quiet: Any = Quiet()
    return Observer(
        who, register=register, store=quiet, peers=peers, replication=quiet,
        clock=FixedClock(), **more,
    )  # fmt: skip


def test_a_link_says_its_path_and_when_it_was_compared():
    peers = Peers()
    peers.links = {"a2": Info(), "hub1": Info(path="websocket")}
    hub, a2 = observer(peers).links()
    assert (a2["path"], a2["synced_ms"], a2["role"]) == ("relay", 77, "node")
    assert (hub["path"], hub["synced_ms"], hub["role"]) == ("websocket", None, "hub")


def test_only_members_of_the_own_site_and_declared_ones_are_away_for_a_node():
    peers = Peers()
    peers.links = {"hub1": Info()}
    seen = observer(peers, unreachable=lambda: {"b1": 9}).mesh()
    assert [(one["node"], one["by"], one["since_ms"]) for one in seen["away"]] == [
        ("a2", "here", None), ("b1", "site", 9),
    ]  # fmt: skip
    assert not seen["healthy"]
    assert seen["members"] == {"member": 4, "revoked": 1}
    assert seen["counters"] == {"handshakes": 1, "completed": 3}


def test_a_member_without_any_link_is_not_healthy():
    assert not observer(Peers()).mesh()["healthy"]


def test_rates_and_departures_are_told_between_two_looks():
    peers = Peers()
    info = peers.links["a2"] = Info()
    watch = observer(peers)
    watch.sample(10.0)
    assert watch.links()[0]["in_per_s"] is None
    info.bytes_in, info.bytes_out = 400, 150
    watch.sample(20.0)
    assert (watch.links()[0]["in_per_s"], watch.links()[0]["out_per_s"]) == (30.0, 10.0)
    peers.links = {}
    watch.sample(30.0)
    (away,) = [one for one in watch.mesh()["away"] if one["node"] == "a2"]
    assert away["since_ms"] == FixedClock().now_ms()


async def test_a_topology_has_what_others_say_and_marks_who_was_not_heard(autojump_clock):
    peers = Peers()
    peers.links = {"a2": Info(), "hub1": Info()}
    peers.answers["hub1"] = {"gateway": False, "links": [["b1", "websocket", 4.0]]}
    watch = observer(peers)
    assert watch.looked() is None
    found = await watch.gather()
    by_node = {node["node"]: node for node in found["nodes"]}
    assert (found["asked"], found["answered"], found["unknown"]) == (2, 1, [])
    assert by_node["a2"]["as_of_ms"] is None
    assert by_node["hub1"]["as_of_ms"] is not None
    assert {(e["a"], e["b"]) for e in found["edges"]} == {
        ("a1", "a2"), ("a1", "hub1"), ("b1", "hub1"),
    }  # fmt: skip
    assert len(peers.asked) == 2
    await watch.gather()
    assert len(peers.asked) == 2  # a young answer is used again
    await trio.sleep(FRESH_S)
    await watch.gather()
    assert len(peers.asked) == 4


async def test_others_are_asked_again_only_while_somebody_looks(autojump_clock):
    peers = Peers()
    peers.links = {"a2": Info()}
    watch = observer(peers)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.run)
        await trio.sleep(100)
        assert peers.asked == []
        watch.looked()
        await trio.sleep(1)
        assert peers.asked == ["a2"]
        await trio.sleep(1000)
        asked = len(peers.asked)
        await trio.sleep(1000)
        assert len(peers.asked) == asked
        nursery.cancel_scope.cancel()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["links", "gateway", "x"]), inner, max_size=3)
    ),
)


@given(anything)
def test_garbage_never_raises(value):
    found = heard(value)
    assert found is None or len(found["links"]) <= LINKS_SAID_MAX
