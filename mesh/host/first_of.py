"""Waiting for the first of several things: a change of this or of that.

It knows nothing of what is waited for. Rule: it returns when one wait has, and the others are
cancelled, so only waits on levels belong here (nothing is lost by asking again).
"""

from collections.abc import Awaitable, Callable

import trio


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as one of the waits does."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait)
