"""A Redfish service that does what it should not: one `Behaviour` per misdeed.

It answers every request by a function (method, path, body) -> bytes of a whole HTTP answer, or
HANG (say nothing), or CLOSE (hang up). It knows enough Redfish to lie credibly.
"""

import json
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

HANG = b"\0hang"
CLOSE = b"\0close"
DRIP = b"\0drip"
SYSTEM = "/redfish/v1/Systems/1"
RESET = f"{SYSTEM}/Actions/ComputerSystem.Reset"

Behaviour = Callable[[str, str, bytes], bytes]


@dataclass
class HostileBmc:
    """A running service: where it is, and what it was sent."""

    url: str
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


def answer(status: int, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def system(**changes: Any) -> dict[str, Any]:
    """A plausible ComputerSystem that is off and boots from disk."""
    return {
        "@odata.id": SYSTEM,
        "PowerState": "Off",
        "Boot": {"BootSourceOverrideTarget": "Hdd", "BootSourceOverrideEnabled": "Continuous"},
        "Actions": {"#ComputerSystem.Reset": {"target": RESET}},
        **changes,
    }


def plausible(method: str, path: str, body: bytes) -> bytes:
    """Says yes to every order and never does it."""
    if method in ("POST", "PATCH"):
        return answer(204, b"")
    if path == "/redfish/v1/":
        return answer(200, {"Systems": {"@odata.id": "/redfish/v1/Systems"}})
    if path == "/redfish/v1/Systems":
        return answer(200, {"Members": [{"@odata.id": SYSTEM}]})
    return answer(200, system())


def always(reply: bytes) -> Behaviour:
    return lambda method, path, body: reply


def on_system(reply: bytes) -> Behaviour:
    """Behave until the system itself is asked for."""
    return lambda method, path, body: (
        reply if path.startswith(SYSTEM) else plausible(method, path, body)
    )


@asynccontextmanager
async def hostile_bmc(
    behaviour: Behaviour, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[HostileBmc]:
    """Serve on a free loopback port until the end of the block."""
    bmc = HostileBmc("")

    async def serve(raw: trio.SocketStream) -> None:
        stream: trio.abc.Stream = raw
        if tls is not None:
            stream = trio.SSLStream(raw, tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                await _connection(stream, behaviour, bmc)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client had enough

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp,
            serve,
            0,
        )
        port = listeners[0].socket.getsockname()[1]
        bmc.url = f"http{'s' if tls else ''}://localhost:{port}"
        yield bmc
        nursery.cancel_scope.cancel()


async def _connection(stream: trio.abc.Stream, behaviour: Behaviour, bmc: HostileBmc) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            part = await stream.receive_some(65536)
            if not part:
                return
            buffer += part
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
        size = int(headers.get("content-length", "0"))
        while len(buffer) < size:
            buffer += await stream.receive_some(65536)
        body, buffer = buffer[:size], buffer[size:]
        method, path, _ = first.split(" ")
        bmc.requests.append((method, path, headers, body))
        reply = behaviour(method, path, body)
        if reply == CLOSE:
            return
        if reply == HANG:
            await trio.sleep_forever()
        if reply == DRIP:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            while True:
                await stream.send_all(b" ")
                await trio.sleep(0.05)
        await stream.send_all(reply)
