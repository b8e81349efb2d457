"""Bring a TCP port of a network namespace to this machine's loopback, for a browser.

demo_forward.py NAMESPACE_FILE PORT     prints its own port; connects to 127.0.0.1:PORT inside

It knows no bytes. Rule: the listener is made here, then the process enters the namespace for
good, so every connection that it opens is inside.
"""

import ctypes
import os
import sys

import trio

CLONE_NEWNET = 0x40000000


async def pass_on(source: trio.SocketStream, target: trio.SocketStream) -> None:
    async for piece in source:
        await target.send_all(piece)
    await target.send_eof()


async def main(namespace: str, port: int) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    inside = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(inside, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
    print(listener.socket.getsockname()[1], flush=True)

    async def serve(outer: trio.SocketStream) -> None:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as inner:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pass_on, outer, inner)
                    nursery.start_soon(pass_on, inner, outer)
        except* OSError:
            pass  # one side is gone, the browser asks again
        except* trio.BrokenResourceError:
            pass

    await trio.serve_listeners(serve, [listener])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
