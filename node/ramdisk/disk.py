"""Bytes on a disk: written past the page cache, read back from the device and not from memory.

It knows a block device or a regular file by its path, nothing of what the bytes mean. Rule:
what is said to be on the disk was read from it with O_DIRECT; where the file system has no
O_DIRECT (a simulated disk on tmpfs) pages are dropped first, and ``direct`` is False and shown
as such.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

from node.ramdisk.errors import StepFailed

IO_BYTES: Final = 4 << 20
"""Largest single read or write; the size of the one aligned buffer."""
BLKGETSIZE64: Final = 0x80081272
BLKRRPART: Final = 0x125F
BLKZEROOUT: Final = 0x127F
ALIGN: Final = 4096
"""Offsets and lengths of direct transfers; every logical sector size divides it."""


class DiskHandle:
    """An open disk. Use as a context manager; not for two users at once."""

    def __init__(self, path: str, sector_bytes: int = 512) -> None:
        assert sector_bytes in (512, 4096), "a logical sector is 512 or 4096 bytes"
        self.path = path
        self.sector_bytes = sector_bytes
        self.direct = True
        self._buffer = mmap.mmap(-1, IO_BYTES)
        try:
            self._fd = self._open()
        except BaseException:
            self._buffer.close()
            raise
        self.is_block = stat.S_ISBLK(os.fstat(self._fd).st_mode)
        self.size = self._measure()

    def __enter__(self) -> "DiskHandle":
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)
        self._buffer.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes as the device has them; any offset and length up to IO_BYTES - 8 KiB."""
        assert 0 <= offset <= offset + length <= self.size, "a read leaves the disk"
        first = offset - offset % ALIGN
        last = min(self.size, -(-(offset + length) // ALIGN) * ALIGN)
        self._fill(first, last - first)
        return self._buffer[offset - first : offset - first + length]

    def blocks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the device's bytes in pieces of at most IO_BYTES; ``offset`` is aligned."""
        assert offset % ALIGN == 0, "a sequential read begins aligned"
        end = self.size if length is None else offset + length
        while offset < end:
            piece = min(IO_BYTES, end - offset)
            self._fill(offset, min(-(-piece // ALIGN) * ALIGN, self.size - offset))
            yield self._buffer[:piece]
            offset += piece

    def write(self, offset: int, data: bytes) -> None:
        """Write at an aligned offset; a tail short of a sector is filled up with zeros."""
        assert offset % self.sector_bytes == 0, "a write begins on a sector"
        assert offset + len(data) <= self.size, "a write leaves the disk"
        position = 0
        while position < len(data):
            piece = data[position : position + IO_BYTES]
            self._drain(offset + position, piece)
            position += len(piece)

    def zero(self, offset: int, length: int) -> None:
        """Make whole sectors read as zeros; a device that can does so without their bytes."""
        assert offset % self.sector_bytes == 0 == length % self.sector_bytes, "whole sectors"
        assert offset + length <= self.size, "a write leaves the disk"
        if self.is_block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("QQ", offset, length))
                return
        for at in range(offset, offset + length, IO_BYTES):
            self._drain(at, bytes(min(IO_BYTES, offset + length - at)))

    def write_zeros(self, begin: int, end: int) -> Iterator[int]:
        """Write zeros ourselves, from an aligned offset; yield the length of each piece."""
        assert begin % ALIGN == 0, "an overwrite begins aligned"
        self._buffer[:] = bytes(IO_BYTES)
        offset = begin
        while offset < end:
            piece = min(IO_BYTES, end - offset)
            with memoryview(self._buffer) as view:
                done = 0
                while done < piece:
                    done += self._transfer_out(view[done:piece], offset + done)
            offset += piece
            yield piece

    def sync(self) -> None:
        """Return when everything written is on stable storage."""
        os.fsync(self._fd)
        if not self.direct:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def data_extents(self) -> list[tuple[int, int]]:
        """Return (offset, end) of what can hold bytes: a file's holes cannot."""
        if self.is_block:
            return [(0, self.size)]
        extents: list[tuple[int, int]] = []
        position = 0
        while position < self.size:
            try:
                begin = os.lseek(self._fd, position, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:
                    break
                return [(0, self.size)]
            position = os.lseek(self._fd, begin, os.SEEK_HOLE)
            extents.append((begin - begin % ALIGN, min(self.size, position)))
        return extents

    def reread_partitions(self) -> None:
        """Ask the kernel to look at the partition table again; harmless where it cannot."""
        if self.is_block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, BLKRRPART)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(self.path, flags | os.O_DIRECT)
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise StepFailed(f"{self.path} cannot be opened: {exc.strerror}") from exc
        self.direct = False
        return os.open(self.path, flags)

    def _measure(self) -> int:
        if not self.is_block:
            return os.fstat(self._fd).st_size
        found = fcntl.ioctl(self._fd, BLKGETSIZE64, bytes(8))
        return int(struct.unpack("Q", found)[0])

    def _fill(self, offset: int, length: int) -> None:
        """Read ``length`` bytes into the buffer. A file's unaligned end is read as it is."""
        assert length <= IO_BYTES, "more than the buffer holds"
        done = 0
        with memoryview(self._buffer) as view:
            while done < length:
                got = self._transfer_in(view[done : -(-length // ALIGN) * ALIGN], offset + done)
                if got <= 0:
                    raise StepFailed(f"{self.path} ends at {offset + done} while reading")
                done += got

    def _transfer_in(self, view: memoryview, offset: int) -> int:
        with view:
            try:
                return os.preadv(self._fd, [view], offset)
            except OSError as exc:
                if exc.errno == errno.EINVAL and self.direct:
                    self._leave_direct()
                    return os.preadv(self._fd, [view], offset)
                raise StepFailed(f"{self.path} cannot be read at {offset}: {exc}") from exc

    def _drain(self, offset: int, piece: bytes) -> None:
        length = -(-len(piece) // self.sector_bytes) * self.sector_bytes
        length = min(length, self.size - offset)
        self._buffer[: len(piece)] = piece
        self._buffer[len(piece) : length] = bytes(length - len(piece))
        done = 0
        with memoryview(self._buffer) as view:
            while done < length:
                done += self._transfer_out(view[done:length], offset + done)

    def _transfer_out(self, view: memoryview, offset: int) -> int:
        with view:
            try:
                return os.pwritev(self._fd, [view], offset)
            except OSError as exc:
                if exc.errno == errno.EINVAL and self.direct:
                    self._leave_direct()
                    return os.pwritev(self._fd, [view], offset)
                raise StepFailed(f"{self.path} cannot be written at {offset}: {exc}") from exc

    def _leave_direct(self) -> None:
        """Some file systems take the flag and refuse the transfer: go on without it."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self.direct = False
