"""A UDP path that loses, doubles, delays and invents datagrams, by a seed.

It knows addresses and bytes. Rule: what happens to a datagram depends on the seed and its
place in the order alone.
"""

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.socket import AF_INET, SOCK_DGRAM, SocketType

BYTES_MAX = 4000


@dataclass
class Path:
    """How bad the path is; probabilities of one datagram in one direction."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s: float = 0.3
    garbage: float = 0.0
    """A changed copy goes before the true datagram to the client..."""
    may_change: Callable[[bytes], bool] = lambda data: True
    """... if this says so; else a copy that was cut."""
    seed: int = 0
    port: int = 0
    """Where the client finds it."""
    counts: dict[str, int] = field(default_factory=dict)

    def happens(self, rng: random.Random, what: str) -> bool:
        if rng.random() >= getattr(self, what):
            return False
        self.counts[what] = self.counts.get(what, 0) + 1
        return True


@asynccontextmanager
async def bad_path(target: int, path: Path) -> AsyncGenerator[Path]:
    """Forward a port of loopback to another one until the end of the block."""
    rng = random.Random(path.seed)
    with trio.socket.socket(AF_INET, SOCK_DGRAM) as front:
        await front.bind(("127.0.0.1", 0))
        path.port = front.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, nursery, front, target, path, rng)
            yield path
            nursery.cancel_scope.cancel()


async def _serve(
    nursery: trio.Nursery, front: SocketType, target: int, path: Path, rng: random.Random
) -> None:
    backs: dict[object, SocketType] = {}
    try:
        while True:
            data, client = await front.recvfrom(BYTES_MAX)
            if client not in backs:
                back = trio.socket.socket(AF_INET, SOCK_DGRAM)
                await back.connect(("127.0.0.1", target))
                backs[client] = back
                nursery.start_soon(_answers, nursery, back, front, client, path, rng)
            await _pass_on(nursery, backs[client].send, data, path, rng)
    finally:
        for back in backs.values():
            back.close()


async def _answers(nursery, back, front, client, path, rng) -> None:
    async def send(data: bytes) -> None:
        await front.sendto(data, client)

    while True:
        try:
            data = await back.recv(BYTES_MAX)
        except ConnectionRefusedError:
            continue
        if path.happens(rng, "garbage"):
            cut = data[: rng.randrange(len(data))]
            await send(_changed(data, rng) if path.may_change(data) else cut)
        await _pass_on(nursery, send, data, path, rng)


def _changed(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes of a datagram behind the first four."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(4, len(changed))] = rng.randrange(256)
    return bytes(changed)


async def _pass_on(nursery, send, data, path, rng) -> None:
    if path.happens(rng, "lost"):
        return
    for _ in range(2 if path.happens(rng, "doubled") else 1):
        if path.happens(rng, "late"):
            nursery.start_soon(_late, send, data, path.late_s)
        else:
            await send(data)


async def _late(send, data: bytes, late_s: float) -> None:
    await trio.sleep(late_s)
    try:
        await send(data)
    except OSError:
        pass  # the target has gone
