"""A page of a list as SQL over the reporting store's table: the same plan, the same page.

It builds text and touches no database. Rule: what SQL leaves out, the filter would leave out
too; what only the filter can tell, SQL lets pass (``tests/unit/hub/test_pages_of_lists.py``
compares the two over random documents).
"""

import re
from typing import Final

from mesh.rest.filters import NONE
from mesh.rest.lists import JOB_OVER, JOB_RANKS, Plan, Value

COLUMNS: Final = ("id", "site", "name", "state")
"""Columns of the table that hold the field of that name."""
_RANKS: Final = " ".join(f"WHEN {state!r} THEN {rank}" for state, rank in JOB_RANKS.items())
_DERIVED: Final = {
    "over": f"(state IN ({', '.join(repr(state) for state in JOB_OVER)}))",
    "rank": f"(CASE state {_RANKS} ELSE 0 END)",
}
_PLAIN_WORD: Final = re.compile(r"[a-z0-9.:_-]+\Z")
"""Words that stand in a document's JSON as they are."""


def page_query(kind: str, asked: Plan, *, changing: bool) -> tuple[str, list[Value]]:
    """Return SQL for (rowid, place...) of what may be on the page, in order, and its values.

    ``changing``: documents are shown otherwise than they are stored.
    """
    terms = [_term(kind, name, asked.of.sorts.get(name, "")) for name, _ in asked.order]
    where, values = _where(kind, asked, changing)
    if asked.after is not None:
        text, more = _beyond(list(zip(terms, asked.order, asked.after, strict=True)))
        where.append(text)
        values += more
    order = ", ".join(
        f"{term}{' DESC' if down else ''}"
        for term, (_, down) in zip(terms, asked.order, strict=True)
    )
    return (
        f"SELECT rowid, {', '.join(terms)} FROM document"  # noqa: S608
        f" WHERE {' AND '.join(where)} ORDER BY {order}",
        values,
    )


def tally_query(kind: str, asked: Plan, field: str) -> tuple[str, list[Value], bool]:
    """Return SQL for (value of a field or null, how many pass the filter), its values, True.

    When SQL alone cannot tell what passes: SQL for the documents that may, and False.
    """
    kept = asked.kept
    plain = all(
        key in COLUMNS and asked.of.keys[key] == key and kept.exact(key) for key in kept.wanted
    )
    conditions, values = _where(kind, asked, changing=False)
    where = " AND ".join(conditions)
    if kept.words or kept.unwanted or not plain:
        return f"SELECT doc FROM document WHERE {where}", values, False  # noqa: S608
    assert field.isidentifier()
    term = field if field in COLUMNS else f"json_extract(doc, '$.{field}')"
    text = f"SELECT {term}, count(*) FROM document WHERE {where} GROUP BY 1"  # noqa: S608
    return text, values, True


def _where(kind: str, asked: Plan, changing: bool) -> tuple[list[str], list[Value]]:
    where, values = ["kind = ?"], list[Value]([kind])
    for key in ("site", "state", "name", "group"):
        found = asked.kept.exact(key)
        if found is None or asked.of.keys[key] != key:
            continue
        known = [*found, "queued"] if changing and key == "state" else list(found)
        expression = "job_group" if key == "group" else key
        where.append(f"lower({expression}) IN ({', '.join('?' * len(known))})")
        values += known
    for key in COLUMNS:
        unwanted = asked.kept.unwanted.get(key, ())
        plain = [value for value in unwanted if "*" not in value and value != NONE]
        if plain and asked.of.keys[key] == key and not (changing and key == "state"):
            where.append(f"lower({key}) NOT IN ({', '.join('?' * len(plain))})")
            values += plain
    for word in asked.kept.words:
        if _PLAIN_WORD.match(word):
            # only what is over is surely shown as it is stored
            unsure = f" OR NOT {_DERIVED['over']}" if changing else ""
            where.append(f"(instr(lower(doc), ?){unsure})")
            values.append(word)
    return where, values


def _term(kind: str, name: str, missing: Value) -> str:
    """Return the expression of a sortable field, the same as ``Plan.place`` tells."""
    if name in _DERIVED:
        return _DERIVED[name]
    if name in COLUMNS and (kind, name) != ("job", "name"):
        return name
    assert name.isidentifier()
    return f"coalesce(json_extract(doc, '$.{name}'), {missing!r})"


def _beyond(
    fields: list[tuple[str, tuple[str, bool], Value]],
) -> tuple[str, list[Value]]:
    """Return the condition that a place lies after another one."""
    (term, (_, down), value), *rest = fields
    sign = "<" if down else ">"
    if not rest:
        return f"{term} {sign} ?", [value]
    text, values = _beyond(rest)
    return f"({term} {sign} ? OR ({term} = ? AND {text}))", [value, value, *values]
