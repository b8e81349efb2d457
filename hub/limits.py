"""How often somebody may ask: sign in by account and address, and call by who they are.

Rules: what is counted is bounded (``hub/proto/throttle.py``), so an attack costs no memory and
buys no tries; names that are no accounts share one count; an address that has signed in to an
account lately does not suffer from strangers who guess at that account; local users are not
counted.
"""

from typing import Final

import trio

from hub.errors import TooMany
from hub.proto.throttle import Throttle

TRIES: Final = 5
REFILL_S: Final = 10.0
CALLS: Final = 500
CALLS_PER_S: Final = 50
TRUSTED_MAX: Final = 1024
TRUSTED_S: Final = 30 * 24 * 3600.0
UNKNOWN: Final = "?"


class Limits:
    """The counts of one hub, in memory."""

    def __init__(self) -> None:
        self._by_pair = Throttle(TRIES, REFILL_S)
        self._by_address = Throttle(4 * TRIES, REFILL_S / 4)
        self._by_account = Throttle(10 * TRIES, REFILL_S / 5)
        self._wrong_tokens = Throttle(4 * TRIES, REFILL_S / 4)
        self._calls = Throttle(CALLS, 1 / CALLS_PER_S)
        self._trusted: dict[str, float] = {}

    def check_sign_in(self, account: str, address: str) -> None:
        """Count a try to sign in; ``account`` empty: there is no such one. Raises TooMany."""
        now_s, pair = trio.current_time(), _pair(account, address)
        counts = [(self._by_pair, pair), (self._by_address, address)]
        if self._trusted.get(pair, 0.0) < now_s:
            counts.append((self._by_account, account or UNKNOWN))
        for throttle, name in counts:
            _take(throttle, name, now_s, "too many tries to sign in")

    def signed_in(self, account: str, address: str) -> None:
        """The password was right: forget the wrong ones before it."""
        now_s, pair = trio.current_time(), _pair(account, address)
        self._by_pair.forgive(pair)
        self._trusted.pop(pair, None)
        self._trusted[pair] = now_s + TRUSTED_S
        if len(self._trusted) > TRUSTED_MAX:
            del self._trusted[next(iter(self._trusted))]

    def wrong_token(self, address: str) -> None:
        """Count a token that opens nothing. Raises TooMany."""
        _take(self._wrong_tokens, address, trio.current_time(), "too many wrong tokens")

    def check_call(self, name: str) -> None:
        """Count a call of somebody who may ask. Raises TooMany."""
        _take(self._calls, name, trio.current_time(), f"{name} asks too often")


def _pair(account: str, address: str) -> str:
    return f"{account or UNKNOWN}@{address}"


def _take(throttle: Throttle, name: str, now_s: float, sentence: str) -> None:
    if not throttle.allow(name, now_s):
        raise TooMany(sentence, throttle.wait_s(name, now_s))
