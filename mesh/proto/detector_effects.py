"""What the core of the failure detector asks its shell to do, and what it tells it.

Rule: a message goes to members, by a way; which socket or link that is, the shell knows.
"""

from dataclasses import dataclass
from typing import Literal

Way = Literal["cheap", "link", "every"]
"""``cheap``: UDP when there is a path, else the link. ``every``: both."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to some members."""

    peers: tuple[str, ...]
    data: bytes
    way: Way


@dataclass(frozen=True, slots=True)
class Changed:
    """Members that became unreachable, and such that are reachable again."""

    down: tuple[str, ...]
    up: tuple[str, ...]


Effect = Send | Changed
