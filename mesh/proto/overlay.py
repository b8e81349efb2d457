"""Which peers a member keeps links with: all of its site, and, as a gateway, a few far ones.

It knows no link and no address: it is told who is a member, who is known unreachable, which
links are up and how far they are. Rules: who is a gateway follows from the roster and from what
the site knows of its own members, so nobody elects anybody and one too many does no harm; two
rings over the sites (one a gateway) hold the fleet together whatever chance picks; a far peer
that cannot be had within ``PATIENCE_S`` gives way to the next of its site, then to the next
site, and is tried again later, beside whoever stands in for it.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.proto.rendezvous import ranked

GATEWAYS: Final = 2
GATEWAYS_LARGE: Final = 3
LARGE_SITE: Final = 30
"""A site with more members than this has a third gateway."""
FULL_MESH_MAX: Final = 64
"""Up to so many members of a site all keep links with each other. Above it, each keeps its
gateways and ``NEAR_ON_RING`` members to each side on the site's ring; gateways keep all."""
NEAR_ON_RING: Final = 8
RANDOM_SITES: Final = 2
TRIED_OF_SITE: Final = 4
"""Members of a far site that are tried before the next site is."""
TRIED_SITES: Final = 8
PATIENCE_S: Final = 10.0
"""How long a far peer may take to be linked before the next one is tried as well."""
FORGIVE_S: Final = 60.0
"""When a far peer that could not be had is tried again; doubles up to ``FORGIVE_MAX_S``."""
FORGIVE_MAX_S: Final = 3600.0
PROBE_S: Final = 60.0
"""Pause between looks for a nearer site; doubles up to ``PROBE_MAX_S`` while none is found."""
PROBE_MAX_S: Final = 3600.0
PROBE_TRY_S: Final = 30.0
"""How long a probed site may take to show its round trip; above the pause of pings."""
NEARER: Final = 0.8
"""A site takes the place of the nearest one when it is nearer by this factor."""


class Chance(Protocol):
    """Where random choices come from."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Keep main links with these peers, and no others by our own doing (hubs aside)."""

    peers: frozenset[str]


def gateways_of(members: Collection[str], site: str, absent: Collection[str] = ()) -> list[str]:
    """Return the gateways of a site, first one first: whoever of its members is not absent.

    When everybody is absent nobody is left out: then it is we who see nothing.
    """
    present = [node for node in members if node not in absent] or list(members)
    count = GATEWAYS if len(members) <= LARGE_SITE else GATEWAYS_LARGE
    return ranked(present, f"gateway/{site}")[:count]


