"""What the trust services need of the replicated store: rows of authors, one durable write.

``mesh/store.py`` is the real thing; tests have a small one in memory that passes the same
contract. Rule: a service names the least it needs, so that it can be tested without a disk.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class RowPort(Protocol):
    """One row of one author."""

    @property
    def author(self) -> str:
        """Node id of who wrote it."""
        ...

    @property
    def key(self) -> str:
        """Its key in the table."""
        ...

    @property
    def body(self) -> Mapping[str, Any]:
        """Its fields."""
        ...


class TxPort(Protocol):
    """A write transaction; runs in the store's writer."""

    @property
    def now_ms(self) -> int:
        """Unix milliseconds of this write."""
        ...

    def put(self, scope: str, table: str, key: str, body: Mapping[str, Any]) -> None:
        """Write the author's own row."""
        ...

    def delete(self, scope: str, table: str, key: str) -> None:
        """Mark a row of a merged table as deleted."""
        ...

    def get(self, scope: str, table: str, key: str) -> RowPort | None:
        """Return the merged row."""
        ...

    def rows(self, scope: str, table: str) -> Sequence[RowPort]:
        """Return the merged rows of a table."""
        ...


class StorePort(Protocol):
    """The replicated store of one process."""

    @property
    def version(self) -> int:
        """A number that grows with every commit."""
        ...

    async def write(self, fn: Callable[[Any], T]) -> T:
        """Run ``fn(tx)`` in the writer; durable on return."""
        ...

    def get(self, scope: str, table: str, key: str) -> RowPort | None:
        """Return the merged row."""
        ...

    def rows(self, scope: str, table: str) -> Sequence[RowPort]:
        """Return the merged rows of a table."""
        ...

    def authored(self, scope: str, table: str, key: str | None = None) -> Sequence[RowPort]:
        """Return the rows of every author."""
        ...

    async def wait_past(self, version: int) -> int:
        """Wait for a commit after ``version``."""
        ...
