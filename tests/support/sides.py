"""Replicas over dictionaries that exchange deltas by hand."""

from mesh.proto.hlc import Hlc
from mesh.proto.intake import Delta, Outcome, take
from mesh.proto.replica import Replica
from mesh.proto.serve import serve
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.storage import MemoryStorage
from mesh.proto.sync_wire import Want
from tests.support.members import FakeMember, FakeRegister, PlainRoster, plain_sign

NOW = 1_700_000_000_000
SCOPE = "site:lab"
BODY = b"\x81\xa1v\x01"
A = SetId("a", SCOPE)


def make_roster() -> PlainRoster:
    hub = FakeMember("h", "", frozenset({"hub"}))
    return PlainRoster(
        FakeRegister(
            [FakeMember("a", "lab"), FakeMember("b", "lab"), FakeMember("c", "x"), hub]
        )
    )


ROSTER = make_roster()


class Side:
    """A replica with its storage; every call is one commit."""

    def __init__(self, name: str) -> None:
        self.disk = MemoryStorage()
        self.replica = Replica(self.disk, name, plain_sign(name), Hlc())
        self.now = NOW

    @property
    def name(self) -> str:
        return self.replica.author

    def put(
        self, *keys: str, body: bytes | None = BODY, scope: str = SCOPE, above: int = 0,
        table: str = "server",
    ):  # fmt: skip
        self.now += 1
        for key in keys:
            self.replica.put(scope, table, key, body, self.now, above)
        return self.commit()

    def commit(self) -> SignedHead | None:
        self.replica.seal(self.now)
        self.disk.forget_undo()
        changes = self.replica.commit()
        return next(iter(changes.values()), None)

    def delta_for(self, other: "Side", set_id: SetId, full: bool = False) -> Delta:
        held = other.replica.heads.get(set_id)
        point = held.head.point if held and not full else (0, 0)
        (delta,) = serve(self.disk, [Want(set_id, *point)], ROSTER, other.name)
        return delta

    def take(self, delta: Delta) -> Outcome:
        outcome = take(self.replica, delta, ROSTER, self.now)
        self.commit()
        return outcome

    def pull(self, other: "Side", set_id: SetId, full: bool = False) -> Outcome:
        return self.take(other.delta_for(self, set_id, full))

    def keys(self, author: str) -> set[str]:
        return {e.key for e in self.disk.entries(SetId(author, SCOPE)) if e.body is not None}
