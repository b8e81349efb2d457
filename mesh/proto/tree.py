"""A 16-ary hash tree over hashed keys, a leaf per row: proves that two copies are equal.

It knows nothing of rows: keys and leaves are 16 bytes. Rule: the shape depends on the keys that
are in it and on nothing else (a node stands where two or more keys share a prefix, a lone leaf
hangs as high as it can), so the root is independent of history; a change costs the nodes on one
path, computed when the root is asked for.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final, Self

HASH_BYTES: Final = 16
EMPTY: Final = bytes(HASH_BYTES)
"""Root of a tree without leaves."""
NIBBLES: Final = 2 * HASH_BYTES

_Leaf = tuple[bytes, bytes]
_Node = list[Any]  # [hash or None, then 16 children: None, a leaf tuple or a node]


def _new() -> _Node:
    return [None] * 17


def _nibble(key: bytes, depth: int) -> int:
    byte = key[depth >> 1]
    return (byte & 15 if depth & 1 else byte >> 4) + 1


class Tree:
    """The tree of one set."""

    __slots__ = ("_root", "count")

    def __init__(self, leaves: Iterable[_Leaf] = ()) -> None:
        self._root: _Node = _new()
        self.count = 0
        for key, leaf in leaves:
            self.put(key, leaf)

    def put(self, key: bytes, leaf: bytes | None) -> bytes | None:
        """Set the leaf of a key, or remove it with None; return the leaf that was there."""
        if leaf is None:
            return self._remove(key)
        node, depth = self._root, 0
        while True:
            node[0] = None
            byte = key[depth >> 1]
            slot = (byte & 15 if depth & 1 else byte >> 4) + 1  # as _nibble, without a call
            child = node[slot]
            if child is None:
                node[slot] = (key, leaf)
                self.count += 1
                return None
            if type(child) is tuple:
                if child[0] == key:
                    node[slot] = (key, leaf)
                    return bytes(child[1])
                below = _new()
                below[_nibble(child[0], depth + 1)] = child
                node[slot] = below
                child = below
            node, depth = child, depth + 1

    def update(self, leaves: Iterable[tuple[bytes, bytes | None]]) -> list[Any]:
        """Put many leaves; return what ``update`` takes to put the old ones back."""
        old = [(key, self.put(key, leaf)) for key, leaf in leaves]
        old.reverse()
        return old

    def _remove(self, key: bytes) -> bytes | None:
        path: list[tuple[_Node, int]] = []
        node: Any = self._root
        for depth in range(NIBBLES):
            slot = _nibble(key, depth)
            path.append((node, slot))
            node = node[slot]
            if node is None or isinstance(node, tuple):
                break
        if not isinstance(node, tuple) or node[0] != key:
            return None
        self.count -= 1
        kept: Any = None
        for parent, slot in reversed(path):
            parent[0] = None
            parent[slot] = kept
            if parent is self._root:
                continue
            children = [child for child in parent[1:] if child is not None]
            kept = children[0] if _lone_leaf(children) else parent
        return bytes(node[1])

    def get(self, key: bytes) -> bytes | None:
        """Return the leaf of a key."""
        node: Any = self._root
        for depth in range(NIBBLES):
            node = node[_nibble(key, depth)]
            if node is None:
                return None
            if isinstance(node, tuple):
                return bytes(node[1]) if node[0] == key else None
        return None

    def packed(self) -> bytes:
        """Return all keys and leaves, one after the other: an eighth of the tree's memory."""
        found: list[bytes] = []
        nodes = [self._root]
        while nodes:
            for child in nodes.pop()[1:]:
                if type(child) is tuple:
                    found += child
                elif child is not None:
                    nodes.append(child)
        return b"".join(found)

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Return the tree of what ``packed`` has returned."""
        parts = [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)]
        return cls(zip(parts[::2], parts[1::2], strict=True))

    def root(self) -> bytes:
        """Return the 16 bytes that stand for everything in the tree."""
        return _hash(self._root) if self.count else EMPTY


def _lone_leaf(children: list[Any]) -> bool:
    return len(children) == 1 and isinstance(children[0], tuple)


def _hash(node: _Node) -> bytes:
    known: bytes | None = node[0]
    if known is not None:
        return known
    parts = [b""]
    present = 0
    bit = 1
    for child in node[1:]:
        if child is not None:
            present |= bit
            parts.append(child[1] if type(child) is tuple else _hash(child))
        bit <<= 1
    parts[0] = b"\x01" + present.to_bytes(2, "big")
    made = hashlib.blake2b(b"".join(parts), digest_size=HASH_BYTES).digest()
    node[0] = made
    return made
