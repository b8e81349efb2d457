"""The TFTP service: one listener, one connected socket a transfer, one task for all.

It decides nothing about the protocol (node/proto/tftp.py does). Rules: names are looked up in
the table of boot files and nowhere else; a client that repeats its request while it is being
served is not served twice; transfers are limited, one too many gets an ERROR and asks again.
All sockets stand in one epoll of our own, and what is ready is taken in rounds: with many
lockstep clients a task switch for each packet costs more than the packet.
"""

import contextlib
import select
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from mesh.errors import LocalError
from mesh.host.log import Log
from node.boot.files import BootFile, BootFiles
from node.boot.sockets import udp_socket
from node.boot.tftp_send import Ahead, BlockSender, Content, opened
from node.proto import tftp
from node.proto.tftp import (
    Aborted,
    Blocks,
    Caps,
    Finished,
    ReadRequest,
    ReadTransfer,
    Refusal,
    Send,
)

TRANSFERS_MAX: Final = 256
PER_CLIENT_MAX: Final = 8
DRAIN_MAX: Final = 64
"""Datagrams taken from the listener before others have their turn."""
BURST_S: Final = 0.004
"""How long ready sockets are served before other tasks of the node have their turn."""
ANSWER_S: Final = 0.001
"""How long a burst waits for the next packet: on a LAN it is there, and going through the event
loop takes longer."""
SPINS: Final = 100
"""Looks at the sockets, some 50 us, before a burst goes to sleep: waking up takes as long."""
NEVER: Final = float("inf")

Address = tuple[str, int]


class _Transfer:
    """One transfer and its socket."""

    __slots__ = ("ahead", "began", "client", "content", "core", "file", "open", "sock")

    def __init__(
        self, file: BootFile, client: Address, sock: socket.socket, now: float
    ) -> None:
        self.file, self.client, self.sock, self.began = file, client, sock, now
        self.open = contextlib.ExitStack()
        self.content: Content = b""
        self.ahead = Ahead()
        self.core: ReadTransfer


