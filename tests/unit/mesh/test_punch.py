"""UDP paths: probing, keepalive, roaming, holes punched through NAT boxes of every kind."""

import random
from collections.abc import Callable
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.proto.punch import (
    ADDRESSES_MAX,
    AGAIN_FIRST_S,
    ANSWER,
    CHECK_WAITS_S,
    KEEPALIVE_S,
    PROBE_WAITS_S,
    PUNCH_WAITS_S,
    USED_S,
    Address,
    Effect,
    PathCore,
    PathDown,
    PathUp,
    SeenAs,
    SendProbe,
)

PUBLIC_A, PUBLIC_B = "198.51.100.1", "203.0.113.9"


class Box:
    """A NAT box: ports kept or chosen by destination, entry for whoever was written to."""

    def __init__(self, public: str, *, symmetric: bool = False, open_to_all: bool = False):
        self.public = public
        self.symmetric = symmetric
        self.open_to_all = open_to_all
        self.sent: set[tuple[int, Address]] = set()
        self.ports: dict[Address, int] = {}

    def out(self, port: int, to: Address) -> Address:
        if self.symmetric:
            port = self.ports.setdefault(to, 20_000 + 7 * len(self.ports))
        self.sent.add((port, to))
        return self.public, port

    def lets_in(self, port: int, source: Address) -> bool:
        return self.open_to_all or (port, source) in self.sent


