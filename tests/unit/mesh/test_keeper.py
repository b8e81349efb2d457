"""Which hub a node keeps a link to: in virtual time, over links that are only names."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from mesh.errors import Unreachable
from mesh.link.keeper import Keeper
from mesh.proto.crossing import REDIAL_MAX_S, RETURN_S
from mesh.proto.register import HubAddress
from mesh.proto.rendezvous import ranked

NODE, HUBS = "n" * 32, ["a" * 32, "b" * 32, "c" * 32]


class FakeLink:
    def __init__(self, peer: str) -> None:
        self.peer, self.closed = peer, False
        self.gone = trio.Event()

    def close(self, _reason: str) -> None:
        self.closed = True
        self.gone.set()

    async def wait_closed(self) -> None:
        await self.gone.wait()


class Hubs:
    """Hubs that are up or not, and the links to them; register and links in one."""

    def __init__(self, regions: dict[str, str]) -> None:
        self.regions, self.up = regions, set(regions)
        self.made: dict[str, FakeLink] = {}
        self.version, self.register = 1, self
        self.node = Keeper(
            NODE, cast(Any, self), dict, None, cast(Any, self), cast(Any, self), Counter(),
            region=lambda: "eu",
        )  # fmt: skip

    def hubs(self) -> list[HubAddress]:
        return [HubAddress(hub, (), b"", region) for hub, region in self.regions.items()]

    def members(self) -> list[str]:
        return [NODE, *self.regions]

    def active(self, _node: str) -> bool:
        return True

    def live(self, node: str) -> Any:
        link = self.made.get(node)
        return link if link is not None and not link.closed else None

    async def wait_live(self, node: str) -> Any:
        while (link := self.live(node)) is None:
            await trio.sleep(1)
        return link

    async def connect(self, node: str) -> Any:
        await trio.sleep(0.1)
        if node not in self.up:
            raise Unreachable("it is down")
        link = self.made[node] = FakeLink(node)
        return link

    def kill(self, hub: str) -> None:
        self.up.discard(hub)
        if (link := self.live(hub)) is not None:
            link.close("killed")

    def linked(self) -> list[str]:
        return [hub for hub in self.regions if self.live(hub)]


async def run(hubs: Hubs, story: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hubs.node.run, True)
        await story()
        nursery.cancel_scope.cancel()


async def test_a_node_goes_to_the_next_hub_and_comes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hubs = Hubs(dict.fromkeys(HUBS, "eu"))
    first, second, third = ranked(HUBS, NODE)

    async def story() -> None:
        await trio.sleep(REDIAL_MAX_S)
        assert hubs.linked() == [first]
        hubs.kill(first)
        await trio.sleep(REDIAL_MAX_S)
        assert hubs.linked() == [second]
        hubs.kill(second)
        await trio.sleep(REDIAL_MAX_S)
        assert hubs.linked() == [third]
        hubs.up.add(second)
        await trio.sleep(2 * RETURN_S)
        assert hubs.linked() == [second], "it comes back by itself, link by link"
        hubs.up.add(first)
        await trio.sleep(2 * RETURN_S)
        assert hubs.linked() == [first]

    await run(hubs, story)


async def test_a_hub_of_the_own_region_is_liked_best(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near = ranked(HUBS, NODE)[-1]
    hubs = Hubs({hub: "eu" if hub == near else "us" for hub in HUBS})

    async def story() -> None:
        await trio.sleep(REDIAL_MAX_S)
        assert hubs.linked() == [near]
        hubs.kill(near)
        await trio.sleep(REDIAL_MAX_S)
        assert hubs.linked() == [ranked(HUBS, NODE)[0]]
        hubs.up.add(near)
        await trio.sleep(2 * RETURN_S)
        assert hubs.linked() == [near]

    await run(hubs, story)


@pytest.mark.parametrize("count", [1, 2])
async def test_a_node_without_a_choice_keeps_its_link(
    count: int, autojump_clock: trio.testing.MockClock
) -> None:
    hubs = Hubs(dict.fromkeys(HUBS[:count], "us"))

    async def story() -> None:
        await trio.sleep(REDIAL_MAX_S)
        before = SimpleNamespace(**hubs.made)
        await trio.sleep(20 * RETURN_S)
        assert vars(before) == hubs.made, "no link was made anew"

    await run(hubs, story)
