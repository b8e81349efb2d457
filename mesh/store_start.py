"""What a store settles with its surroundings at a start: the time, and what to do without it.

It knows heads, no rows. Rule: nothing is stamped before the clock was compared with what the
heads that we hold have promised.
"""

import sqlite3
from pathlib import Path
from typing import Final

from mesh.errors import Refused
from mesh.host.clock import SteadyClock
from mesh.proto.hlc import milliseconds
from mesh.store_file import get_meta, set_meta
from mesh.store_sql import SqlStorage

SLACK_MS: Final = 3_600_000
"""How far writes by the right time may move stamps that a wrong clock has put too high."""


def claim_author(db: sqlite3.Connection, path: Path, author: str) -> None:
    """Make a store an author's for good; raises Refused when it is another's."""
    owner = get_meta(db, "author")
    if owner is None:
        set_meta(db, "author", author)
    elif owner != author:
        raise Refused(f"the store {path} belongs to node {owner}, not to {author}")


def begin_time(
    db: sqlite3.Connection, storage: SqlStorage, author: str, clock: SteadyClock
) -> None:
    """Compare the clock with the latest time that our store has seen signed.

    Our own heads count, and of others the latest time that two of them have reached: one alone
    may be wrong, or lie. What was promised by a clock that the operator has called wrong counts
    no more.
    """
    seen: dict[str, int] = {}
    for signed in storage.heads():
        head = signed.head
        seen[head.author] = max(seen.get(head.author, 0), milliseconds(head.floor))
    own_ms = seen.pop(author, 0)
    others_ms = sorted(seen.values(), reverse=True)
    promised_ms = max(own_ms, others_ms[1] if len(others_ms) > 1 else 0)
    if clock.trusting:
        set_meta(db, "promised_wrongly_ms", str(promised_ms))
    if promised_ms > int(get_meta(db, "promised_wrongly_ms") or 0) + SLACK_MS:
        clock.begin(promised_ms)


def instead(path: Path, hub: bool) -> str:
    """Say how a member goes on without its store: others hold what it has signed."""
    lost = " but for what only hubs keep, if there is no other hub" if hub else ""
    return (
        f"move it away (mv {path} {path}.damaged) and start again; the other members give back"
        f" what was written here{lost}"
    )
