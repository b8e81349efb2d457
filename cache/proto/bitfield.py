"""Which chunks are held: a bit a chunk, absent to present and (when damaged) back."""

from collections.abc import Iterator


class Bitfield:
    """``count`` bits, all clear at first."""

    def __init__(self, count: int, data: bytes = b"") -> None:
        size = -(-count // 8)
        self._bits = bytearray(data[:size].ljust(size, b"\0"))
        if count % 8 and self._bits:
            self._bits[-1] &= (1 << count % 8) - 1
        self.count = count
        self.have = sum(byte.bit_count() for byte in self._bits)

    def __getitem__(self, index: int) -> bool:
        assert 0 <= index < self.count
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    def __setitem__(self, index: int, value: bool) -> None:
        if self[index] != value:
            self._bits[index >> 3] ^= 1 << (index & 7)
            self.have += 1 if value else -1

    @property
    def full(self) -> bool:
        """All bits are set."""
        return self.have == self.count

    def missing(self) -> Iterator[int]:
        """Yield the clear bits, lowest first."""
        for index in range(self.count):
            if not self[index]:
                yield index

    def dump(self) -> bytes:
        """Return the bytes that ``Bitfield(count, data)`` takes."""
        return bytes(self._bits)
