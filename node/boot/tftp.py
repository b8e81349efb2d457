"""The TFTP service: one listener, one connected socket a transfer.

It decides nothing about the protocol (node/proto/tftp.py does). Rules: names are looked up in
the table of boot files and nowhere else; a client that repeats its request while it is being
served is not served twice; transfers are limited, one too many gets an ERROR and asks again.
"""

import errno
import os
import socket
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio

from mesh.host.log import Log
from node.boot.files import BootFile, BootFiles
from node.boot.sockets import udp_socket
from node.proto import tftp
from node.proto.tftp import Aborted, Finished, ReadRequest, ReadTransfer, Refusal, Send

TRANSFERS_MAX: Final = 256
PER_CLIENT_MAX: Final = 8
DRAIN_MAX: Final = 64
"""Datagrams taken in one wake-up before others have their turn."""

Address = tuple[str, int]


class TftpServer:
    """Serves boot files; ``run`` returns only when it is cancelled."""

    def __init__(
        self, files: BootFiles, log: Log, address: str, port: int, interface: str | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._files = files
        self._log = log
        self._address = address
        self._port = port
        self._interface = interface
        self._active: set[Address] = set()
        self._per_client: Counter[str] = Counter()

    def statistics(self) -> dict[str, int]:
        """Return counters of requests, transfers, bytes and repeated blocks."""
        return {**self.counts, "transfers": len(self._active)}

    def open(self) -> socket.socket:
        """Bind the port; raises LocalError when that cannot be."""
        return udp_socket("TFTP", self._address, self._port, self._interface)

    async def run(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve for ever on what ``open`` returned; reports the port."""
        async with trio.open_nursery() as nursery:
            task_status.started(int(listener.getsockname()[1]))
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(DRAIN_MAX):
                    try:
                        data, client = listener.recvfrom(tftp.REQUEST_BYTES_MAX + 1)
                    except BlockingIOError:
                        break
                    except OSError:  # an ICMP error of an earlier answer
                        continue
                    self._on_request(data, client, listener, nursery)

    def _on_request(
        self, data: bytes, client: Address, listener: socket.socket, nursery: trio.Nursery
    ) -> None:
        if client in self._active:
            self.counts["repeated_requests"] += 1
            return
        request = tftp.parse_request(data)
        if request is None:
            self.counts["malformed"] += 1
            return
        outcome = self._admit(request, client)
        if isinstance(outcome, Refusal):
            self.counts["refused"] += 1
            try:
                listener.sendto(outcome.datagram(), client)
            except OSError:
                self.counts["send_errors"] += 1
            return
        assert isinstance(request, ReadRequest)
        self._active.add(client)
        self._per_client[client[0]] += 1
        nursery.start_soon(self._serve, outcome, request, client)

    def _admit(self, request: ReadRequest | Refusal, client: Address) -> BootFile | Refusal:
        if isinstance(request, Refusal):
            return request
        if len(self._active) >= TRANSFERS_MAX or self._per_client[client[0]] >= PER_CLIENT_MAX:
            return Refusal(tftp.NOT_DEFINED, "too many transfers at once, ask again")
        file = self._files.get(request.name)
        if file is None:
            self._log.info("tftp file unknown", ip=client[0], name=request.name)
            return Refusal(tftp.NOT_FOUND, "there is no such file")
        return file

    async def _serve(self, file: BootFile, request: ReadRequest, client: Address) -> None:
        began = trio.current_time()
        try:
            with _opened(file) as content:
                transfer = ReadTransfer(content, request.options)
                end = await self._drive(transfer, client)
        except OSError as exc:
            end = Aborted(f"cannot read or send: {exc.strerror}", failure=True)
        finally:
            self._active.discard(client)
            self._per_client[client[0]] -= 1
            if not self._per_client[client[0]]:
                del self._per_client[client[0]]
        seconds = round(trio.current_time() - began, 3)
        if isinstance(end, Finished):
            self.counts["finished"] += 1
            self.counts["bytes_sent"] += end.bytes_sent
            self._log.info(
                "tftp finished", ip=client[0], name=file.name, bytes=end.bytes_sent, s=seconds
            )
        elif end.failure:
            self.counts["failed"] += 1
            self._log.warning(
                "tftp failed", ip=client[0], name=file.name, reason=end.sentence, s=seconds
            )
        else:
            self.counts["looked"] += 1

    async def _drive(self, transfer: ReadTransfer, client: Address) -> Finished | Aborted:
        """Run one transfer to its end over a socket that hears only this client."""
        with udp_socket("TFTP", self._address, 0, self._interface) as sock:
            sock.connect(client)
            effects = transfer.start(trio.current_time())
            while True:
                for effect in effects:
                    if not isinstance(effect, Send):
                        self.counts["repeated_blocks"] += transfer.retransmitted
                        return effect
                    try:
                        sock.send(effect.data)
                    except BlockingIOError:
                        self.counts["send_errors"] += 1  # as if lost: the timer sends it again
                assert transfer.deadline is not None
                effects = await self._next(transfer, sock)

    async def _next(self, transfer: ReadTransfer, sock: socket.socket) -> list[tftp.Effect]:
        assert transfer.deadline is not None
        with trio.move_on_at(transfer.deadline):
            while True:
                try:
                    data = sock.recv(tftp.REQUEST_BYTES_MAX)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(sock)
                    continue
                await trio.lowlevel.checkpoint()
                return transfer.on_datagram(data, trio.current_time())
        return transfer.on_timer(max(trio.current_time(), transfer.deadline))


@contextmanager
def _opened(file: BootFile) -> Generator[tftp.Content]:
    """Open a boot file for one transfer; raises OSError."""
    if file.path is None:
        yield file.content
        return
    descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _FileContent(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class _FileContent:
    """An open file as content; not mapped, since a file cut short would kill the process."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._size)
        data = os.pread(self._descriptor, stop - start, start)
        if len(data) != stop - start:
            raise OSError(errno.EIO, "the file became shorter while it was sent")
        return data
