"""Fields of rows as they come: what is of another type counts as unknown.

It knows no table. Rule: a row of another release, or of a liar, never raises here.
"""

from typing import Any


def text_of(value: Any) -> str | None:
    """Return a text, or None."""
    return value if isinstance(value, str) else None


def texts_of(value: Any) -> list[str]:
    """Return the texts of a list; empty for anything else."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def number_of(value: Any) -> int | None:
    """Return a whole number, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
