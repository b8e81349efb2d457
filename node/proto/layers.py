"""A mapping that grows by few items at a time without being copied each time.

It knows nothing of what it maps. Rule: no value ever changes under its readers: ``with_items``
returns another one, which shares what is old. Its cost goes by what is new, and now and then,
when that has become many, by all.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Generic, TypeVar

RECENT_MAX: Final = 512
"""More recent items than that go over to the old ones, with one copy."""

K = TypeVar("K")
V = TypeVar("V")


class Layers(Mapping[K, V], Generic[K, V]):
    """Old items and recent ones; a recent one hides an old one of its key."""

    __slots__ = ("_old", "_recent")

    def __init__(self, old: dict[K, V], recent: dict[K, V] | None = None) -> None:
        self._old = old
        self._recent: dict[K, V] = recent or {}

    def with_items(self, items: Mapping[K, V]) -> "Layers[K, V]":
        """Return a mapping that has these items too."""
        recent = {**self._recent, **items}
        if len(recent) > RECENT_MAX:
            return Layers({**self._old, **recent})
        return Layers(self._old, recent)

    def __getitem__(self, key: K) -> V:
        """Return a value; raises KeyError."""
        return self._recent[key] if key in self._recent else self._old[key]

    def __contains__(self, key: object) -> bool:
        """Whether there is a value."""
        return key in self._recent or key in self._old

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]
        """Return a value, or the default."""
        if key in self._recent:
            return self._recent[key]
        return self._old.get(key, default)

    def __iter__(self) -> Iterator[K]:
        """Go over the keys, old ones first."""
        yield from self._old
        yield from (key for key in self._recent if key not in self._old)

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._old) + sum(key not in self._old for key in self._recent)