class World:
    """Two path cores, each behind a box, with loss and delay."""

    def __init__(self, seed: int, a: Box, b: Box, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.boxes = {"a": a, "b": b}
        self.port = {"a": 1000, "b": 2000}
        self.cores = {name: PathCore(self.rng.getrandbits) for name in "ab"}
        self.log: list[tuple[str, Effect]] = []
        self.blocked = False
        self._count = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []

    def apply(self, name: str, effects: list[Effect]) -> None:
        for effect in effects:
            self.log.append((name, effect))
            if isinstance(effect, SendProbe):
                self.send(name, effect)

    def send(self, name: str, effect: SendProbe) -> None:
        source = self.boxes[name].out(self.port[name], effect.address)
        other = "b" if name == "a" else "a"
        if self.blocked or self.rng.random() < self.loss:
            return

        def arrive() -> None:
            box = self.boxes[other]
            if effect.address[0] == box.public and box.lets_in(effect.address[1], source):
                core = self.cores[other]
                self.apply(other, core.on_payload(effect.payload, source, True, self.now))

        self._count += 1
        at = self.now + 0.02 + 0.03 * self.rng.random()
        heappush(self._queue, (at, self._count, arrive))

    def run(self, until: float) -> None:
        while True:
            times = [core.deadline for core in self.cores.values() if core.deadline is not None]
            if self._queue:
                times.append(self._queue[0][0])
            if min(times, default=until) >= until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self._queue and self._queue[0][0] <= self.now:
                heappop(self._queue)[2]()
            for name, core in self.cores.items():
                self.apply(name, core.on_timer(self.now))

    def sent_to(self, name: str) -> dict[Address, int]:
        found: dict[Address, int] = {}
        for who, effect in self.log:
            if who == name and isinstance(effect, SendProbe):
                found[effect.address] = found.get(effect.address, 0) + 1
        return found

    def punch(self) -> None:
        for name, other in (("a", "b"), ("b", "a")):
            there = (self.boxes[other].public, self.port[other])
            self.apply(name, self.cores[name].punch([there], self.now))


def test_a_reachable_peer_is_found_by_the_first_address_and_tells_where_we_come_from():
    world = World(1, Box(PUBLIC_A), Box(PUBLIC_B, open_to_all=True))
    world.apply("a", world.cores["a"].start([(PUBLIC_B, 2000)], 0.0))
    world.run(5)
    assert world.cores["a"].address == (PUBLIC_B, 2000)
    assert world.cores["b"].address == (PUBLIC_A, 1000)
    assert ("a", SeenAs((PUBLIC_A, 1000))) in world.log
    assert world.cores["a"].deadline is None  # a path that nobody uses costs nothing


@pytest.mark.parametrize("seed", range(20))
def test_two_boxes_that_keep_ports_are_punched_with_loss_by_seed(seed: int):
    world = World(seed, Box(PUBLIC_A), Box(PUBLIC_B), loss=0.2)
    world.punch()
    world.run(8)
    assert world.cores["a"].address == (PUBLIC_B, 2000)
    assert world.cores["b"].address == (PUBLIC_A, 1000)


def test_one_symmetric_box_before_an_open_one_is_punched():
    world = World(2, Box(PUBLIC_A, symmetric=True), Box(PUBLIC_B, open_to_all=True))
    world.punch()
    world.run(8)
    assert world.cores["a"].address == (PUBLIC_B, 2000)
    assert world.cores["b"].address == (PUBLIC_A, 20_000)


def test_two_symmetric_boxes_stay_apart_and_the_probes_are_bounded():
    a, b = Box(PUBLIC_A, symmetric=True), Box(PUBLIC_B, symmetric=True)
    world = World(3, a, b)
    world.punch()
    world.run(1000)
    assert world.cores["a"].address is None
    assert world.sent_to("a") == {(PUBLIC_B, 2000): len(PUNCH_WAITS_S)}


def test_an_address_that_never_answers_gets_few_probes_and_ever_longer_waits():
    world = World(4, Box(PUBLIC_A), Box(PUBLIC_B))
    world.apply("a", world.cores["a"].start([("192.0.2.1", 9)], 0.0))
    world.run(AGAIN_FIRST_S - 1)
    assert world.sent_to("a") == {("192.0.2.1", 9): len(PROBE_WAITS_S)}
    world.run(86_400)
    assert world.sent_to("a")[("192.0.2.1", 9)] < 105 * len(PROBE_WAITS_S)


def test_a_path_in_use_is_kept_alive_and_given_up_when_it_is_cut():
    world = World(5, Box(PUBLIC_A), Box(PUBLIC_B, open_to_all=True))
    world.apply("a", world.cores["a"].start([(PUBLIC_B, 2000)], 0.0))
    world.run(1)
    before = world.sent_to("a")
    for second in range(1, 200):
        world.cores["a"].on_used(float(second))
        world.run(float(second + 1))
    assert world.cores["a"].address is not None
    probes = world.sent_to("a")[(PUBLIC_B, 2000)] - before[(PUBLIC_B, 2000)]
    assert probes == pytest.approx(200 / KEEPALIVE_S, abs=1)
    world.blocked = True
    world.cores["a"].on_used(200.0)
    world.run(200 + KEEPALIVE_S + sum(CHECK_WAITS_S) + 3)
    assert ("a", PathDown()) in world.log
    assert world.cores["a"].address is None
    world.blocked = False
    world.run(400)
    assert world.cores["a"].address == (PUBLIC_B, 2000)


def test_the_first_use_after_a_long_rest_asks_at_once():
    world = World(6, Box(PUBLIC_A), Box(PUBLIC_B, open_to_all=True))
    world.apply("a", world.cores["a"].start([(PUBLIC_B, 2000)], 0.0))
    world.run(10 * USED_S)
    world.blocked = True
    world.cores["a"].on_used(world.now)
    world.run(world.now + sum(CHECK_WAITS_S) + 3)
    assert world.cores["a"].address is None


def test_a_peer_that_moves_is_followed_once_the_new_address_has_answered():
    world = World(7, Box(PUBLIC_A, open_to_all=True), Box(PUBLIC_B, open_to_all=True))
    world.apply("a", world.cores["a"].start([(PUBLIC_B, 2000)], 0.0))
    world.run(5)
    world.port["b"] = 2222
    core = world.cores["a"]
    effects = core.on_heard((PUBLIC_B, 2222), True, world.now)
    assert core.address == (PUBLIC_B, 2000)
    world.apply("a", effects)
    world.run(6)
    assert core.address == (PUBLIC_B, 2222)


def test_a_forwarder_of_datagrams_does_not_become_the_path():
    """Somebody sends the peer's own datagrams on from elsewhere, and no answers back."""
    world = World(8, Box(PUBLIC_A, open_to_all=True), Box(PUBLIC_B, open_to_all=True))
    world.apply("a", world.cores["a"].start([(PUBLIC_B, 2000)], 0.0))
    world.run(5)
    world.apply("a", world.cores["a"].on_heard(("192.0.2.66", 66), True, world.now))
    world.apply("a", world.cores["a"].on_heard((PUBLIC_B, 2000), False, world.now))
    world.run(60)
    assert world.cores["a"].address == (PUBLIC_B, 2000)
    assert world.sent_to("a")[("192.0.2.66", 66)] == len(PROBE_WAITS_S)


def test_a_peer_cannot_make_us_probe_without_bound():
    core = PathCore(random.Random(9).getrandbits)
    sent = 0
    for port in range(1, 5000):
        sent += len(core.on_heard(("192.0.2.1", port), True, port * 1e-5))
    assert sent == ADDRESSES_MAX


@given(st.lists(st.tuples(st.binary(max_size=40), st.integers(1, 3), st.booleans())))
def test_garbage_never_raises(arriving: list[tuple[bytes, int, bool]]):
    core = PathCore(random.Random(0).getrandbits)
    core.start([("192.0.2.1", 1)], 0.0)
    for step, (payload, port, newest) in enumerate(arriving):
        for tagged in (payload, bytes([ANSWER]) + payload):
            core.on_payload(tagged, ("192.0.2.1", port), newest, step / 10)
        core.on_timer(step / 10)
    assert not any(isinstance(one, PathUp) for one in core.on_timer(1e9))
