"""How old a member's X25519 key may become: when it is replaced, and when it is no good.

Pure numbers; it knows no clock. Rules: a key is replaced after about a month, each node at its
own day; one that is older than eight weeks still opens a link on which its owner may fetch the
register and show a new key, nothing else. Of a time that cannot be right nothing follows.
"""

from typing import Final

from mesh.proto.steady_time import WRITTEN_MS

DAY_MS: Final = 86_400_000
REPLACE_MS: Final = 30 * DAY_MS
SPREAD: Final = 0.2
"""Keys are replaced up to this part earlier, so that not all do it on one day."""
EXPIRED_MS: Final = 56 * DAY_MS
KEPT_MS: Final = 120 * DAY_MS
"""A replaced private key stays so long at least: a hub that was in the dark may still seal to
it, and what it wrote comes late."""


def is_due(made_ms: int, now_ms: int, spread: float) -> bool:
    """Tell whether a key of ours is to be replaced; ``spread``: 0 to 1, fixed for a node."""
    assert 0 <= spread <= 1
    if now_ms < WRITTEN_MS:
        return False  # we could not say when the new one was made
    age_ms = now_ms - made_ms
    return age_ms >= REPLACE_MS * (1 - SPREAD * spread) or age_ms < -DAY_MS


def is_expired(made_ms: int, now_ms: int) -> bool:
    """Tell whether a peer's key is too old for anything but the register."""
    return made_ms >= WRITTEN_MS and now_ms - made_ms > EXPIRED_MS


def may_go(made_next_ms: int, now_ms: int) -> bool:
    """Tell whether a replaced key is old enough to be forgotten; ``made_next_ms``: when the
    key after it was made."""
    return made_next_ms >= WRITTEN_MS and now_ms - made_next_ms > KEPT_MS
