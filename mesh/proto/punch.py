"""Which address leads to a peer over UDP: probes, answers, roaming, hole punching.

Theory of operation. A probe carries a random token and goes, sealed, to an address; the peer
answers to where the probe came from and says what address that was. An answer proves that the
probed address leads to the peer and that the way back works: then, and only then, does the
address carry more than probes. Both sides do so for themselves, so a path is up on a side when
both directions have worked. Punching a hole is nothing else: both sides probe all addresses at
the same time; the first probe opens the sender's NAT for that address, one of the next gets in
through the hole that the other side has opened.

It knows no socket, key or clock. Rules: an address that has not answered gets a bounded number
of small probes and nothing else; a peer that moves is followed once its new address has
answered (an authentic datagram from there is only a hint: somebody may have forwarded it); a
path that is used is asked when it was silent for KEEPALIVE_S, and down when it does not answer;
a path that nobody uses costs nothing. Whatever the peer says, nothing raises.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Address = tuple[str, int]

PROBE: Final = 1
ANSWER: Final = 2
_PROBE: Final = struct.Struct(">BQ")
_ANSWER: Final = struct.Struct(">BQ16sH")

CANDIDATES_MAX: Final = 8
"""Addresses of one peer that are probed at once."""
PROBE_WAITS_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Waits before the probes of an address that is tried quietly."""
PUNCH_WAITS_S: Final = (0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.8, 1.0, 1.5)
"""Waits before the probes of an address while holes are punched: 5 s in all."""
AGAIN_FIRST_S: Final = 60.0
AGAIN_MAX_S: Final = 900.0
"""An address that did not answer is tried again after a wait that doubles to this."""
KEEPALIVE_S: Final = 20.0
"""A path in use that was silent so long is asked; NATs forget after 30 s at the earliest."""
USED_S: Final = 45.0
"""So long after the last datagram of ours a path counts as in use."""
CHECK_WAITS_S: Final = (0.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0)
"""Probes that a silent path gets; then it is down."""
ANSWER_S: Final = 2.0
"""An answer may take so long after the last probe."""
ADDRESSES_MAX: Final = 2 * CANDIDATES_MAX
"""Addresses under probe at once, with those that the peer's datagrams came from."""
TOKENS_MAX: Final = 64
"""Probes whose answers are awaited; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Seal and send this to an address."""

    address: Address
    payload: bytes


@dataclass(frozen=True, slots=True)
class PathUp:
    """This address leads to the peer, both ways."""

    address: Address
    round_trip_s: float


@dataclass(frozen=True, slots=True)
class PathDown:
    """The path in use does not answer any more."""


@dataclass(frozen=True, slots=True)
class SeenAs:
    """The peer sees our datagrams come from here."""

    address: Address


Effect = SendProbe | PathUp | PathDown | SeenAs


@dataclass(slots=True)
class _Try:
    """An address under probe: so many probes are out, the next step is at ``next_at``."""

    waits_s: Sequence[float]
    next_at: float
    done: int = 0


