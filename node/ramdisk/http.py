"""An HTTP/1.1 client for one connection, as small as the agent needs it.

It knows nothing of the agent's protocol. Standard ``http.client`` cannot go on with a body
after a read timed out; here every wait is cut into slices, and between slices the caller's
``tick`` runs: it sends progress, and may raise to leave. Rule: any doubt about the bytes ends
the connection.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from node.ramdisk.errors import HttpError

CONNECT_S: Final = 3.0
SLICE_S: Final = 1.0
"""Longest wait between two calls of ``tick``; below the progress interval."""
HEAD_BYTES_MAX: Final = 16 * 1024
BODY_BYTES_MAX: Final = 16 << 20
RECV_BYTES: Final = 256 * 1024


def _no_tick() -> None:
    return None


def split_base(url: str) -> tuple[str, int, str]:
    """Return (host, port, path) of an ``http://`` URL; raise ValueError for anything else."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url!r} is not an http:// URL")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return parts.hostname, parts.port or 80, target


class Connection:
    """One keep-alive connection to (host, port), opened at the first request."""

    def __init__(
        self,
        host: str,
        port: int,
        now: Callable[[], float],
        bind_address: str | None = None,
        tick: Callable[[], None] = _no_tick,
    ) -> None:
        self._host = host
        self._port = port
        self._now = now
        self._bind = bind_address
        self._tick = tick
        self._sock: socket.socket | None = None
        self._buffer = bytearray()
        self._left = 0
        self._until_close = False
        self._keep = True
        self._stall_s = 0.0

    def close(self) -> None:
        """Drop the connection; the next request opens a new one."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self._buffer.clear()
        self._left = 0

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        stall_s: float,
    ) -> tuple[int, dict[str, str]]:
        """Send a request and return (status, headers); the body waits in ``read``.

        ``stall_s`` bounds every wait for further bytes. Raises HttpError, with the connection
        closed; what ``tick`` raises passes through, with the connection closed too.
        """
        if self._left or self._until_close or not self._keep:
            self.close()
        self._stall_s = stall_s
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        try:
            self._connect()
            assert self._sock is not None
            self._sock.settimeout(stall_s)
            self._sock.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
            return self._read_head(method)
        except (OSError, ValueError) as exc:
            self.close()
            raise HttpError(f"{self._host}:{self._port}: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes of the body, fewer only at its end."""
        try:
            if not self._until_close:
                size = min(size, self._left)
            while len(self._buffer) < size:
                if not self._receive():
                    if not self._until_close:
                        raise HttpError(f"{self._host}:{self._port} closed inside a body")
                    self._until_close = False
                    self._keep = False
                    break
            data = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._left = max(0, self._left - len(data))
            return data
        except OSError as exc:
            self.close()
            raise HttpError(f"{self._host}:{self._port}: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def read_all(self) -> bytes:
        """Return the rest of the body, at most BODY_BYTES_MAX."""
        if self._left > BODY_BYTES_MAX:
            self.close()
            raise HttpError(f"a body of {self._left} bytes exceeds {BODY_BYTES_MAX}")
        if not self._until_close:
            return self.read(self._left)
        data = self.read(BODY_BYTES_MAX + 1)
        self.close()
        if len(data) > BODY_BYTES_MAX:
            raise HttpError(f"a body exceeds {BODY_BYTES_MAX} bytes")
        return data

    def _connect(self) -> None:
        if self._sock is not None:
            return
        source = (self._bind, 0) if self._bind else None
        self._sock = socket.create_connection((self._host, self._port), CONNECT_S, source)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer.clear()
        self._left, self._until_close, self._keep = 0, False, True

    def _read_head(self, method: str) -> tuple[int, dict[str, str]]:
        while True:
            while (end := self._buffer.find(b"\r\n\r\n")) < 0:
                if len(self._buffer) > HEAD_BYTES_MAX:
                    raise HttpError("a response head is too long")
                if not self._receive():
                    raise HttpError("the connection ended before a response")
            head = bytes(self._buffer[:end]).decode("latin-1")
            del self._buffer[: end + 4]
            status_line, *lines = head.split("\r\n")
            words = status_line.split(" ", 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise HttpError(f"not an HTTP response: {status_line[:60]!r}")
            status = int(words[1])
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._frame(method, status, headers, words[0])
        return status, headers

    def _frame(self, method: str, status: int, headers: Mapping[str, str], ver: str) -> None:
        if "transfer-encoding" in headers:
            raise HttpError("a chunked response is not expected here")
        connection = headers.get("connection", "").lower()
        self._keep = connection == "keep-alive" or (ver != "HTTP/1.0" and connection != "close")
        self._left, self._until_close = 0, False
        if method == "HEAD" or status in (204, 304):
            return
        length = headers.get("content-length")
        if length is None:
            self._until_close = True
        elif length.isascii() and length.isdigit():
            self._left = int(length)
        else:
            raise HttpError(f"not a length: {length[:30]!r}")

    def _receive(self) -> bool:
        """Append what the next wait brings to the buffer; False at the peer's end."""
        assert self._sock is not None
        last = self._now()
        while True:
            self._tick()
            self._sock.settimeout(SLICE_S)
            try:
                data = self._sock.recv(RECV_BYTES)
            except TimeoutError:
                if self._now() - last >= self._stall_s:
                    raise HttpError(f"no byte for {self._stall_s:.0f} s") from None
                continue
            self._buffer += data
            return bool(data)
