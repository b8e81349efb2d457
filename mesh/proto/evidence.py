"""Proof that an author has signed two histories: it runs twice, or its disk lost something.

It knows no link and no storage. Rules: a proof is two heads of one set and epoch, each under
the author's signature, that cannot both be true. Two different heads for one point, or a later
one that takes a promise back, convince anybody, so they are passed on; a later head whose rows
contradict an earlier one convinces only who has held both, and stays here. One proof a set is
kept, and so many in all.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from mesh.proto.sets import Entry, SetId, SignedHead

PROOFS_MAX: Final = 64
"""Sets about which a proof is kept."""


class Proof(NamedTuple):
    """Two heads of one set that cannot both be true."""

    one: SignedHead
    two: SignedHead

    @property
    def id(self) -> SetId:
        """The set."""
        return self.one.head.id

    @property
    def transferable(self) -> bool:
        """Tell whether the two heads alone convince."""
        one, two = sorted((self.one.head, self.two.head), key=lambda head: head.point)
        if one.epoch != two.epoch:
            return False  # a restored author may have lost a promise: no crime
        return one.seq == two.seq or two.floor < one.floor or two.base < one.base


def holds(proof: Proof, verify: Callable[[str, bytes, bytes], bool]) -> bool:
    """Tell whether a proof from somebody else is one; ``verify`` checks a head's signature."""
    one, two = proof
    return (
        one.head.id == two.head.id
        and proof.transferable
        and one.body != two.body
        and all(verify(s.head.author, s.body, s.signature) for s in proof)
    )


def rewritten(held: SignedHead, before: Iterable[Entry], after: Iterable[Entry]) -> bool:
    """Tell whether rows of a later head contradict what an earlier one of the epoch had.

    Whatever stands at or below the earlier head's seq later on stood there then.
    """
    known = {entry.seq: entry for entry in before}
    return any(e.seq <= held.head.seq and known.get(e.seq) != e for e in after)


def problems(proofs: Mapping[SetId, Proof]) -> list[str]:
    """Say what the proofs mean, a sentence an author."""
    authors = sorted({set_id.author for set_id in proofs})
    return [
        f"node {author} has signed two different histories: two machines run with its identity,"
        " or it lost writes that it had shown; stop one, or revoke it and join it anew"
        for author in authors[:3]
    ]
