"""Chunks of an asset over HTTP from several nodes, each verified before it is handed on.

It knows URLs and ranges, nothing of disks. Rule: a URL that stalls, breaks off or serves wrong
bytes is left for the next one at the very chunk where that happened; only when every URL failed
ROUNDS times without one good chunk in between does the step fail.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from blake3 import blake3

from node.ramdisk.errors import HttpError, StepFailed
from node.ramdisk.hardware import Hardware
from node.ramdisk.http import Connection, split_base
from node.ramdisk.manifest import MANIFEST_BYTES_MAX, Manifest, parse_manifest

ROUNDS: Final = 5
"""Times that each URL may fail in a row."""
BACKOFF_S: Final = (0.5, 1.0, 2.0, 4.0)
STALL_S: Final = 60.0
"""Longest wait for a byte: the node may still be fetching that part itself."""
URLS_MAX: Final = 16


class HttpSource:
    """The asset at ``urls`` (``http://A:P/assets/<id>`` each)."""

    def __init__(
        self,
        hardware: Hardware,
        asset: str,
        urls: Sequence[str],
        tick: Callable[[], None],
        bind_address: str | None = None,
    ) -> None:
        try:
            bases = [split_base(url) for url in urls[:URLS_MAX]]
        except ValueError as exc:
            raise StepFailed(f"an image cannot be fetched from there: {exc}") from exc
        if not bases:
            raise StepFailed("the order names no URL of the image")
        self._hardware = hardware
        self._asset = asset
        self._tick = tick
        self._urls = list(urls[:URLS_MAX])
        self._targets = [target for _host, _port, target in bases]
        self._connections = [
            Connection(host, port, hardware.now, bind_address, tick)
            for host, port, _target in bases
        ]
        self._current = 0
        self._failures = 0
        self.wrong_chunks = 0
        """Chunks that came with wrong bytes and were thrown away."""

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def manifest(self) -> Manifest:
        """Fetch the manifest from the first URL that serves the right one."""
        while True:
            try:
                connection = self._connections[self._current]
                target = self._targets[self._current] + "/manifest"
                status, headers = connection.request("GET", target, {}, stall_s=STALL_S)
                self._accept(status, (200,), headers, MANIFEST_BYTES_MAX)
                found = parse_manifest(connection.read_all(), self._asset)
            except (HttpError, StepFailed) as exc:
                self._leave(str(exc))
            else:
                self._failures = 0
                return found

    def chunks(self, manifest: Manifest, first: int, count: int) -> Iterator[bytes]:
        """Yield the chunks in order, each verified; StepFailed when no URL can serve one."""
        index, end = first, first + count
        while index < end:
            try:
                for data in self._stream(manifest, index, end):
                    self._failures = 0
                    index += 1
                    yield data
            except HttpError as exc:
                self._leave(str(exc))

    def _stream(self, manifest: Manifest, first: int, end: int) -> Iterator[bytes]:
        start = manifest.span(first)[0]
        stop = sum(manifest.span(end - 1))
        connection = self._connections[self._current]
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        target = self._targets[self._current]
        status, answer = connection.request("GET", target, headers, stall_s=STALL_S)
        whole = status == 200 and start == 0
        self._accept(status, (200, 206) if whole else (206,), answer, manifest.size)
        came_from = answer.get("content-range", f"bytes {start}-").split("-")[0]
        if status == 206 and came_from != f"bytes {start}":
            connection.close()
            raise HttpError(f"{self._urls[self._current]} sent another range")
        for index in range(first, end):
            data = connection.read(manifest.span(index)[1])
            if blake3(data).digest() != manifest.chunks[index]:
                self.wrong_chunks += 1
                connection.close()
                url = self._urls[self._current]
                raise HttpError(f"{url} sent chunk {index} with wrong bytes")
            yield data

    def _accept(
        self, status: int, wanted: tuple[int, ...], headers: dict[str, str], size_max: int
    ) -> None:
        url, connection = self._urls[self._current], self._connections[self._current]
        if status not in wanted:
            connection.close()
            raise HttpError(f"{url} answered with status {status}")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > size_max:
            connection.close()
            raise HttpError(f"{url} sends {length[:20]} bytes, more than is expected")

    def _leave(self, trouble: str) -> None:
        """Go on with the next URL, or give up."""
        self._hardware.say(f"image source: {trouble}")
        self._connections[self._current].close()
        self._current = (self._current + 1) % len(self._urls)
        self._failures += 1
        turn, place = divmod(self._failures, len(self._urls))
        if turn >= ROUNDS:
            raise StepFailed(f"no node serves {self._asset}: {trouble}")
        if place == 0:
            until = self._hardware.now() + BACKOFF_S[min(turn, len(BACKOFF_S)) - 1]
            while (left := until - self._hardware.now()) > 0:
                self._tick()
                self._hardware.sleep(min(left, 1.0))
