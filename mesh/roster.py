"""What the register answers to replication: scopes, last accepted heads, keys of heads.

It knows no link and no store. Rule: it may be asked from the store's writer thread, so what
iterates over members is taken from a snapshot that the main thread made (``refresh``).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from mesh.proto import tables
from mesh.proto.rendezvous import owner
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.sign import verify

ENDED: Final = frozenset({"left", "revoked"})
SUSPENDED: Final = "suspended"
HUB: Final = "hub"
HUBS_AT: Final = ""
"""Hubs stand at no site."""


class MemberPort(Protocol):
    """What is known of one identity."""

    @property
    def node_id(self) -> str: ...  # noqa: D102
    @property
    def identity_public(self) -> bytes: ...  # noqa: D102
    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def roles(self) -> frozenset[str]: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def heads(self) -> Any: ...  # noqa: D102


class RegisterPort(Protocol):
    """The part of ``mesh/proto/register.py`` that replication asks."""

    root_fp: bytes

    def digest(self) -> bytes: ...  # noqa: D102
    def records(self) -> list[bytes]: ...  # noqa: D102
    def members(self) -> Iterable[MemberPort]: ...  # noqa: D102
    def active(self, node_id: str) -> bool: ...  # noqa: D102
    def may_author(self, node_id: str, scope: str) -> bool: ...  # noqa: D102
    def could_author(self, node_id: str, scope: str) -> bool: ...  # noqa: D102
    def carries(  # noqa: D102
        self, node_id: str, scope: str, author: str | None = None
    ) -> bool: ...


class RegisterStorePort(Protocol):
    """The part of ``mesh/register_store.py`` that replication uses."""

    version: int

    @property
    def register(self) -> RegisterPort: ...  # noqa: D102
    def merge_all(self, records: Iterable[bytes]) -> int: ...  # noqa: D102
    def news_since(self, version: int) -> list[bytes] | None: ...  # noqa: D102
    async def wait_past(self, version: int) -> int: ...  # noqa: D102


class RegisterRoster:
    """The roster that replication asks (``mesh/proto/intake.py``), over a register."""

    def __init__(
        self, register: RegisterPort, me: str, carries: Callable[[str], bool] | None = None
    ) -> None:
        """``carries`` narrows what we ourselves keep (a view without some sites)."""
        self._register = register
        self._me = me
        self._narrow = carries
        self._members: dict[str, MemberPort] = {}
        self._ended: list[MemberPort] = []
        self._paused: list[str] = []
        self._at: dict[str, list[str]] = {}  # site, or HUBS_AT -> who stands there
        self.refresh()

    def refresh(self) -> None:
        """Look at the members again; call in the main thread after the register changed."""
        self._members = {member.node_id: member for member in self._register.members()}
        self._paused = [m.node_id for m in self._members.values() if m.status == SUSPENDED]
        self._ended = [m for m in self._members.values() if m.status in ENDED and m.heads]
        at: dict[str, list[str]] = {}
        for node, member in self._members.items():
            at.setdefault(HUBS_AT if HUB in member.roles else member.site, []).append(node)
        self._at = at

    def nodes(self) -> list[str]:
        """Return every identity that ever was a member."""
        return list(self._members)

    def active(self, node: str) -> bool:
        """Tell whether an identity is a member now."""
        return self._register.active(node)

    def site_of(self, node: str) -> str:
        """Return the site of an identity, "" when it has none or is unknown."""
        member = self._members.get(node)
        return member.site if member else ""

    def may_author(self, node: str, scope: str) -> bool:
        """Tell whether an active member may write into a scope."""
        return self._register.may_author(node, scope)

    def carries(self, node: str, scope: str, author: str | None = None) -> bool:
        """Tell whether an active member keeps a copy of an author's set in a scope."""
        if not self._register.carries(node, scope, author):
            return False
        narrowed = node == self._me and author != self._me and self._narrow is not None
        return not narrowed or self._narrow is None or self._narrow(scope)

    def is_hub(self, node: str) -> bool:
        """Tell whether an identity is a hub, or was one when it ended."""
        member = self._members.get(node)
        return member is not None and HUB in member.roles

    def last_accepted(self, author: str, scope: str) -> tuple[int, int] | None:
        """Return the last (epoch, seq) that holds of an author that left or was revoked.

        Of an ended author with heads for other scopes only nothing holds: (0, 0). Without any
        head nobody has said yet, and what there is stays.
        """
        member = self._members.get(author)
        if member is None or member.status not in ENDED or not member.heads:
            return None
        epoch, seq, *_ = member.heads.get(scope, (0, 0))
        return (epoch, seq)

    def merged_authors(self, scope: str) -> Collection[str]:
        """Return the active members that may write merged tables in a scope."""
        kind, _, name = scope.partition(":")
        near = {"site": self._at.get(name, []), "pair": [name]}.get(kind, [])
        able = {*self._at.get(HUBS_AT, []), *near} & self._members.keys()
        return sorted(node for node in able if self.may_author(node, scope))

    def paused_authors(self, scope: str) -> Collection[str]:
        """Return suspended members that may write merged tables there once they are back."""
        hubs_only = scope in (tables.FLEET, tables.HUBS)
        return [
            node
            for node in self._paused
            if self._register.could_author(node, scope) and (not hubs_only or self.is_hub(node))
        ]

    def bequeathed(self, scope: str) -> Mapping[str, tuple[int, int]]:
        """Return the ended authors of merged tables of a scope and what was accepted last."""
        hubs_only = scope in (tables.FLEET, tables.HUBS)
        found: dict[str, tuple[int, int]] = {}
        for member in self._ended:
            last = self.last_accepted(member.node_id, scope)
            if last is not None and last > (0, 0) and (not hubs_only or HUB in member.roles):
                found[member.node_id] = last
        return found

    def verify(self, author: str, body: bytes, signature: bytes) -> bool:
        """Tell whether a head was signed by its author."""
        member = self._members.get(author)
        return member is not None and verify(
            member.identity_public, signature, HEAD_KIND, HEAD_N, self._register.root_fp, body
        )

    def vouches(self, node: str, scope: str) -> bool:
        """Tell whether a member counts as "another node of that site" for receipts."""
        member = self._members.get(node)
        if member is None or node == self._me or HUB in member.roles or not self.active(node):
            return False
        return self.carries(node, scope, self._me)

    def is_heir(self, author: str, scope: str) -> bool:
        """Tell whether we write a dead author's shown rows anew."""
        able = self.merged_authors(scope)
        nodes = [node for node in able if HUB not in self._members[node].roles]
        return owner(nodes or able, f"{author}/{scope}") == self._me


class RegisterOnly(RegisterRoster):
    """A roster in which nobody carries anything: only the register passes."""

    def carries(self, node: str, scope: str, author: str | None = None) -> bool:
        """Nobody keeps a copy of anything."""
        return False


class OpenRoster(RegisterRoster):
    """A roster that hides nothing: for state that leaves in a file, chosen before."""

    def active(self, node: str) -> bool:
        """Whoever reads the file."""
        return True

    def carries(self, node: str, scope: str, author: str | None = None) -> bool:
        """Whoever carries the file."""
        return True
