"""DHCP: a real node beside Kea (memfile) and dnsmasq, the same perfdhcp, in turns.

A figure is the highest offered rate (exchanges of four packets a second, in steps) at which at
most 2.5 % of the DISCOVERs and of the REQUESTs stay unanswered, as acknowledgements a second
that really came; best and median of ``--rounds`` rounds in which all servers take their turn.
Known machines have a reservation (Kea, dnsmasq) or are accepted servers (node); unknown ones
are new each time, so each exchange makes a lease. The node's are durable before the ACK; Kea's
file is written without fsync. All servers see option 82 that differs by machine.

Then three nodes of one site (``dhcp_site.py``): a storm of all known machines at one of them,
and the same packets to all three, whose replies are compared byte by byte; and two nodes beside
one alone (``dhcp_pair.py``).
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from dhcp_pair import redundancy  # noqa: E402
from dhcp_servers import (  # noqa: E402
    LOAD,
    MAC_BASE,
    RELAY,
    Server,
    Wires,
    dnsmasq_server,
    kea_server,
    missing,
    node_server,
)
from dhcp_site import Site, Storm, differing  # noqa: E402

DROPS_MAX: Final = 0.025
STEPS: Final = (
    100, 160, 250, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3000, 3500, 4000, 4500,
    5000, 5500, 6000, 6500, 7000, 7500, 8000, 9000, 10_000, 11_000, 12_500,
)  # fmt: skip
FIRST: Final = {"node": 1250, "kea": 1250, "dnsmasq": 100}
PORTS: Final = 2048
PAIR_PACKETS: Final = 60_000
UNKNOWN_EACH: Final = 1 << 20
"""perfdhcp takes its unknown machines from so many MACs."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Load:
    """What perfdhcp saw of one run."""

    sent: int
    offers: int
    requests: int
    acks: int
    seconds: float

    @property
    def passes(self) -> bool:
        """Whether few enough stayed unanswered."""
        lost = self.sent - self.offers, self.requests - self.acks
        of = max(1, self.sent), max(1, self.requests)
        return self.acks > 0 and all(n / m <= DROPS_MAX for n, m in zip(lost, of, strict=True))

    @property
    def rate(self) -> float:
        """Acknowledgements a second."""
        return self.acks / self.seconds


def perfdhcp(
    wires: Wires, server: Server, rate: int, seconds: int, first_mac: int, machines: int,
    seed: int,
) -> Load:  # fmt: skip
    """Run perfdhcp at an offered rate."""
    mac = first_mac.to_bytes(6, "big").hex(":")
    words = [
        "perfdhcp", "-4", "-l", LOAD, "-N", str(server.relay_port), "-r", str(rate), "-p",
        str(seconds), "-W", "700000", "-R", str(machines), "-b", f"mac={mac}", "-s", str(seed),
        RELAY,
    ]  # fmt: skip
    done = subprocess.run(
        wires.load.argv(*words), capture_output=True, text=True, timeout=120, check=False
    )
    found = re.findall(r"(sent|received) packets: (\d+)", done.stdout)
    if len(found) < 4:
        raise RuntimeError(f"perfdhcp: {done.stdout[-500:]}{done.stderr[-500:]}")
    sent, offers, requests, acks = (int(count) for _, count in found[:4])
    return Load(sent, offers, requests, acks, seconds)


def climb(
    wires: Wires, server: Server, machines: Callable[[], tuple[int, int]], seconds: int,
    seed: int, say: Say,
) -> float:  # fmt: skip
    """Offer more and more; return the rate of the highest step that passes (in two tries)."""
    at = STEPS.index(FIRST[server.name])
    best = 0.0
    while 0 <= at < len(STEPS):
        passed = False
        for attempt in range(2):
            load = perfdhcp(wires, server, STEPS[at], seconds, *machines(), seed + attempt)
            say(f"  {server.name} offered {STEPS[at]}: {load}")
            passed = load.passes
            if passed:
                break
        if passed:
            best = load.rate
            at += 1
        elif best or at == 0:
            break
        else:
            at -= 1
    return best


