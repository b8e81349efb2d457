"""The anchor of propagation: memberlist's gossip of one user message, over the same map.

As its ``state.go`` and ``queue.go`` do: every member that has the message sends it at each of
its gossip ticks (random phase) to ``nodes`` random others by UDP, until it was sent
``retransmit_mult * ceil(log10(n + 1))`` times. Its push/pull of the whole state is left out.
"""

import heapq
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.sim.delays import Delays
from tests.sim.geography import Geography


@dataclass(frozen=True)
class Gossip:
    """Settings, by the names of memberlist's ``config.go``."""

    gossip_interval_s: float
    gossip_nodes: int
    retransmit_mult: int = 4


WAN: Final = Gossip(0.5, 4)
LAN: Final = Gossip(0.2, 3)


def transmit_limit(members: int, mult: int) -> int:
    """Return how often a member sends one message (``retransmitLimit`` in ``util.go``)."""
    return mult * math.ceil(math.log10(members + 1))


def formula_ms(members: int, loss: float, settings: Gossip) -> float:
    """Return when all are reached by the formula of serf's simulator: 2 ln(n+1) / k(1-p)."""
    rounds = 2 * math.log(members + 1) / (settings.gossip_nodes * (1 - loss))
    return 1000 * rounds * settings.gossip_interval_s


def spread(
    rng: random.Random,
    site_of: Mapping[str, str],
    geography: Geography,
    loss: float,
    settings: Gossip,
    delays: Delays,
) -> int:
    """Let one message spread; add every member's delay, return the copies that arrived."""
    names = list(site_of)
    limit = transmit_limit(len(names), settings.retransmit_mult)
    sends: dict[str, int] = {}
    heap: list[tuple[float, int, str, bool]] = []
    number = copies = 0

    def plan(at: float, name: str, tick: bool) -> None:
        nonlocal number
        number += 1
        heapq.heappush(heap, (at, number, name, tick))

    plan(0.0, rng.choice(names), False)
    while heap:
        now, _, name, tick = heapq.heappop(heap)
        if not tick:
            copies += number > 1
            if name not in sends:
                sends[name] = 0
                if len(sends) > 1:
                    delays.add(now)
                plan(now + rng.random() * settings.gossip_interval_s, name, True)
            continue
        for _ in range(min(settings.gossip_nodes, limit - sends[name])):
            sends[name] += 1
            other = names[int(rng.random() * len(names))]
            if other != name and rng.random() >= loss:
                plan(now + geography.one_way_s(site_of[name], site_of[other]), other, False)
        if sends[name] < limit:
            plan(now + settings.gossip_interval_s, name, True)
    return copies


def anchor(
    seed: int, site_of: Mapping[str, str], loss: float, messages: int, settings: Gossip = WAN
) -> dict[str, Any]:
    """Return the anchor's figures over some messages."""
    rng = random.Random(seed)
    geography = Geography(rng, list(dict.fromkeys(site_of.values())))
    delays = Delays()
    copies = sum(
        spread(rng, site_of, geography, loss, settings, delays) for _ in range(messages)
    )
    return {
        "anchor": f"memberlist: {settings}",
        "anchor_p99_ms": delays.quantile_ms(0.99),
        "anchor_last_ms": delays.quantile_ms(1.0),
        "anchor_copies": round(copies / messages / len(site_of), 2),
        "anchor_formula_ms": round(formula_ms(len(site_of), loss, settings)),
        "anchor_formula_copies": transmit_limit(len(site_of), settings.retransmit_mult),
    }
