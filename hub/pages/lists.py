"""What the pages with long tables share: how much of a list is shown, and of which age."""

from typing import Any, Final

from hub.api import read
from hub.ports import Json, Services

ROWS_SHOWN_MAX: Final = 200
"""Most rows of one section; the page says how many more there are."""


def cut(rows: list[Any], total: int = 0, most: int = ROWS_SHOWN_MAX) -> Json:
    """Return the first rows and how many more there are."""
    return {"rows": rows[:most], "more": max(0, max(total, len(rows)) - most)}


def silent_sites(services: Services) -> dict[str, int | None]:
    """Return the sites that nobody reaches now, with their last contact: states are unknown."""
    silent = [s for s in read.sites(services) if s["nodes"] and not s["nodes_reachable"]]
    return {site["name"]: site["last_contact_ms"] for site in silent}
