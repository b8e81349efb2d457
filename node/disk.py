"""Keeps room on the node's disk: the cache gives first, so that the state can be written.

It decides nothing: the cache knows when the disk is short (its reserve), and what may go stands
in ``node/proto/eviction.py``. Rule: nothing goes while there is room.
"""

from typing import Final

import trio

from cache.api import Cache

LOOK_S: Final = 5.0


async def keep_room(cache: Cache) -> None:
    """Let assets go while the disk is short, until cancelled."""
    while True:
        cache.make_room(0)
        await trio.sleep(LOOK_S)