class Unknown:
    """Hands out ranges of MACs that no run has used."""

    def __init__(self) -> None:
        self._next = MAC_BASE + (1 << 24)

    def __call__(self) -> tuple[int, int]:
        """Return the first MAC of a new range, and how many it has."""
        self._next += UNKNOWN_EACH
        return self._next, UNKNOWN_EACH


def measure_rates(
    wires: Wires, servers: Sequence[Server], known: int, rounds: int, seconds: int, say: Say
) -> None:
    """Run all rounds: each server alone on the machine, known machines, then unknown ones."""
    for number in range(rounds):
        order = servers if number % 2 else [*reversed(servers)]
        for server in order:
            server.restart()
            perfdhcp(wires, server, 400, 3, MAC_BASE, known, 1)  # warm up
            for key, machines in (("known", lambda: (MAC_BASE, known)), ("dynamic", Unknown())):
                rate = climb(wires, server, machines, seconds, 10 * number, say)
                server.found.setdefault(key, []).append(rate)
                say(f"round {number + 1}, {server.name}, {key}: {rate:.0f}")
            server.end()


def figures(servers: Sequence[Server]) -> dict[str, Any]:
    """Return best and median of each server, and the ratios of the best."""
    best = {(s.name, key): max(rates) for s in servers for key, rates in s.found.items()}
    return {
        "dora_per_s": round(best["node", "known"]),
        "dora_per_s_dynamic": round(best["node", "dynamic"]),
        "kea_dora_per_s": round(best["kea", "known"]),
        "kea_dora_per_s_dynamic": round(best["kea", "dynamic"]),
        "dnsmasq_dora_per_s": round(best["dnsmasq", "known"]),
        "ratio": round(best["node", "known"] / best["kea", "known"], 2),
        "ratio_dynamic": round(best["node", "dynamic"] / best["kea", "dynamic"], 2),
        "rates": {
            s.name: {
                key: {"best": round(max(r)), "median": round(statistics.median(r))}
                for key, r in s.found.items()
            }
            for s in servers
        },
        "peers": {s.name: {"version": s.version, "command": s.command} for s in servers},
    }


def measure(args: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Run everything; return the figures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-dhcp-")))
        wires = Wires(stack, folder, PORTS)
        makers = (node_server, kea_server, dnsmasq_server)
        servers = [
            make(stack, folder, wires, number, args.known)
            for number, make in enumerate(makers, 1)
        ]
        for server in servers:
            stack.callback(server.end)
        measure_rates(wires, servers, args.known, args.rounds, args.seconds, say)
        found = figures(servers)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-dhcp-")))
        site = Site(stack, folder / "fleet", args.known)
        found |= Storm(site, args.known, args.storm_s).run()
        say(f"storm: {found['storm_p99_s']} s")
        alike = differing(site, args.packets, 1)
        say(f"alike: {alike}")
        found |= {
            "differing_bytes": alike.differing_bytes, "packets_compared": alike.packets,
            "packets_answered": alike.answered, "answered_by_some": alike.partly,
        }  # fmt: skip
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-dhcp-")))
        found |= redundancy(stack, folder / "pair", args.known, PAIR_PACKETS, args.rounds)
        say(f"two nodes: {found['redundancy_ratio']}")
    return {**found, "known": args.known, "drops_max": DROPS_MAX}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each step")
    parser.add_argument("--known", type=int, default=5000, help="known machines")
    parser.add_argument("--packets", type=int, default=1_000_000, help="for three nodes")
    parser.add_argument("--storm-s", type=float, default=10.0, help="all known start within")
    args = parser.parse_args()
    if absent := missing():
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
        return 1
    print(json.dumps(measure(args, lambda text: print(text, file=sys.stderr, flush=True))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
