"""BMCs that were found, as ``/api/v1`` shows them."""

from typing import TypedDict


class FoundBmc(TypedDict):
    """A BMC that a scan of a site has found; nobody was logged in to it."""

    url: str  # what server accept --bmc takes
    site: str
    ip: str
    redfish: str | None  # URL
    ipmi: str | None  # URL
    ipmi_version: str | None
    vendor: str | None
    product: str | None
    uuid: str | None
    version: str | None  # of Redfish
    tls_sha256: str | None  # of its certificate: compare it before it is pinned
    servers: list[str]  # names of those that have their BMC here
    first_ms: int
    last_ms: int
    seen_by: list[str]
