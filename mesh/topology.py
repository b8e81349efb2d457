"""Which peers this member keeps main links with, kept up to date while it runs.

The choice is ``mesh/proto/overlay.py``'s; this shell tells it what the register, the links and
the site's failure detector say. Rule: ``wanted`` never names a hub (the hub link is the links'
own matter), and it is a level: whoever keeps the links asks again after ``wait_past``.
"""

import math
import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

import trio

from mesh.link.level import Level
from mesh.proto.overlay import Overlay

__all__ = ["Topology"]

POLL_S: Final = 30.0
"""How often round trips are looked at; of links coming and going we hear at once."""


class MemberPort(Protocol):
    """What is asked of one identity."""

    @property
    def node_id(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def roles(self) -> frozenset[str]: ...
    @property
    def status(self) -> str: ...


class RegisterPort(Protocol):
    """The part of ``mesh/proto/register.py`` that is asked."""

    @property
    def root_fp(self) -> bytes: ...
    def members(self) -> Collection[MemberPort]: ...


class RegisterStorePort(Protocol):
    """The part of ``mesh/register_store.py`` that is asked."""

    @property
    def version(self) -> int: ...
    @property
    def register(self) -> RegisterPort: ...
    async def wait_past(self, version: int) -> int: ...


class LinksPort(Protocol):
    """The part of ``mesh/link/peers.py`` that is asked."""

    @property
    def version(self) -> int: ...
    def connected(self) -> Mapping[str, Any]: ...
    def look_again(self) -> None: ...
    async def wait_past(self, version: int) -> int: ...


class DetectionPort(Protocol):
    """The part of the site's failure detector that is asked."""

    @property
    def version(self) -> int: ...
    def unreachable(self) -> Mapping[str, int]: ...
    async def wait_past(self, version: int) -> int: ...


class Topology:
    """See the module. Made before the links; ``run`` is given them."""

    def __init__(self, me: str, site: str, register: RegisterStorePort) -> None:
        """``site``: "" for a hub."""
        self._register = register
        self._overlay = Overlay(me, site, register.register.root_fp, random.SystemRandom())
        self._level = Level()
        self._kick = trio.Event()
        self._detection: DetectionPort | None = None
        self._sites: dict[str, str] = {}
        self._overlay.on_members(self._members(), -math.inf)

    @property
    def version(self) -> int:
        """Grows whenever anything that is said here may have changed."""
        return self._level.version

    async def wait_past(self, version: int) -> int:
        """Wait for a change."""
        return await self._level.wait_past(version)

    def wanted(self) -> Collection[str]:
        """Return the peers to keep main links with, hubs aside."""
        return self._overlay.wanted

    @property
    def is_gateway(self) -> bool:
        """Tell whether this member keeps links with other sites."""
        return self._overlay.is_gateway

    def gateways(self, site: str) -> list[str]:
        """Return the gateways of a site, as far as known here, first one first."""
        return self._overlay.gateways(site)

    def site_of(self, node: str) -> str | None:
        """Return the site of an active member, "" for a hub, None for anybody else."""
        return self._sites.get(node)

    async def run(
        self,
        links: LinksPort,
        detection: DetectionPort | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Follow the register, the links and the detector until cancelled."""
        self._detection = detection
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, self._register, self._members_changed, links)
            nursery.start_soon(self._watch, links, self._links_changed, links)
            if detection is not None:
                nursery.start_soon(self._watch, detection, self._absent_changed, links)
            task_status.started()
            while True:
                self._kick = kick = trio.Event()
                deadline = self._overlay.deadline
                at = trio.current_time() + POLL_S if deadline is None else deadline
                with trio.move_on_at(min(at, trio.current_time() + POLL_S)):
                    await kick.wait()
                if not kick.is_set():
                    self._links_changed(links)

    async def _watch(
        self, level: "_Level", changed: Callable[[LinksPort], None], links: LinksPort
    ) -> None:
        while True:
            version = level.version
            changed(links)
            self._kick.set()
            await level.wait_past(version)

    def _members_changed(self, links: LinksPort) -> None:
        self._tell(self._overlay.on_members(self._members(), trio.current_time()), links)

    def _links_changed(self, links: LinksPort) -> None:
        linked = {node: info.round_trip_ms for node, info in links.connected().items()}
        self._tell(self._overlay.on_links(linked, trio.current_time()), links)

    def _absent_changed(self, links: LinksPort) -> None:
        if self._detection is not None:
            absent = self._detection.unreachable()
            self._tell(self._overlay.on_absent(absent, trio.current_time()), links)

    def _tell(self, effects: Collection[object], links: LinksPort) -> None:
        self._level.bump()
        if effects:
            links.look_again()

    def _members(self) -> dict[str, list[str]]:
        """Return the nodes of each site; note of everybody where it belongs."""
        active = [m for m in self._register.register.members() if m.status == "member"]
        self._sites = {m.node_id: "" if "hub" in m.roles else m.site for m in active}
        found: dict[str, list[str]] = {}
        for member in active:
            if member.site and "node" in member.roles and "hub" not in member.roles:
                found.setdefault(member.site, []).append(member.node_id)
        return found


class _Level(Protocol):
    """Anything that may be waited for."""

    @property
    def version(self) -> int: ...
    async def wait_past(self, version: int) -> int: ...
