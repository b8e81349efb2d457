"""The merged view of tables that several authors write, and when its markers may go.

It knows no storage but its port. Rules: the value of a key is the row that is highest by
(hlc, author), whatever order the rows came in; a row that another author's row beats is
retracted by its own author; a deletion marker is retracted only when no other row of the key is
seen, every author of the table, suspended ones too, has promised (head floor) to issue nothing
below it, and what dead authors left has been taken over (their heirs copy old stamps).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from mesh.proto.codec import unpack_map
from mesh.proto.sets import MARKER, ROW_BYTES_MAX, Entry, SetId, SignedHead
from mesh.proto.storage import Reader
from mesh.proto.tables import INHERITED, PER_AUTHOR

Authored = tuple[str, Entry]


def is_merged(table: str) -> bool:
    """Tell whether a table is a merged view (else it is read author by author)."""
    return table not in PER_AUTHOR


def rank(item: Authored) -> tuple[int, str]:
    """Return what the merged view is the maximum of."""
    author, entry = item
    return (entry.hlc, author)


def winner(rows: Iterable[Authored]) -> Authored | None:
    """Return the row that a key shows, a marker included."""
    return max((item for item in rows if item[1].body is not None), key=rank, default=None)


def winners(rows: Iterable[Authored]) -> list[Authored]:
    """Return the shown rows of a merged table by key, deletions hidden."""
    best: dict[str, Authored] = {}
    for item in rows:
        held = best.get(item[1].key)
        if item[1].body is not None and (held is None or rank(item) > rank(held)):
            best[item[1].key] = item
    return [best[key] for key in sorted(best) if best[key][1].body != MARKER]


def is_stable(
    entry: Entry, set_id: SetId, authors: Collection[str], heads: Mapping[SetId, SignedHead]
) -> bool:
    """Tell whether every author of the scope has promised to stay above a stamp."""
    for author in authors:
        if author == set_id.author:
            continue
        signed = heads.get(SetId(author, set_id.scope))
        if signed is None or signed.head.floor < entry.hlc:
            return False
    return True


def retractable(
    reader: Reader,
    set_id: SetId,
    authors: Collection[str],
    heads: Mapping[SetId, SignedHead],
    settled: bool = True,
) -> Iterator[Entry]:
    """Yield the rows of an author's own set that nobody needs any more.

    ``settled``: what dead authors left in the scope has been taken over.
    """
    for entry in list(reader.entries(set_id)):
        if entry.body is None or not is_merged(entry.table):
            continue
        mine = (set_id.author, entry)
        rows = reader.keyed(set_id.scope, entry.table, entry.key)
        others = [item for item in rows if item[0] != set_id.author]
        if any(rank(item) > rank(mine) for item in others) or (
            entry.body == MARKER
            and settled
            and not others
            and is_stable(entry, set_id, authors, heads)
        ):
            yield entry


def inherited(reader: Reader, set_id: SetId) -> tuple[int, int]:
    """Return the (epoch, seq) up to which a dead author's set was taken over, else (0, 0)."""
    last = (0, 0)
    for _, entry in reader.tabled(set_id.scope, INHERITED):
        if entry.body and entry.key.startswith(f"{set_id.author}/"):
            said = unpack_map(entry.body, ROW_BYTES_MAX)
            epoch, seq = said.get("epoch"), said.get("seq")
            if isinstance(epoch, int) and isinstance(seq, int):
                last = max(last, (epoch, seq))
    return last


def promise_owed(
    reader: Reader, scope: str, author: str, heads: Mapping[SetId, SignedHead], last: int
) -> bool:
    """Tell whether another author's marker waits for a promise that ``author`` can give now.

    ``last`` is the highest stamp that ``author`` has issued or seen.
    """
    own = heads.get(SetId(author, scope))
    floor = own.head.floor if own else -1
    for set_id in [held for held in heads if held.scope == scope and held.author != author]:
        if heads[set_id].head.floor <= floor:
            continue  # its markers are at or below its own promise
        for entry in reader.entries(set_id):
            if entry.body == MARKER and is_merged(entry.table) and floor < entry.hlc <= last:
                return True
    return False