class PathCore:
    """One side's view of the UDP paths to one peer."""

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        """``random_bits(64)`` makes a token."""
        self.address: Address | None = None
        self.deadline: float | None = None
        self._random_bits = random_bits
        self._tries: dict[Address, _Try] = {}
        self._tokens: dict[int, tuple[Address, float]] = {}
        self._known: list[Address] = []
        self._again_s = AGAIN_FIRST_S
        self._again_at: float | None = None
        self._moved_to: Address | None = None
        self._heard_at = 0.0
        self._used_at = float("-inf")

    # -- events ------------------------------------------------------------------------------

    def start(self, addresses: Sequence[Address], now: float) -> list[Effect]:
        """Begin with the addresses that may be the peer's."""
        self._known = list(addresses)[:CANDIDATES_MAX]
        self._again_at = now
        return self._work(now)

    def punch(self, addresses: Sequence[Address], now: float) -> list[Effect]:
        """Probe these addresses now, as the peer does with ours."""
        for address in list(dict.fromkeys(addresses))[:CANDIDATES_MAX]:
            self._tries.pop(address, None)
            self._try(address, PUNCH_WAITS_S, now)
        return self._work(now)

    def on_payload(
        self, payload: bytes, source: Address, newest: bool, now: float
    ) -> list[Effect]:
        """Take an authentic datagram of kind PUNCH."""
        effects: list[Effect] = []
        if len(payload) == _PROBE.size and payload[0] == PROBE:
            token = _PROBE.unpack(payload)[1]
            answer = _ANSWER.pack(ANSWER, token, _packed(source[0]), source[1])
            effects.append(SendProbe(source, answer))
        elif len(payload) == _ANSWER.size and payload[0] == ANSWER:
            _, token, host, port = _ANSWER.unpack(payload)
            effects += self._on_answer(token, (_text(host), port), now)
        return effects + self.on_heard(source, newest, now)

    def on_heard(self, source: Address, newest: bool, now: float) -> list[Effect]:
        """An authentic datagram came from an address."""
        if source == self.address:
            self._heard_at = now
            if newest:
                self._moved_to = None
            return []
        if not newest:
            return []
        self._moved_to = source
        known = self._tries.get(source)
        if known is None:
            self._try(source, PROBE_WAITS_S, now)
        elif known.done < len(known.waits_s):
            known.next_at = now  # there is a hole now
        return self._work(now)

    def on_used(self, now: float) -> None:
        """Something of ours goes out on the path."""
        idle = not self._in_use(now)
        self._used_at = now
        if idle:
            self._plan(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Look at the clock at ``deadline`` (or later)."""
        if self.deadline is None or now < self.deadline:
            return []
        return self._work(now)

    # -- within ------------------------------------------------------------------------------

    def _on_answer(self, token: int, seen: Address, now: float) -> list[Effect]:
        address, sent_at = self._tokens.pop(token, (None, 0.0))
        if address is None:
            return []
        effects: list[Effect] = [SeenAs(seen)] if seen[1] else []
        self._tries.pop(address, None)
        if self.address in (None, address) or address == self._moved_to or self._silent(now):
            self._heard_at = now
            self._again_s, self._again_at = AGAIN_FIRST_S, None
            self._moved_to = None
            if address != self.address:
                self.address = address
                effects.append(PathUp(address, now - sent_at))
        self._plan(now)
        return effects

    def _work(self, now: float) -> list[Effect]:
        """Begin the tries that are due, send what is due, plan the rest."""
        if self._again_at is not None and now >= self._again_at:
            for address in self._known:
                self._try(address, PROBE_WAITS_S, now)
            self._again_at = now + self._again_s * (1 + self._random_bits(16) / (1 << 18))
            self._again_s = min(2 * self._again_s, AGAIN_MAX_S)
        if self.address is not None and self._silent(now):
            self._try(self.address, CHECK_WAITS_S, now)
        effects: list[Effect] = []
        for address, one in list(self._tries.items()):
            if now < one.next_at:
                continue
            if one.done < len(one.waits_s):
                effects.append(self._probe(address, one, now))
                continue
            del self._tries[address]
            if address == self.address:
                effects.append(PathDown())
                self.address = None
                self._again_at = now + self._again_s
        self._plan(now)
        return effects

    def _try(self, address: Address, waits_s: Sequence[float], now: float) -> None:
        if address not in self._tries and len(self._tries) < ADDRESSES_MAX:
            self._tries[address] = _Try(waits_s, now + waits_s[0])

    def _probe(self, address: Address, one: _Try, now: float) -> SendProbe:
        one.done += 1
        more = one.done < len(one.waits_s)
        one.next_at = now + (one.waits_s[one.done] if more else ANSWER_S)
        token = self._random_bits(64)
        self._tokens[token] = (address, now)
        while len(self._tokens) > TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        return SendProbe(address, _PROBE.pack(PROBE, token))

    def _silent(self, now: float) -> bool:
        """The path is in use and nothing was heard from it for too long."""
        return self._in_use(now) and now >= self._heard_at + KEEPALIVE_S

    def _in_use(self, now: float) -> bool:
        return now <= self._used_at + USED_S

    def _plan(self, now: float) -> None:
        times = [one.next_at for one in self._tries.values()]
        if self._again_at is not None:
            times.append(self._again_at)
        if self.address not in (None, *self._tries) and self._in_use(now):
            times.append(self._heard_at + KEEPALIVE_S)
        self.deadline = min(times, default=None)


def _packed(host: str) -> bytes:
    """Return an address as the 16 bytes of IPv6 (IPv4 mapped)."""
    address = ip_address(host)
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def _text(packed: bytes) -> str:
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return str(IPv4Address(packed[12:]))
    return str(IPv6Address(packed))
