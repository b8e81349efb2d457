"""What the API says about members that end, keys that change and state that is carried."""

from typing import TypedDict


class MemberChanged(TypedDict):
    """A member that was changed."""

    id: str
    name: str
    site: str | None
    status: str  # member | suspended | left | revoked
    relays: bool  # whether it may splice links of others
    secrets: list[str]  # that it could ever read: to be changed now (revoked alone)


class KeyRotated(TypedDict):
    """A new X25519 key of the daemon that was asked."""

    node: str
    epoch: int


class StatePiece(TypedDict):
    """A piece of the signed state, and where the next one is."""

    piece: str  # base64
    next: str | None
    done: int  # sets given out so far
    of: int


class StateTaken(TypedDict):
    """What became of a piece that was carried here."""

    records: int  # of the register, that were new
    sets: int  # whose rows were new
    known: int
    refused: dict[str, int]  # sets, by reason
