"""Where each member may be dialled: what is known from several sources, the best first.

It knows no file, no socket and no handshake; every address is only a hint of where to dial, and
the handshake says who answers. Sources, best first: addresses that a link of ours went to (the
last one first), what members say on the local network, seeds given with a node id, the members'
own rows, hosts that linked to us (with the ports of their rows), the last run's memory, and
seeds without an id, which are tried for every member that has nothing better. Rules: a peer has
at most PLACES_MAX, of a source at most SOURCE_MAX, so that no source crowds out another; what
is remembered is bounded, and a damaged memory is an empty one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.proto.ids import NODE_ID_PATTERN

Place = tuple[str, int]
"""A host (address or name) and a TCP port."""

PLACES_MAX: Final = 8
SOURCE_MAX: Final = 4
"""Addresses of one peer from one source; its own rows may fill PLACES_MAX."""
PEERS_MAX: Final = 4096
"""Peers with anything but rows; what is new beyond is dropped."""
REMEMBERED_MAX: Final = 1024
"""Peers that the memory keeps: those with a link of ours last."""
SEEDS_MAX: Final = 64
HOST_CHARS_MAX: Final = 255


@dataclass(slots=True)
class _Known:
    """What is known of one peer."""

    worked: dict[Place, int] = field(default_factory=dict[Place, int])  # unix ms, newest last
    found: list[Place] = field(default_factory=list[Place])
    seeds: list[Place] = field(default_factory=list[Place])
    rows: list[Place] = field(default_factory=list[Place])
    hosts: list[str] = field(default_factory=list[str])
    remembered: list[Place] = field(default_factory=list[Place])

    def places(self) -> list[Place]:
        ports = dict.fromkeys(port for _, port in self.rows)
        seen = [(host, port) for host in self.hosts for port in ports]
        sources = (
            reversed(self.worked), self.found, self.seeds, self.rows, seen, self.remembered
        )  # fmt: skip
        return list(dict.fromkeys(place for source in sources for place in source))


class AddressBookCore:
    """The addresses of all peers; ``table`` has them ready to dial."""

    def __init__(self, own: str) -> None:
        self.table: dict[str, list[Place]] = {}
        self._own = own
        self._peers: dict[str, _Known] = {}
        self._strange: dict[Place, str | None] = {}  # seeds without id: who was found there
        self._strangers: frozenset[str] = frozenset()

    def add_seed(self, seed: "Seed") -> None:
        """Take an address from the configuration."""
        if seed.node is None:
            if len(self._strange) < SEEDS_MAX:
                self._strange.setdefault(seed.place, None)
            self._lay_out_all()
        elif (known := self._known(seed.node)) is not None:
            known.seeds = _first([*known.seeds, seed.place])
            self._lay_out(seed.node)

    @property
    def has_strange_seeds(self) -> bool:
        """Tell whether ``set_strangers`` matters."""
        return bool(self._strange)

    def set_strangers(self, nodes: Iterable[str]) -> bool:
        """Say for whom seeds without an id are tried; True when that is new."""
        before, self._strangers = self._strangers, frozenset(nodes) - {self._own}
        for node in before ^ self._strangers:
            self._lay_out(node)
        return before != self._strangers

    def set_rows(self, node: str, places: Iterable[Place]) -> None:
        """Take what a member says of itself in its row; empty: the row is gone."""
        rows = _first(places, PLACES_MAX)
        known = self._known(node, make=bool(rows))
        if known is not None and known.rows != rows:
            known.rows = rows
            self._lay_out(node)

    def set_found(self, node: str, places: Iterable[Place]) -> None:
        """Take what is said on the local network; empty: it is no longer said."""
        found = _first(places)
        known = self._known(node, make=bool(found))
        if known is not None and known.found != found:
            known.found = found
            self._lay_out(node)

    def worked(self, node: str, place: Place, now_ms: int) -> None:
        """A link that we dialled there stands."""
        known = self._known(node)
        if known is None:
            return
        known.worked.pop(place, None)
        known.worked[place] = now_ms
        while len(known.worked) > SOURCE_MAX:
            del known.worked[next(iter(known.worked))]
        self._lay_out(node)
        if place in self._strange and self._strange[place] != node:
            self._strange[place] = node
            self._lay_out_all()

    def seen(self, node: str, host: str) -> None:
        """A peer linked to us from there."""
        known = self._known(node)
        if known is not None and known.hosts[:1] != [host]:
            known.hosts = [host, *(other for other in known.hosts if other != host)][
                :SOURCE_MAX
            ]
            self._lay_out(node)

    # -- memory ------------------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """Return what should survive a restart, as plain data."""
        last = sorted(self.table, key=lambda node: (-self._last_ms(node), node))
        peers = {
            node: [
                [host, port, self._peers[node].worked.get((host, port), 0)]
                for host, port in self._peers[node].places()[:PLACES_MAX]
            ]
            for node in last[:REMEMBERED_MAX]
            if node in self._peers
        }
        return {"peers": {node: places for node, places in peers.items() if places}}

    def remember(self, memory: object) -> None:
        """Take back what ``memory`` gave; whatever is damaged is left out."""
        peers = memory.get("peers") if isinstance(memory, Mapping) else None
        for node, entries in list(peers.items() if isinstance(peers, Mapping) else ()):
            if isinstance(node, str) and isinstance(entries, Sequence):
                self._remember(node, entries[:PLACES_MAX])

    def _remember(self, node: str, entries: Sequence[object]) -> None:
        worked: list[tuple[int, Place]] = []
        places: list[Place] = []
        for entry in entries:
            match entry:
                case [str(host), int(port), int(at_ms)] if is_place(host, port):
                    places.append((host, port))
                    if 0 < at_ms < 1 << 53:
                        worked.append((at_ms, (host, port)))
                case _:
                    pass
        known = self._known(node, make=bool(places))
        if known is not None:
            known.remembered = places
            for at_ms, place in sorted(worked)[-SOURCE_MAX:]:
                known.worked.setdefault(place, at_ms)
            self._lay_out(node)

    # -- within ------------------------------------------------------------------------------

    def _known(self, node: str, *, make: bool = True) -> _Known | None:
        if node == self._own or not NODE_ID_PATTERN.match(node):
            return None
        known = self._peers.get(node)
        if known is None and make and len(self._peers) < PEERS_MAX:
            known = self._peers[node] = _Known()
        return known

    def _last_ms(self, node: str) -> int:
        known = self._peers.get(node)
        return max(known.worked.values(), default=0) if known else 0

    def _lay_out(self, node: str) -> None:
        known = self._peers.get(node)
        places = known.places() if known else []
        if node in self._strangers and not (known and known.worked):
            strange = (at for at, who in self._strange.items() if who is None)
            kept = places[: PLACES_MAX - SOURCE_MAX]
            places = list(dict.fromkeys([*kept, *_first(strange), *places]))
        if places:
            self.table[node] = places[:PLACES_MAX]
        else:
            self.table.pop(node, None)

    def _lay_out_all(self) -> None:
        for node in {*self._peers, *self._strangers}:
            self._lay_out(node)


@dataclass(frozen=True, slots=True)
class Seed:
    """An address from the configuration, of a member that may be named."""

    node: str | None
    place: Place


def parse_seed(text: str) -> Seed:
    """Read ``host:port``, ``[v6]:port`` or ``nodeid@host:port``; raise ValueError."""
    node, at, where = text.rpartition("@")
    host, _, port = where.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not port.isascii() or not port.isdigit() or not is_place(host, int(port)):
        raise ValueError(f"a peer is HOST:PORT or NODE-ID@HOST:PORT, not {text!r}")
    if at and not NODE_ID_PATTERN.match(node):
        raise ValueError(f"{node!r} in the peer {text!r} is no node id")
    return Seed(node if at else None, (host, int(port)))


def is_place(host: str, port: int) -> bool:
    """Tell whether these could be dialled."""
    return 0 < len(host) <= HOST_CHARS_MAX and host.isprintable() and 0 < port < 65536


def listed_places(body: Mapping[str, Any]) -> list[Place]:
    """Return the addresses in the body of a NODE row; entries that are none are left out."""
    listed = body.get("addresses")
    found: list[Place] = []
    for entry in listed[:PLACES_MAX] if isinstance(listed, list) else ():
        match entry:
            case [str(host), int(port), *_] if is_place(host, port):
                found.append((host, port))
            case _:
                pass
    return found


def _first(places: Iterable[Place], most: int = SOURCE_MAX) -> list[Place]:
    return list(dict.fromkeys(places))[:most]
