"""What a member learns of its own sets from outside: writes it had lost, and a second self.

It knows no store. Rule: a head of ours that we did not sign in this process is one of two
things: what was lost before a restore, which is older than the moment when writing went on, or
the work of another process that has our keys.
"""

from mesh.host.log import get_log
from mesh.proto.hlc import milliseconds

log = get_log("store")


class OwnSets:
    """Counts what was taken back, and when somebody else was last seen to write as us."""

    def __init__(self, author: str, opened_ms: int, admitted: int) -> None:
        self.author = author
        self.admitted = admitted
        """Stamp at which own writes went on after the last restore: ours above it are new."""
        self.taken_back = 0
        self.twin_ms: int | None = None
        self._opened_ms = opened_ms

    def twin_problem(self, now_ms: int) -> str | None:
        """Say for people that somebody else writes as us, None when nobody does."""
        if self.twin_ms is None:
            return None
        ago_s = (now_ms - self.twin_ms) // 1000
        return (
            f"another process writes with this member's keys (seen {ago_s} s ago): its data"
            " folder was copied, or restored twice; stop one of the two for good"
        )

    def on_taken_back(self, floor: int, restoring: bool, now_ms: int) -> None:
        """A set of ours was taken back from a peer; ``floor`` is its head's stamp."""
        self.taken_back += 1
        began_ms = max(self._opened_ms, milliseconds(self.admitted))
        if not restoring and milliseconds(floor) > began_ms:
            if self.twin_ms is None:
                log.error("another process writes as this member", node=self.author)
            self.twin_ms = now_ms
