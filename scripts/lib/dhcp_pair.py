"""What the second node of a site costs the first: the same packets to one alone, then to each
of two, one after the other.

All machines are accepted servers, half of the packets are DISCOVERs, half REQUESTs for the
address that the machine has; ``WINDOW`` of them are under way at once. ``redundancy_ratio`` is
the slower of the two nodes over the one alone, medians of all rounds.
"""

import select
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from demo_processes import wait_for
from dhcp_site import FIXED, RELAYS, Site, request

from node.proto.dhcp import DISCOVER, REQUEST

NODES: Final = ("node-a", "node-b")
WINDOW: Final = 64
STALL_S: Final = 1.0
QUIET_S: Final = 12.0
"""A node of a site counts for ten seconds after it was last seen."""


def packets_of(known: int, count: int) -> list[bytes]:
    """Return the packets; the transaction id is the place in the list."""
    made: list[bytes] = []
    for xid in range(count):
        number = xid // 2 % known
        if xid % 2:
            at = (FIXED + number).to_bytes(4, "big")
            made.append(request(xid, number, REQUEST, RELAYS[0], REQUESTED_ADDRESS=at))
        else:
            made.append(request(xid, number, DISCOVER, RELAYS[0]))
    return made


def speed(site: Site, node: int, packets: list[bytes]) -> float:
    """Return how many packets a second a node answers; lost ones are sent again."""
    relay, where = site.relay(RELAYS[0]), site.nodes[node]
    open_ones: dict[int, float] = {}
    ahead = iter(range(len(packets)))
    answered, began = 0, time.monotonic()
    while answered < len(packets):
        while len(open_ones) < WINDOW and (xid := next(ahead, None)) is not None:
            open_ones[xid] = time.monotonic()
            relay.sendto(packets[xid], where)
        if not select.select([relay], [], [], STALL_S)[0]:
            for xid in open_ones:
                relay.sendto(packets[xid], where)
            continue
        while True:
            try:
                data = relay.recv(4096)
            except BlockingIOError:
                break
            answered += open_ones.pop(int.from_bytes(data[4:8], "big"), None) is not None
    relay.close()
    return len(packets) / (time.monotonic() - began)


def redundancy(stack: ExitStack, folder: Path, known: int, count: int, rounds: int) -> Any:
    """Run all rounds; return the figures."""
    site = Site(stack, folder, known, NODES)
    packets = packets_of(known, count)
    found: dict[str, list[float]] = {"alone": [], "first": [], "second": []}
    for _ in range(rounds):
        site.fleet.processes.stop(NODES[1])
        time.sleep(QUIET_S)
        speed(site, 0, packets[: count // 10])  # warm up
        found["alone"].append(speed(site, 0, packets))
        site.start(1)
        wait_for("both know all servers", site.settled, 180, site.fleet.processes)
        for node, key in enumerate(("first", "second")):
            speed(site, node, packets[: count // 10])
            found[key].append(speed(site, node, packets))
    median = {key: statistics.median(rates) for key, rates in found.items()}
    slower = min(median["first"], median["second"])
    return {
        "redundancy_ratio": round(slower / median["alone"], 3),
        "packets_per_s": {key: [round(rate) for rate in rates] for key, rates in found.items()},
    }
