"""What a page is: a template, and sections that are renewed one by one.

Rule: the address says everything. A page asked again with ``?part=a,b`` answers with these
sections alone, so that what an event made old is read again with the page's own filters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

PART: Final = "part"
PARTS_MAX: Final = 16
"""Most sections of one request."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with data of its own; ``name`` is its element's id."""

    name: str
    template: str
    kinds: str
    """Events that make it old, by their names, with blanks between; empty: only time does."""
    build: Callable[[], Json]
    """Reads what the template finds under ``section``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a handler returns to the renderer."""

    title: str
    template: str
    at: str
    """Which entry of the navigation it belongs to."""
    sections: tuple[Section, ...] = ()
    site: str | None = None
    """The site it is about, marked in the tree."""
    node: str | None = None
    """The node it is about, by id."""
    search: str = ""
    """What was searched for."""
    values: Json = field(default_factory=dict)
    """What else the template is given."""
    still: bool = False
    """It holds a form: without JavaScript the browser must not load it again by itself."""
