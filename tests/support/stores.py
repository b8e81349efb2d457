"""Stores of test members in a folder."""

from pathlib import Path

from mesh.host.clock import FixedClock
from mesh.store import MeshStore
from tests.support.members import sign_head

SITE = "site:lab"


def opened(folder: Path, author: str = "a", **more) -> MeshStore:
    return MeshStore.open(
        folder / "state.db",
        author=author,
        sign_head=sign_head(author),
        clock=FixedClock(),
        **more,
    )
