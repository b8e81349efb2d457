"""An import of servers, asked and answered."""

from typing import Annotated, TypedDict

from msgspec import Meta

from mesh.proto.server_file import BYTES_MAX
from mesh.rest.requests import Closed, SiteName


class ImportRequest(Closed):
    """The text of a file with servers; all of them are taken, or none."""

    format: Annotated[str, Meta(extra_json_schema={"enum": ["csv", "json"]})]
    text: Annotated[str, Meta(min_length=1, max_length=BYTES_MAX)]
    site: SiteName | None = None
    """Of rows that name none."""
    dry_run: bool | None = None


class ImportFault(TypedDict):
    """What is wrong in a line of the file."""

    line: int
    detail: str


class ImportedServer(TypedDict):
    """A server of the file, and the order that makes it."""

    line: int
    name: str
    site: str
    mode: str  # managed | monitored
    server: str | None  # its id; None: nothing was ordered
    job: str | None
    secret: str | None  # id of the secret that was sealed for its BMC


class Imported(TypedDict):
    """What came of an import; with a fault nothing was done."""

    dry_run: bool
    rows: int
    faults: list[ImportFault]
    faults_more: int  # beyond those that are told
    servers: list[ImportedServer]
    groups: list[str]  # of the jobs