class TftpServer:
    """Serves boot files; ``run`` returns only when it is cancelled."""

    def __init__(
        self,
        files: BootFiles,
        log: Log,
        address: str,
        port: int,
        interface: str | None = None,
        *,
        caps: Callable[[str], Caps] = lambda _client_ip: Caps(),
        ours: Callable[[str], bool] = lambda _client_ip: True,
    ) -> None:
        """``caps`` tells what the machine at an address is granted.

        ``ours``: whether it is in our networks; nobody else is answered, as others may not have
        asked (reflection).
        """
        self.counts: Counter[str] = Counter()
        self._files = files
        self._log = log
        self._address = address
        self._port = port
        self._interface = interface
        self._caps = caps
        self._ours = ours
        self._active: dict[Address, _Transfer] = {}
        self._by_fd: dict[int, _Transfer] = {}
        self._per_client: Counter[str] = Counter()
        self._sender = BlockSender()
        self._epoll: select.epoll | None = None

    def statistics(self) -> dict[str, int]:
        """Return counters of requests, transfers, bytes and repeated blocks."""
        lost = self.counts["send_errors"] + self._sender.lost
        return {**self.counts, "send_errors": lost, "transfers": len(self._active)}

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
        with select.epoll() as epoll:
            self._epoll = epoll
            epoll.register(listener.fileno(), select.EPOLLIN)
            task_status.started(int(listener.getsockname()[1]))
            try:
                while True:
                    with trio.move_on_at(self._deadline()):
                        await trio.lowlevel.wait_readable(epoll.fileno())
                    self._serve_ready(epoll, listener)
                    self._on_time(trio.current_time())
                    await trio.lowlevel.checkpoint()
            finally:
                for transfer in list(self._active.values()):
                    self._close(transfer)
                self._epoll = None

    def _deadline(self) -> float:
        times = (one.core.deadline for one in self._active.values())
        return min((at for at in times if at is not None), default=NEVER)

    def _serve_ready(self, epoll: select.epoll, listener: socket.socket) -> None:
        door, until = listener.fileno(), trio.current_time() + BURST_S
        while ready := self._ready(epoll):
            now = trio.current_time()
            for fd, _ in ready:
                if fd == door:
                    self._on_listener(listener, now)
                elif fd in self._by_fd:
                    self._on_socket(self._by_fd[fd], now)
            if now >= until:
                return

    def _ready(self, epoll: select.epoll) -> list[tuple[int, int]]:
        """Return what is ready now, or soon while somebody is served."""
        ready = epoll.poll(0)
        if ready or not self._active:
            return ready
        for _ in range(SPINS):
            if ready := epoll.poll(0):
                return ready
        return epoll.poll(ANSWER_S)

    def _on_time(self, now: float) -> None:
        for transfer in list(self._active.values()):
            if transfer.core.deadline is not None and transfer.core.deadline <= now:
                self._perform(transfer, transfer.core.on_timer(now))

    # -- requests --------------------------------------------------------------------------

    def _on_listener(self, listener: socket.socket, now: float) -> None:
        for _ in range(DRAIN_MAX):
            try:
                data, client = listener.recvfrom(tftp.REQUEST_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier answer
                continue
            self._on_request(data, client, listener, now)

    def _on_request(
        self, data: bytes, client: Address, listener: socket.socket, now: float
    ) -> None:
        if client in self._active:
            self.counts["repeated_requests"] += 1
            return
        request = tftp.parse_request(data)
        if request is None:
            self.counts["malformed"] += 1
            return
        if not self._ours(client[0]):
            self.counts["foreign"] += 1
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
        self._begin(outcome, request, client, now)

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

    def _begin(self, file: BootFile, request: ReadRequest, client: Address, now: float) -> None:
        """Open the file and a socket that hears only this client, and answer."""
        assert self._epoll is not None
        try:
            sock = udp_socket("TFTP", self._address, 0, self._interface)
        except LocalError as exc:  # out of descriptors: the client asks again
            self.counts["failed"] += 1
            self._log.warning("tftp failed", ip=client[0], name=file.name, reason=str(exc))
            return
        transfer = _Transfer(file, client, sock, now)
        self._active[client] = self._by_fd[sock.fileno()] = transfer
        self._per_client[client[0]] += 1
        try:
            sock.connect(client)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            transfer.content = transfer.open.enter_context(opened(file))
        except OSError as exc:
            self._end(transfer, Aborted(f"cannot read or send: {exc.strerror}", failure=True))
            return
        caps = self._caps(client[0])
        transfer.core = ReadTransfer(len(transfer.content), request.options, caps)
        self._perform(transfer, transfer.core.start(now))

    # -- transfers -------------------------------------------------------------------------

    def _on_socket(self, transfer: _Transfer, now: float) -> None:
        try:
            data = transfer.sock.recv(tftp.REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as exc:  # the client's port is closed
            self._end(transfer, Aborted(f"cannot read or send: {exc.strerror}", failure=True))
            return
        self._perform(transfer, transfer.core.on_datagram(data, now))

    def _perform(self, transfer: _Transfer, effects: list[tftp.Effect]) -> None:
        for effect in effects:
            try:
                match effect:
                    case Blocks():
                        size = transfer.core.block_bytes
                        self._sender.send(
                            transfer.sock, transfer.content, effect, size, transfer.ahead
                        )
                    case Send(data):
                        transfer.sock.send(data)
                    case _:
                        self._end(transfer, effect)
            except BlockingIOError:
                self.counts["send_errors"] += 1  # as if lost: the timer sends it again
            except OSError as exc:
                said = f"cannot read or send: {exc.strerror}"
                self._end(transfer, Aborted(said, failure=True))

    def _close(self, transfer: _Transfer) -> None:
        client = transfer.client
        del self._active[client], self._by_fd[transfer.sock.fileno()]
        self._per_client[client[0]] -= 1
        if not self._per_client[client[0]]:
            del self._per_client[client[0]]
        transfer.sock.close()  # epoll forgets it
        transfer.open.close()

    def _end(self, transfer: _Transfer, end: Finished | Aborted) -> None:
        seconds = round(trio.current_time() - transfer.began, 3)
        ip, name = transfer.client[0], transfer.file.name
        core = getattr(transfer, "core", None)
        self.counts["repeated_blocks"] += core.retransmitted if core is not None else 0
        self._close(transfer)
        if isinstance(end, Finished):
            self.counts["finished"] += 1
            self.counts["bytes_sent"] += end.bytes_sent
            self._log.info("tftp finished", ip=ip, name=name, bytes=end.bytes_sent, s=seconds)
        elif end.failure:
            self.counts["failed"] += 1
            self._log.warning("tftp failed", ip=ip, name=name, reason=end.sentence, s=seconds)
        else:
            self.counts["looked"] += 1
