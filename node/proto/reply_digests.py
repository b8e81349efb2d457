"""Do the nodes of a site really answer alike? Digests of replies, compared between them.

It knows no sockets and no clock but what it is told. Rule: a reply is a pure function of the
snapshot and the packet, so two nodes at one snapshot that answered the same packet must have
sent the same bytes. Each tells the others digests of what it was asked and what it said, all
but the transaction id; one that differs is an alarm, and one of the two is broken or no node of
ours. Nothing is concluded from packets that only one of them has seen.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PAIRS_MAX: Final = 1024
"""Of a message; the rest waits for the next one."""
WAITING_MAX: Final = 4096
"""Pairs not told yet; the oldest go first."""
KEPT_MAX: Final = 16_384
"""Own replies that are remembered for comparing; the oldest go first."""
DIGEST_BYTES: Final = 8
DIVERGED_S: Final = 3600.0
"""The alarm about a node lasts so long after its last differing reply."""
PEERS_MAX: Final = 64


def digest(data: bytes) -> bytes:
    """Return the digest of a packet or reply from behind its transaction id."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


@dataclass(slots=True)
class _Diverged:
    at: float
    mac: str
    count: int


class ReplyDigests:
    """What this node answered from its current snapshot, and who answered otherwise."""

    def __init__(self) -> None:
        self.compared = 0
        self._snapshot = ""
        self._own: OrderedDict[bytes, tuple[bytes, str]] = OrderedDict()
        self._waiting: list[list[bytes]] = []
        self._diverged: OrderedDict[str, _Diverged] = OrderedDict()

    def note(self, snapshot: str, packet: bytes, reply: bytes, mac: str) -> None:
        """Remember an answer; ``packet`` and ``reply`` are digests."""
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._own.clear()
            self._waiting.clear()
        self._own[packet] = (reply, mac)
        if len(self._own) > KEPT_MAX:
            self._own.popitem(last=False)
        self._waiting.append([packet, reply])
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[: WAITING_MAX // 2]

    def message(self) -> dict[str, Any] | None:
        """Return what the others shall hear now, None when there is nothing new."""
        if not self._waiting:
            return None
        pairs, self._waiting = self._waiting[:PAIRS_MAX], self._waiting[PAIRS_MAX:]
        return {"snapshot": self._snapshot, "pairs": pairs}

    def on_message(self, peer: str, body: Any, now: float) -> str | None:
        """Compare what a node of our site says; return the MAC of a first differing reply.

        What does not parse is passed over: a peer of a later version may say more.
        """
        if not isinstance(body, Mapping) or body.get("snapshot") != self._snapshot:
            return None
        pairs = body.get("pairs")
        differs: str | None = None
        for pair in pairs[:PAIRS_MAX] if isinstance(pairs, list) else ():
            match pair:
                case [bytes(packet), bytes(reply)] if packet in self._own:
                    self.compared += 1
                    own, mac = self._own[packet]
                    if reply != own:
                        differs = differs or mac
                        self._note_diverged(peer, mac, now)
                case _:
                    pass
        return differs

    def _note_diverged(self, peer: str, mac: str, now: float) -> None:
        before = self._diverged.pop(peer, None)
        self._diverged[peer] = _Diverged(now, mac, before.count + 1 if before else 1)
        while len(self._diverged) > PEERS_MAX:
            self._diverged.popitem(last=False)

    def problem(self, now: float) -> str | None:
        """Say for people who answers otherwise, None when all that was compared is alike."""
        recent = {p: one for p, one in self._diverged.items() if now - one.at <= DIVERGED_S}
        if not recent:
            return None
        told = ", ".join(
            f"node {peer[:8]} ({one.count} replies, last to {one.mac})"
            for peer, one in recent.items()
        )
        return (
            f"DHCP replies differ at the same snapshot: {told}; one of the two nodes is broken"
            " or changed: compare their builds (rackmesh node list) and restart the older"
        )
