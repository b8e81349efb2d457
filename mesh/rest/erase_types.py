"""What the API says about erases and how they are to be done."""

from typing import Any, TypedDict


class CleanupPolicy(TypedDict):
    """How disks are erased when a server is released."""

    site: str
    server: str | None  # null: the site's own
    source: str  # "server" | "site" | "default": whose policy this is
    level: str  # clear | purge
    methods: list[str]  # best first
    fallback: list[str]  # may run below the level; empty: the server is held
    samples: int
    by: str | None
    changed_ms: int | None


class ErasedDisk(TypedDict):
    """Which disk it was, by its own word."""

    model: str
    serial: str
    bytes: int


class EraseRecord(TypedDict):
    """A disk that was erased, as the node that ran it signed it."""

    id: str
    site: str
    server: str
    server_name: str
    job: str
    author: str
    node: str
    disk: ErasedDisk
    serial: str
    method: str
    level: str
    wanted: str
    fallback: bool
    proved: bool
    on_hardware: str  # "not proven": no emulator shows that this method works
    samples: int
    markers: int
    started_ms: int
    ended_ms: int


class EraseRecordFile(EraseRecord):
    """A record with all that was signed, and the file that proves it offline."""

    signed: dict[str, Any]
    file: str
