"""Write an initramfs: a cpio archive of the kind newc, always the same for the same tree.

It knows files as (path, mode, bytes), nothing of where they come from. Rule: entries are
sorted, owners are root and times are zero. Source: Documentation/driver-api/early-userspace/
buffer-format.rst of the Linux kernel.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

NAME_BYTES_MAX = 4096
FILE_BYTES_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class Node:
    """One entry: mode with its type bits, content (a link's target), device numbers."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


@dataclass
class Tree:
    """A file tree in memory. Paths have no leading slash; folders appear by themselves."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._put(path, Node(stat.S_IFREG | mode, data))

    def link(self, path: str, target: str) -> None:
        self._put(path, Node(stat.S_IFLNK | 0o777, target.encode()))

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._put(path, Node(stat.S_IFDIR | mode))

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._put(path, Node(stat.S_IFCHR | mode, b"", (major, minor)))

    def _put(self, path: str, node: Node) -> None:
        parts = path.split("/")
        if not all(part not in ("", ".", "..") for part in parts):
            raise ValueError(f"not a path inside the tree: {path!r}")
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            there = self.nodes.setdefault(parent, Node(stat.S_IFDIR | 0o755))
            if not stat.S_ISDIR(there.mode):
                raise ValueError(f"{parent!r} is no folder, so {path!r} cannot be in it")
        self.nodes[path] = node


def encode(tree: Tree) -> Iterator[bytes]:
    """Yield the archive in pieces; parents come before what is in them."""
    for number, (path, node) in enumerate(sorted(tree.nodes.items()), 1):
        yield _entry(number, path, node)
    yield _entry(0, "TRAILER!!!", Node(0))


def _entry(number: int, path: str, node: Node) -> bytes:
    name = path.encode() + b"\0"
    if len(name) > NAME_BYTES_MAX or len(node.data) > FILE_BYTES_MAX:
        raise ValueError(f"too long for an initramfs: {path[:60]!r}")
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (
        number, node.mode, 0, 0, links, 0, len(node.data), 0, 0, *node.device, len(name), 0,
    )  # fmt: skip
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    return _padded(head) + _padded(node.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
