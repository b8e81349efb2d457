"""News that a member was told of and that have not come yet, and whom to ask for them.

It knows no link and no message. Rule: each gets ``GRAFT_S`` to come by itself, then one after
the other of those who told is asked; when nobody is left it is forgotten, and the next
comparison of digests finds it.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_wire import Known, Want

GRAFT_S: Final = 0.15
"""How long news that another site told us of may take to come by another link."""
GRAFT_NEAR_S: Final = 0.02
"""The same when our own site told us."""
SECOND_S: Final = 0.1
"""So much longer in a flow when another gateway of our site asks first."""
REGRAFT_S: Final = 0.4
"""Then the next one who told is asked; more than most round trips."""
AWAITED_MAX: Final = 4096
"""Sets; more are left to the comparison of digests."""


@dataclass(slots=True)
class _Awaited:
    point: tuple[int, int]
    peers: list[str]
    due: float


class Awaited:
    """The news that one member waits for."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self._sets: dict[SetId, _Awaited] = {}
        self._asked: dict[
            SetId, tuple[tuple[int, int], str]
        ] = {}  # what was asked of whom last

    def add(self, name: str, known: Known, due: float) -> None:
        """A peer has told us of something that we do not hold: ask for it when it is due."""
        waiting = self._sets.get(known.id)
        if waiting is None:
            if len(self._sets) >= AWAITED_MAX:
                return
            self._sets[known.id] = _Awaited(known.point, [name], due)
            if self.deadline is None or due < self.deadline:
                self.deadline = due
        elif known.point > waiting.point:
            waiting.point, waiting.peers = known.point, [name]
        elif known.point == waiting.point and name not in waiting.peers:
            waiting.peers.append(name)

    def due(
        self,
        held: Mapping[SetId, SignedHead],
        incoming: Container[SetId],
        here: Callable[[str], bool],
        now: float,
    ) -> dict[str, list[Want]]:
        """Return what is to be asked of whom; forget what has come."""
        asks: dict[str, list[Want]] = {}
        for set_id, waiting in list(self._sets.items()):
            signed = held.get(set_id)
            point = signed.head.point if signed is not None else (0, 0)
            if point >= waiting.point:
                del self._sets[set_id]
            elif waiting.due <= now and set_id in incoming:
                waiting.due = now + GRAFT_S
            elif waiting.due <= now:
                waiting.peers = [name for name in waiting.peers if here(name)]
                if not waiting.peers:
                    del self._sets[set_id]
                    continue
                waiting.due = now + REGRAFT_S
                since = point if point[0] == waiting.point[0] else (0, 0)
                peer = waiting.peers.pop(0)
                self._asked.pop(set_id, None)
                self._asked[set_id] = waiting.point, peer
                if len(self._asked) > AWAITED_MAX:
                    del self._asked[next(iter(self._asked))]
                asks.setdefault(peer, []).append(Want(set_id, *since))
        self.deadline = min((each.due for each in self._sets.values()), default=None)
        return asks

    def refuted(self, set_id: SetId, point: tuple[int, int], name: str) -> str:
        """Return whom we asked for what now comes by another link as well ("": nobody)."""
        asked = self._asked.get(set_id)
        if asked is None or asked[1] == name or point < asked[0]:
            return ""
        del self._asked[set_id]
        return asked[1]
