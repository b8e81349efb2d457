"""Which claims about content become signed names: the hub's side of trust on first use.

It knows no keys and no store. A node that read a reference's origin claims what it found; this
decides. Rules: only nodes of a site that the operator wants to hold the reference may say what
it is; where he declared a SHA-256 only that content counts, otherwise the first claim does
(trust on first use); what was signed holds, and a later claim or declaration that says
something else is a conflict for people. A name moves in one way only: its origin may
change (``moves``), and a claim made after it was signed names the very asset that it replaces.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN

SIZE_MAX = 1 << 50


@dataclass(frozen=True, slots=True)
class Claim:
    """What one node says it found behind a reference."""

    author: str
    site: str | None
    """Where the roster has the author; None: a hub."""
    hlc: int
    name: str
    asset: str
    size: int
    sha256: str
    source_sha256: str | None = None
    """Of the published file, where the asset was made from it."""
    replaces: str | None = None
    """The asset that the name stood for when the author saw other content at its origin."""

    @property
    def published(self) -> str:
        """SHA-256 of the file as published: what an operator can declare."""
        return self.source_sha256 or self.sha256


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reference says of its content: the declared SHA-256, and who shall hold it."""

    sha256: str | None
    sites: frozenset[str]
    moves: bool = False
    """It has an origin whose content may change, and sites are to look."""


@dataclass(frozen=True, slots=True)
class Past:
    """How a name came to stand for what it does."""

    hlc: int = 0
    """Of the row that says so: what was claimed before that knew less."""
    replaced: frozenset[str] = frozenset()
    """Assets that it stood for before."""


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


def read_claim(
    author: str, site: str | None, hlc: int, key: str, body: Mapping[str, Any]
) -> Claim | None:
    """Return the claim in an ASSET row, or None when it cannot be one."""
    asset, size, sha256 = body.get("asset"), body.get("size"), body.get("sha256")
    source, replaces = body.get("source_sha256"), body.get("replaces")
    if (
        not NAME_PATTERN.match(key)
        or not isinstance(asset, str)
        or not ASSET_PATTERN.match(asset)
        or not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 <= size <= SIZE_MAX
        or not isinstance(sha256, str)
        or not is_sha256(sha256)
        or not (source is None or (isinstance(source, str) and is_sha256(source)))
        or not (
            replaces is None or (isinstance(replaces, str) and ASSET_PATTERN.match(replaces))
        )
    ):
        return None
    return Claim(author, site, hlc, key, asset, size, sha256, source, replaces)


def is_sha256(text: str) -> bool:
    """Tell whether a text is a SHA-256 in our spelling: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def contradiction(
    name: str, signed: str, before: str | None, url: str | None, sha256: str | None
) -> str | None:
    """Return why a name that stands for content cannot be declared so.

    ``signed``: the SHA-256 as published of what it stands for; ``before``: the URL it had.
    Another URL may give other content, so it needs the SHA-256.
    """
    if (url == before) if sha256 is None else (sha256 == signed):
        return None
    return f"{name} stands for sha256 {signed} already; take another name for other content"


def decide(
    references: Mapping[str, Wanted],
    names: Mapping[str, tuple[str, str]],
    claims: Iterable[Claim],
    pasts: Mapping[str, Past] = MappingProxyType({}),
) -> list[Sign | Conflict]:
    """Return what to sign and what contradicts.

    ``names``: (asset, SHA-256) that is signed, by name; ``pasts``: how that came. The order of
    claims does not matter. One call moves a name once at most.
    """
    found: list[Sign | Conflict] = []
    holds, moved = dict(names), set[str]()
    for claim in sorted(claims, key=lambda claim: (claim.hlc, claim.author, claim.asset)):
        wanted = references.get(claim.name)
        if wanted is None or (claim.site is not None and claim.site not in wanted.sites):
            continue
        signed = holds.get(claim.name)
        if signed is not None and (claim.replaces or _over(claim, pasts)):
            if claim.name not in moved and _replaces(claim, wanted, signed[0], pasts):
                moved.add(claim.name)
                found.append(Sign(claim, False))
            continue
        expected = wanted.sha256 if signed is None else signed[1]
        said = claim.published if signed is None else claim.sha256
        if expected is not None and expected != said:
            found.append(Conflict(claim, expected))
        elif signed is None:
            holds[claim.name] = (claim.asset, claim.sha256)
            found.append(Sign(claim, wanted.sha256 is not None))
    return found


def _replaces(claim: Claim, wanted: Wanted, asset: str, pasts: Mapping[str, Past]) -> bool:
    past = pasts.get(claim.name, Past())
    newer = claim.hlc > past.hlc and claim.asset != asset
    return newer and claim.replaces == asset and wanted.moves and wanted.sha256 is None


def _over(claim: Claim, pasts: Mapping[str, Past]) -> bool:
    """Whether a claim says what the name stood for before: true then, no conflict now."""
    return claim.asset in pasts.get(claim.name, Past()).replaced
