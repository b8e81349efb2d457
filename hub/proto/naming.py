"""Which claims about content become signed names: the hub's side of trust on first use.

It knows no keys and no store. A node that read a reference's origin claims what it found; this
decides. Rules: where the operator declared a SHA-256 only that content counts; otherwise the
first claim holds for good, and a later one that says something else is a conflict for people,
never a change of name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN

SIZE_MAX = 1 << 50


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node says it found behind a reference."""

    author: str
    hlc: int
    name: str
    asset: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sign:
    """This claim shall become the name."""

    claim: Claim
    declared: bool
    """The operator had said what the content hashes to."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """This claim contradicts what holds; ``expected`` is the SHA-256 that holds."""

    claim: Claim
    expected: str


def read_claim(author: str, hlc: int, key: str, body: Mapping[str, Any]) -> Claim | None:
    """Return the claim in an ASSET row, or None when it cannot be one."""
    name, size, sha256 = body.get("name"), body.get("size"), body.get("sha256")
    if (
        not isinstance(name, str)
        or not NAME_PATTERN.match(name)
        or not ASSET_PATTERN.match(key)
        or not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 <= size <= SIZE_MAX
        or not isinstance(sha256, str)
        or not is_sha256(sha256)
    ):
        return None
    return Claim(author, hlc, name, key, size, sha256)


def is_sha256(text: str) -> bool:
    """Tell whether a text is a SHA-256 in our spelling: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def decide(
    references: Mapping[str, str | None],
    names: Mapping[str, tuple[str, str]],
    claims: Iterable[Claim],
) -> list[Sign | Conflict]:
    """Return what to sign and what contradicts.

    ``references``: declared SHA-256 by name, None for none; ``names``: (asset, SHA-256) that is
    signed, by name. The order of claims does not matter.
    """
    found: list[Sign | Conflict] = []
    holds = dict(names)
    for claim in sorted(claims, key=lambda claim: (claim.hlc, claim.author, claim.asset)):
        if claim.name not in references:
            continue
        declared = references[claim.name]
        signed = holds.get(claim.name)
        if signed is not None and (declared is None or signed[1] == declared):
            if signed[1] != claim.sha256:
                found.append(Conflict(claim, signed[1]))
        elif declared is not None and declared != claim.sha256:
            found.append(Conflict(claim, declared))
        else:
            holds[claim.name] = (claim.asset, claim.sha256)
            found.append(Sign(claim, declared is not None))
    return found