class Overlay:
    """The choice of one member; ``wanted`` is what it comes to."""

    def __init__(self, me: str, site: str, key: bytes, chance: Chance) -> None:
        """``site``: "" for a hub, which wants nobody; ``key`` keys the rings of the fleet."""
        self.wanted: frozenset[str] = frozenset()
        self.deadline: float | None = None
        self._me, self._site, self._key, self._chance = me, site, key, chance
        self._members: Mapping[str, Sequence[str]] = {}
        self._site_of: dict[str, str] = {}
        self._ring: list[str] = []
        self._absent: frozenset[str] = frozenset()
        self._links: Mapping[str, float | None] = {}
        self._gateways: dict[str, list[str]] = {}
        self._trying: dict[str, float] = {}
        self._failed: dict[str, tuple[float, float]] = {}
        self._random: list[str] = []
        self._round_trips: dict[str, float] = {}
        self._near: str | None = None
        self._probe: tuple[str, float] | None = None
        self._probe_pause_s = PROBE_S
        self._probe_at = float("-inf")
        self._now = float("-inf")
        self._seen_unhad: frozenset[str] = frozenset()

    # -- what it says ----------------------------------------------------------------------

    @property
    def is_gateway(self) -> bool:
        """Tell whether this member keeps links with other sites."""
        return self._me in self.gateways(self._site)

    def gateways(self, site: str) -> list[str]:
        """Return the gateways of a site, as far as we know, first one first."""
        found = self._gateways.get(site)
        if found is None:
            absent = self._absent if site == self._site else self._unhad()
            found = gateways_of(self._members.get(site, ()), site, absent)
            self._gateways[site] = found
        return found

    # -- events ----------------------------------------------------------------------------

    def on_members(self, members: Mapping[str, Sequence[str]], now: float) -> list[Wanted]:
        """The register says who is an active node of which site."""
        self._members = {site: nodes for site, nodes in members.items() if nodes}
        self._ring = sorted(self._members, key=self._place)
        self._gateways.clear()
        self._random = [site for site in self._random if site in self._members]
        self._round_trips = {
            site: rt for site, rt in self._round_trips.items() if site in self._members
        }
        if self._near not in self._members:
            self._near = None
        if self._probe is not None and self._probe[0] not in self._members:
            self._probe = None
        self._site_of = {n: site for site, nodes in self._members.items() for n in nodes}
        self._failed = {n: mark for n, mark in self._failed.items() if n in self._site_of}
        return self._choose(now)

    def on_absent(self, absent: Collection[str], now: float) -> list[Wanted]:
        """The site knows these members to be unreachable; this takes the place of before."""
        self._absent = frozenset(absent) - {self._me}
        self._gateways.clear()
        return self._choose(now)

    def on_links(self, links: Mapping[str, float | None], now: float) -> list[Wanted]:
        """These peers are linked, with their round trips in milliseconds where known."""
        self._links = links
        for node in links:
            self._trying.pop(node, None)
            self._failed.pop(node, None)
        return self._choose(now)

    def on_timer(self, now: float) -> list[Wanted]:
        """Do what is due."""
        return self._choose(now)

    # -- within ----------------------------------------------------------------------------

    def _choose(self, now: float) -> list[Wanted]:
        self._give_up(now)
        unhad = frozenset(self._unhad())
        if unhad != self._seen_unhad:
            self._seen_unhad = unhad
            self._gateways.clear()
        near = self._in_site()
        far = self._far(now) if self.is_gateway else set[str]()
        for node in [node for node in self._trying if node not in far]:
            del self._trying[node]
        for node in far - set(self._links):
            self._trying.setdefault(node, now)
        self._set_deadline(now)
        wanted = frozenset(near | far)
        if wanted == self.wanted:
            return []
        self.wanted = wanted
        return [Wanted(wanted)]

    def _give_up(self, now: float) -> None:
        """Set aside whoever could not be had in time."""
        self._now = now
        for node, since in list(self._trying.items()):
            if since + PATIENCE_S <= now:
                _, pause_s = self._failed.get(node, (0.0, FORGIVE_S / 2))
                pause_s = min(FORGIVE_MAX_S, 2 * pause_s)
                self._failed[node] = (now + pause_s, pause_s)
                del self._trying[node]

    def _unhad(self) -> set[str]:
        return {node for node, (until, _) in self._failed.items() if until > self._now}

    def _in_site(self) -> set[str]:
        members = self._members.get(self._site, ())
        others = {node for node in members if node != self._me}
        if len(members) <= FULL_MESH_MAX or self.is_gateway or self._me not in members:
            return others
        ring = sorted(members, key=self._place)
        at = ring.index(self._me)
        steps = [n for n in range(-NEAR_ON_RING, NEAR_ON_RING + 1) if n]
        kept = {ring[(at + step) % len(ring)] for step in steps}
        return kept | set(self.gateways(self._site)) - {self._me}

    def _far(self, now: float) -> set[str]:
        """Return the far peers: two on the ring, some by chance, the nearest, and a probe."""
        far: set[str] = set()
        at = self._ring.index(self._site)
        count = len(self._ring)
        used: set[str] = set()
        for step in (1, -1):
            sites = [self._ring[(at + step * n) % count] for n in range(1, count)]
            far |= self._slot(sites[:TRIED_SITES], used)
        self._pick_random(used)
        for site in self._random:
            far |= self._slot([site], used)
        self._look_near(used, now)
        for extra in (self._near, self._probe[0] if self._probe else None):
            if extra is not None and extra not in used:
                far |= self._slot([extra], used)
        return far

    def _slot(self, sites: Sequence[str], used: set[str]) -> set[str]:
        """Return whom to keep for one place: the best that may be had, and its stand-in."""
        kept: set[str] = set()
        for site in sites:
            if not kept:
                used.add(site)
            for node in self._candidates(site):
                if node in self._links:
                    used.add(site)
                    return kept | {node}
                if not kept and self._failed.get(node, (0.0, 0.0))[0] <= self._now:
                    kept.add(node)
        return kept

    def _candidates(self, site: str) -> Iterator[str]:
        """Return the members of a far site to try, our own number among gateways first."""
        gateways = self.gateways(site)
        mine = self.gateways(self._site).index(self._me) % len(gateways)
        yield from gateways[mine:]
        yield from gateways[:mine]
        rest = [node for node in self._members[site] if node not in gateways]
        yield from ranked(rest, f"gateway/{site}")[: TRIED_OF_SITE - len(gateways)]

    def _pick_random(self, used: set[str]) -> None:
        """Keep the sites that chance chose while they can be had; fill up what is missing."""
        unhad = self._unhad()
        self._random = [
            site
            for site in self._random
            if site not in used and not unhad.issuperset(self._candidates(site))
        ]
        if len(self._random) == RANDOM_SITES:
            return
        free = [s for s in self._ring if s != self._site and s not in (*used, *self._random)]
        while free and len(self._random) < RANDOM_SITES:
            site = free.pop(int(self._chance.random() * len(free)))
            if not unhad.issuperset(self.gateways(site)):
                self._random.append(site)

    # -- the nearest site ------------------------------------------------------------------

    def _look_near(self, used: set[str], now: float) -> None:
        """Remember how far the linked sites are, and probe another one now and then."""
        for node, round_trip in self._links.items():
            site = self._site_of.get(node, self._site)
            if round_trip is not None and site != self._site:
                self._round_trips[site] = round_trip
        unhad = self._unhad()
        for site in list(self._round_trips) if unhad else ():
            if unhad.issuperset(self._candidates(site)):
                del self._round_trips[site]
        best = min(
            (site for site in self._round_trips if site not in used),
            key=lambda site: (self._round_trips[site], site),
            default=None,
        )
        old = self._round_trips.get(self._near or "")
        if self._near in used or old is None:
            self._near = best
        elif best is not None and self._round_trips[best] < NEARER * old:
            self._near, self._probe_pause_s = best, PROBE_S
        self._next_probe(used, now)

    def _next_probe(self, used: set[str], now: float) -> None:
        if self._probe is not None:
            site, until = self._probe
            if until <= now or site in self._round_trips or site in used:
                self._probe = None
                self._probe_at = now + self._probe_pause_s
                self._probe_pause_s = min(PROBE_MAX_S, 2 * self._probe_pause_s)
        if self._probe is None and self._probe_at <= now:
            unknown = [s for s in self._ring if s not in self._round_trips and s not in used]
            unknown = [s for s in unknown if s != self._site]
            if unknown:
                site = unknown[int(self._chance.random() * len(unknown))]
                self._probe = (site, now + PROBE_TRY_S)
            else:
                self._probe_at = now + PROBE_MAX_S

    def _set_deadline(self, now: float) -> None:
        waits = [since + PATIENCE_S for since in self._trying.values()]
        waits += [until for until, _ in self._failed.values() if until > now]
        if self.is_gateway:
            waits.append(self._probe_at if self._probe is None else self._probe[1])
        waits = [at for at in waits if at > now]
        self.deadline = min(waits, default=None)

    def _place(self, name: str) -> bytes:
        return hashlib.blake2b(name.encode(), digest_size=8, key=self._key).digest()
