"""When a server counts as booted off the network, and what proves it.

It knows what was heard of a machine, no sockets. Rule: nothing is claimed that was not heard,
and the evidence says which of it stands. A live system that phones in is up. One that does not
is taken as booted when its kernel and initrds were fetched whole, its firmware said that it
starts them, and PHONE_GRACE_MS have passed. An ISO cannot be told where to phone in: it is
booted when it was read further than firmware reads to start it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PHONE_GRACE_MS: Final = 180_000
"""From the start of the kernel: slow machines need a minute or two to their own network."""
READ_ENOUGH_BYTES: Final = 64 << 10
"""Firmware loads a boot image of a few sectors; more is read by what it started."""


@dataclass(frozen=True, slots=True)
class Proved:
    """It is booted."""

    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """It is not known yet; None: nothing was heard at all."""

    sentence: str | None


def judge(name: str, attempt: int, heard: Mapping[str, Any], now_ms: int) -> Proved | Waits:
    """Say what stands; ``heard``: {"attempt", "boots_ms", "read_bytes", "phoned_in"}."""
    if heard.get("attempt") != attempt:
        return Waits(None)
    if heard.get("phoned_in"):
        return Proved({"attempt": attempt, "phoned_in": True})
    read, boots_ms = heard.get("read_bytes"), heard.get("boots_ms")
    if isinstance(read, int) and read >= READ_ENOUGH_BYTES:
        return Proved({"attempt": attempt, "phoned_in": False, "read_bytes": read})
    if not isinstance(boots_ms, int):
        return Waits(None)
    if now_ms - boots_ms >= PHONE_GRACE_MS:
        return Proved({"attempt": attempt, "phoned_in": False, "fetched": "kernel and initrds"})
    left_s = (boots_ms + PHONE_GRACE_MS - now_ms) // 1000
    return Waits(
        f"{name} has fetched its kernel and starts it; waits for it to phone in, or"
        f" {left_s // 10 * 10 + 10} s more"
    )


def hear(heard: Mapping[str, Any], attempt: int, now_ms: int, news: Mapping[str, Any]) -> Any:
    """Return what was heard with more of it; of an earlier attempt nothing counts."""
    kept = dict(heard) if heard.get("attempt") == attempt else {"attempt": attempt}
    if news.get("boots") is True:
        kept.setdefault("boots_ms", now_ms)
    if news.get("phoned_in") is True:
        kept["phoned_in"] = True
    read = news.get("read_bytes")
    if isinstance(read, int) and not isinstance(read, bool) and read > 0:
        kept["read_bytes"] = max(read, kept.get("read_bytes") or 0)
    return kept
