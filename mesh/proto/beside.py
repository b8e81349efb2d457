"""What a cache calls content that is kept beside what a name stands for.

It knows no cache. Rule: no reference can have such a name, so nobody wants it by it; ``plain``
tells the reference that it came for.
"""

from typing import Final

_MARK: Final = "+"
_NEXT: Final = "+next"
_ID_CHARS: Final = 16


def next_of(name: str) -> str:
    """Name of what is read for a name while that goes on standing for what it did."""
    return name + _NEXT


def is_next(name: str) -> bool:
    """Tell whether this is ``next_of`` some name."""
    return name.endswith(_NEXT)


def aside(name: str, asset: str) -> str:
    """Name of what a name stood for before."""
    return f"{name}{_MARK}{asset.removeprefix('b3:')[:_ID_CHARS]}"


def plain(name: str) -> str:
    """Return the reference that content came for."""
    return name.partition(_MARK)[0]
