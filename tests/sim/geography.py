"""Where sites stand and how long a packet takes between them.

It knows no protocol. Sites are spread over regions on a map; between two sites a packet takes
WAN_S[0] plus its share of the distance, up to WAN_S[1], inside a site LAN_S; each packet has
some jitter on top. One-way times, seconds.
"""

import random
from collections.abc import Sequence
from typing import Final

LAN_S: Final = (0.0003, 0.0007)
WAN_S: Final = (0.010, 0.084)
JITTER_S: Final = 0.004
"""Most jitter of a packet between sites."""
REGION_SPREAD: Final = 0.08
"""How far from its region's middle a site stands; the map is 1 x 1."""


class Geography:
    """A map of sites."""

    def __init__(self, rng: random.Random, sites: Sequence[str], regions: int = 8) -> None:
        """``rng`` places the sites and gives the jitter."""
        self._rng = rng
        middles = [(rng.random(), rng.random()) for _ in range(regions)]
        self.region = {site: number % regions for number, site in enumerate(sites)}
        self._place = {
            site: tuple(
                at + rng.uniform(-REGION_SPREAD, REGION_SPREAD) for at in middles[region]
            )
            for site, region in self.region.items()
        }
        self._base: dict[tuple[str, str], float] = {}

    def base_s(self, a: str, b: str) -> float:
        """Return the least one-way time between two different sites."""
        found = self._base.get((a, b))
        if found is None:
            (ax, ay), (bx, by) = self._place[a], self._place[b]
            share = min(1.0, ((ax - bx) ** 2 + (ay - by) ** 2) ** 0.5)
            found = self._base[a, b] = WAN_S[0] + share * (WAN_S[1] - WAN_S[0])
        return found

    def one_way_s(self, a: str, b: str) -> float:
        """Return how long the next packet from site ``a`` to site ``b`` takes."""
        if a == b:
            return self._rng.uniform(*LAN_S)
        return self.base_s(a, b) + JITTER_S * self._rng.random()
