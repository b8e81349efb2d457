"""Members for tests of the replicated state: a roster, a register and links, all in memory."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import trio

from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.proto.sign import KeySigner

ROOT_FP = bytes(range(20))


def signer(name: str) -> KeySigner:
    """Return a member's Ed25519 key, made from its name."""
    return KeySigner(hashlib.blake2b(name.encode(), digest_size=32).digest())


def sign_head(name: str):
    """Return what ``MeshStore.open`` wants as ``sign_head``."""
    return lambda body: signer(name).sign(HEAD_KIND, HEAD_N, ROOT_FP, body)


@dataclass
class FakeMember:
    node_id: str
    site: str = ""
    roles: frozenset[str] = frozenset({"node"})
    status: str = "member"
    heads: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)

    @property
    def identity_public(self) -> bytes:
        return signer(self.node_id).public


class FakeRegister:
    """The scope rules of the real register over a list of members."""

    def __init__(self, members: Iterable[FakeMember], records: Iterable[bytes] = ()) -> None:
        self.root_fp = ROOT_FP
        self.all = {member.node_id: member for member in members}
        self.kept = set(records)

    def digest(self) -> bytes:
        return hashlib.blake2b(b"|".join(self.records()), digest_size=16).digest()

    def records(self) -> list[bytes]:
        return sorted(self.kept)

    def members(self) -> list[FakeMember]:
        return list(self.all.values())

    def active(self, node_id: str) -> bool:
        return node_id in self.all and self.all[node_id].status == "member"

    def may_author(self, node_id: str, scope: str) -> bool:
        return self.active(node_id) and self.could_author(node_id, scope)

    def could_author(self, node_id: str, scope: str) -> bool:
        member = self.all.get(node_id)
        if member is None or member.status not in ("member", "suspended"):
            return False
        if scope == "fleet" or "hub" in member.roles:
            return True
        return scope in (f"site:{member.site}", f"pair:{node_id}")

    def carries(self, node_id: str, scope: str, author: str | None = None) -> bool:
        return self.may_author(node_id, scope)


class FakeRegisterStore:
    """A register whose records are any bytes that do not start with ``bad``."""

    def __init__(self, register: FakeRegister) -> None:
        self.register = register
        self.version = 0
        self._changed = trio.Event()
        self._news: list[tuple[int, bytes]] = []

    def merge_all(self, records: Iterable[bytes]) -> int:
        new = {r for r in records if not r.startswith(b"bad")} - self.register.kept
        if new:
            self.register.kept |= new
            self.touch()
            self._news += [(self.version, record) for record in sorted(new)]
        return len(new)

    def news_since(self, version: int) -> list[bytes] | None:
        return [record for when, record in self._news if when > version]

    def touch(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()

    async def wait_past(self, version: int) -> int:
        while self.version <= version:
            await self._changed.wait()
        return self.version


class FakeLink:
    """One end of a pair of links; frames are copied through msgpack as on a wire."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.dialled, self.in_use = True, False
        self.reason: str | None = None
        self.sent_bytes = 0
        self.frames: list[tuple[str, Any]] = []
        self._inbox: dict[str, tuple[Any, Any]] = {}
        self.other: FakeLink | None = None

    def _channel(self, kind: str) -> tuple[Any, Any]:
        if kind not in self._inbox:
            self._inbox[kind] = trio.open_memory_channel[Any](1000)
        return self._inbox[kind]

    async def send(self, frame_kind: str, body: Any) -> None:
        from mesh.proto.codec import pack, unpack

        await trio.lowlevel.checkpoint()
        if self.reason is not None or self.other is None:
            raise trio.ClosedResourceError
        data = pack(body)
        self.sent_bytes += len(data)
        self.frames.append((frame_kind, body))
        await self.other._channel(frame_kind)[0].send(unpack(data, 4 << 20))

    def receive(self, frame_kind: str) -> Any:
        return self._channel(frame_kind)[1]

    def close(self, reason: str) -> None:
        for link in (self, self.other):
            if link is not None and link.reason is None:
                link.reason = reason
                for kind in ("sync", "receipt", "broadcast"):
                    link._channel(kind)[0].close()


def link_pair(a: str, b: str) -> tuple[FakeLink, FakeLink]:
    """Return (what a holds, what b holds)."""
    at_a, at_b = FakeLink(b), FakeLink(a)
    at_a.other, at_b.other = at_b, at_a
    return at_a, at_b


class PlainRoster:
    """The roster of cores without real keys: a signature is a hash keyed by the name."""

    def __init__(self, register: FakeRegister) -> None:
        self.register = register

    def active(self, node: str) -> bool:
        return self.register.active(node)

    def may_author(self, node: str, scope: str) -> bool:
        return self.register.may_author(node, scope)

    def carries(self, node: str, scope: str, author: str | None = None) -> bool:
        return self.register.carries(node, scope, author)

    def site_of(self, node: str) -> str:
        member = self.register.all.get(node)
        return member.site if member else ""

    def is_hub(self, node: str) -> bool:
        member = self.register.all.get(node)
        return member is not None and "hub" in member.roles

    def last_accepted(self, author: str, scope: str) -> tuple[int, int] | None:
        member = self.register.all.get(author)
        ended = member is not None and member.status not in ("member", "suspended")
        if member is None or not ended or not member.heads:
            return None
        return member.heads[scope][:2] if scope in member.heads else (0, 0)

    def merged_authors(self, scope: str) -> Collection[str]:
        hubs_only = scope in ("fleet", "hubs")
        return sorted(
            node
            for node, member in self.register.all.items()
            if self.may_author(node, scope) and (not hubs_only or "hub" in member.roles)
        )

    def paused_authors(self, scope: str) -> Collection[str]:
        hubs_only = scope in ("fleet", "hubs")
        return [
            node
            for node, member in self.register.all.items()
            if member.status == "suspended"
            and self.register.could_author(node, scope)
            and (not hubs_only or self.is_hub(node))
        ]

    def bequeathed(self, scope: str) -> dict[str, tuple[int, int]]:
        hubs_only = scope in ("fleet", "hubs")
        found = {node: self.last_accepted(node, scope) for node in self.register.all}
        return {
            node: last
            for node, last in found.items()
            if last and last > (0, 0) and (not hubs_only or self.is_hub(node))
        }

    def verify(self, author: str, body: bytes, signature: bytes) -> bool:
        return plain_sign(author)(body) == signature


def plain_sign(author: str):
    """Return a cheap stand-in for an author's signature."""
    key = author.encode()[:32]
    return lambda body: hashlib.blake2b(body, key=key, digest_size=32).digest()
