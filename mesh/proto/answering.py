"""Answers to a peer's questions about what we hold: values out of the register and the digests.

It knows no exchange and remembers nothing; a peer may ask what it likes, in any order.
"""

from mesh.proto.heads_digest import Shared
from mesh.proto.serve import records_missing
from mesh.proto.sync_ports import RegisterView
from mesh.proto.sync_wire import (
    Groups,
    GroupsAsk,
    HeadsAsk,
    HeadsOf,
    Message,
    Records,
    RecordsAsk,
)

Question = RecordsAsk | HeadsAsk | GroupsAsk | HeadsOf


def answer(question: Question, shared: Shared, register: RegisterView) -> Message:
    """Return the answer to a question."""
    match question:
        case RecordsAsk(n, have):
            return Records(n, *records_missing(register.records(), have))
        case HeadsAsk(n, buckets):
            return shared.flat().differing(n, buckets)
        case GroupsAsk(n, marks):
            return Groups(n, shared.points(marks))
        case HeadsOf(n, keys):
            return shared.listed(n, keys)
