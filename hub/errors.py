"""Errors of the room: what the hub refuses, as problem documents see it.

Each class says what state is left behind; ``code`` and ``status`` are stable for programs.
"""

import math

from mesh.errors import LocalError


class HubError(LocalError):
    """Base of refusals at the hub's front desk; nothing was changed."""

    status = 400
    code = "bad-request"


class BadRequest(HubError):
    """The request makes no sense; the sentence says which value and what would be right."""


class NotFound(HubError):
    """No such thing here; nothing was changed."""

    status = 404
    code = "not-found"


class Conflict(HubError):
    """It contradicts what stands; nothing was changed."""

    status = 409
    code = "conflict"


class Denied(HubError):
    """Who asks may not; nothing was changed."""

    status = 403
    code = "denied"


class SignInNeeded(HubError):
    """Nobody is signed in; nothing was changed."""

    status = 401
    code = "denied"


class TooMany(HubError):
    """Asked too often; nothing was changed, try again after ``retry_s`` seconds."""

    status = 429
    code = "too-many"

    def __init__(self, sentence: str, retry_s: float) -> None:
        self.retry_s = max(1, math.ceil(retry_s))
        super().__init__(f"{sentence}; try again in {self.retry_s} s")


class TooLarge(HubError):
    """The body exceeds its limit; nothing was kept."""

    status = 413
    code = "too-large"


class Unavailable(HubError):
    """What is asked for cannot be had now (a site out of reach); nothing was changed."""

    status = 503
    code = "unreachable"
