"""An HTTP origin for tests: ranges, ETag, and faults on request; its log is the truth."""

from dataclasses import dataclass, field

import h11
import trio


@dataclass
class Origin:
    """Serves ``content`` at every path; ``cut_after`` ends a body early, once per entry."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    status: int = 200
    """Of an answer in full."""
    sent: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0
    pause_s: float = 0
    """After each 64 KiB."""

    async def run(self, *, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/image"

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                break
            else:
                return
        headers = {k.decode(): v.decode() for k, v in event.headers}
        self.requests.append((event.method.decode(), headers.get("range")))
        start, status = 0, self.status
        wanted = headers.get("range", "")
        fresh = headers.get("if-range") in (None, self.etag)
        if wanted and self.ranges and fresh:
            start, status = int(wanted.removeprefix("bytes=").split("-")[0]), 206
        body = self.content[start:]
        head = event.method == b"HEAD"
        if self.status == 200 and self.etag and headers.get("if-none-match") == self.etag:
            status, head, body = 304, True, b""
        answer = [("Content-Length", str(len(body))), ("Connection", "close")]
        if self.etag:
            answer.append(("ETag", self.etag))
        if status == 206:
            end = len(self.content)
            answer.append(("Content-Range", f"bytes {start}-{end - 1}/{end}"))
        data = connection.send(h11.Response(status_code=status, headers=answer))
        assert data is not None
        await stream.send_all(data)
        if head:
            await stream.aclose()
            return
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        try:
            for i in range(0, len(body), 1 << 16):
                await stream.send_all(body[i : i + (1 << 16)])
                self.sent += len(body[i : i + (1 << 16)])
                if self.pause_s:
                    await trio.sleep(self.pause_s)
        except trio.BrokenResourceError:
            return
        await stream.aclose()
