"""What a peer's word about a head makes us ask for.

It knows no link and no exchange. Rule: of somebody else's set we want what is ahead of ours,
from where we stand (or where a staged delta has stopped), and another head for our own point,
which is a proof against its author; of our own set we want whatever our
history does not go through, whole, since it says that we have lost something or have a twin.
"""

from collections.abc import Iterable
from typing import Any

from mesh.proto.evidence import Proof
from mesh.proto.intake import Roster, admits
from mesh.proto.serve import visible_to
from mesh.proto.sets import SetId, SignedHead
from mesh.proto.sync_ports import REACH_MIN, View
from mesh.proto.sync_wire import RECEIPTS_MAX, WANTS_MAX, Known, Want, receipt_body
from mesh.proto.tree import EMPTY


def begins(theirs: int | None, peer: str, ours: int, me: str) -> bool:
    """Tell whether of two that want to compare it is the peer that begins: who has less.

    ``theirs`` and ``ours`` are sums of seqs (``Shared.reach``); None: the peer does not say.
    """
    return peer < me if theirs is None or theirs == ours else theirs < ours


def forks(view: View, known: Known) -> bool:
    """Tell whether a peer's head stands at our point and says something else."""
    held = view.heads.get(known.id)
    if held is None or held.head.point != known.point or known.root == EMPTY:
        return False
    return known.root != held.head.root


def want(view: View, roster: Roster, known: Known) -> Want | None:
    """Return what to ask for, None when the peer has nothing for us."""
    me, set_id = view.author, known.id
    held = view.heads.get(set_id)
    if set_id.author != me and not roster.carries(me, set_id.scope, set_id.author):
        return None
    point = held.head.point if held else (0, 0)
    if set_id.author == me:
        lost = held is not None and not held.head.covers(known.point)
        wanted = known.point > point or lost or forks(view, known)
        return Want(set_id, 0, 0) if wanted else None
    if forks(view, known):  # its signed head proves it
        return Want(set_id, known.epoch, known.seq - 1)
    if known.point <= point:
        return None
    stage = view.stage(set_id)
    follows = held is not None and held.head.epoch == known.epoch
    if stage is not None and stage.epoch == known.epoch and (follows or not stage.start):
        return Want(set_id, known.epoch, stage.cursor)
    return Want(set_id, known.epoch, point[1]) if follows else Want(set_id, 0, 0)


def shares(view: View, roster: Roster, peer: str, signed: SignedHead) -> bool:
    """Tell whether we and a peer both carry a set, at a head that may stand."""
    own = signed.head.author == view.author
    return visible_to(roster, peer, signed.head.id) and (
        own or admits(roster, view.author, signed.head)
    )


def reach(answered: int, asked: int) -> int:
    """Return how many sets to ask for next: a little more than one answer has room for."""
    found = 2 * answered if answered == asked else answered * 17 // 16 + 1
    return min(max(found, REACH_MIN), WANTS_MAX)


def urgency(roster: Roster, want: Want) -> int:
    """Return the rank of a want: secrets, what hubs wrote (orders among it), the rest."""
    if want.id.scope.startswith("pair:"):
        return 0
    return 1 if roster.is_hub(want.id.author) else 2


def untold(view: View, roster: Roster, peer: str, told: set[SetId]) -> tuple[Proof, ...]:
    """Return the proofs that a peer should hear of and has not; it counts as told then."""
    new = tuple(
        proof
        for set_id, proof in view.proofs.items()
        if set_id not in told and proof.transferable and visible_to(roster, peer, set_id)
    )
    told.update(proof.id for proof in new)
    return new


def receipt_for(peer: str, heads: Iterable[SignedHead]) -> dict[str, Any] | None:
    """Return what tells a peer how much of its own sets is durable here, None: nothing."""
    own = [signed.head for signed in heads if signed.head.author == peer]
    points = [(head.scope, head.epoch, head.seq) for head in own]
    return receipt_body(points[:RECEIPTS_MAX]) if points else None
