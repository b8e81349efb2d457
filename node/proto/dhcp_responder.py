"""Answers that were given before: the same packet at the same snapshot gets the same bytes.

It knows no sockets. Rules: a packet is the same when it is equal from behind its ``secs`` field
on (flags, addresses, all options); of the reply only the transaction id is another. What is
kept is a result of ``lease.answer``, so remembering changes no byte, and a new snapshot empties
it. A binding that must be durable first is never answered from here.
"""

from dataclasses import dataclass
from typing import Final

from node.proto.dhcp import Packet
from node.proto.dhcp_answer import Answer
from node.proto.lease_snapshot import Snapshot
from node.proto.port_lock import port_of

REPLIES_MAX: Final = 10_240
"""A hall of 5,000 machines that start; all are forgotten when one more comes."""
PACKET_BYTES_MAX: Final = 600
"""Longer packets are worked out each time: what is remembered stays small."""
_HEAD: Final = b"\x01\x01\x06"
SECS_END: Final = 10


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that was given, and what the packet said of its sender."""

    mac: str
    relay: bytes  # giaddr, four bytes
    relay_port: str
    port: str  # believed: a relay says so
    source: str  # that the packet came from when it was looked at
    answer: Answer
    to: str  # where the reply goes


class Responder:
    """The answers given from one snapshot."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[bytes, Known] = {}

    def find(self, snapshot: Snapshot, data: bytes) -> Known | None:
        """Return what the same packet was answered, None when it was not yet."""
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._known.clear()
            return None
        return self._known.get(data[SECS_END:]) if data[:3] == _HEAD else None

    def keep(
        self, snapshot: Snapshot, data: bytes, source: str, packet: Packet, answer: Answer
    ) -> None:
        """Remember an answer with a reply; one that is not to be repeated is passed over."""
        if answer.reply is None or answer.claim is not None or snapshot is not self._snapshot:
            return
        if len(data) > PACKET_BYTES_MAX or data[:3] != _HEAD:
            return
        if len(self._known) >= REPLIES_MAX:
            self._known.clear()
        self._known[data[SECS_END:]] = Known(
            packet.mac, packet.giaddr.packed, packet.relay_port, port_of(packet), source,
            answer, str(answer.reply.address),
        )  # fmt: skip


def with_xid(reply: bytes, packet: bytes) -> bytes:
    """Return a reply under the transaction id of a packet."""
    return reply[:4] + packet[4:8] + reply[8:]
