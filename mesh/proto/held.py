"""Records that came before what they need: kept for a while, by what they wait for.

It judges nothing: what is taken out is merged as if it had just come. Rule: bounded in number
and bytes, the oldest go first (peers give them again).
"""

from typing import Final

HELD_MAX: Final = 1024
HELD_BYTES_MAX: Final = 1 << 20


class Held:
    """Wire records by what they wait for."""

    def __init__(self) -> None:
        self.dropped = 0
        self._wires: dict[tuple[str, bytes], None] = {}
        self._bytes = 0

    def put(self, waits_for: str, wire: bytes) -> None:
        """Keep a record."""
        if (waits_for, wire) not in self._wires:
            self._wires[waits_for, wire] = None
            self._bytes += len(wire)
        while len(self._wires) > HELD_MAX or self._bytes > HELD_BYTES_MAX:
            _, oldest = next(iter(self._wires))
            self._remove(next(iter(self._wires)), oldest)
            self.dropped += 1

    def take(self, waits_for: str) -> list[bytes]:
        """Return what waits for this, and keep it no more."""
        found = [key for key in self._wires if key[0] == waits_for]
        for key in found:
            self._remove(key, key[1])
        return [wire for _, wire in found]

    def _remove(self, key: tuple[str, bytes], wire: bytes) -> None:
        del self._wires[key]
        self._bytes -= len(wire)
