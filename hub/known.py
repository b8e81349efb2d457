"""What the hub knows when somebody asks for work: looked up in the reporting store.

Rule: nothing is read that the request does not name, however many servers and jobs there are.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from hub.store import LIST_MAX, Json, ReportStore
from mesh.proto.hook import Hook
from mesh.rest.orders import Body, having


class HubKnown:
    """Looks things up for one request (``Known`` of mesh/rest/orders.py)."""

    def __init__(
        self,
        reports: ReportStore,
        images: Mapping[str, Json],
        templates: Mapping[str, Json],
        hooks: Mapping[str, Hook] | None = None,
    ) -> None:
        self.images = images
        self.templates = templates
        self.hooks = hooks or {}
        self._reports = reports

    def named(self, name_or_id: str) -> list[Json]:
        """Return the servers with this id or name."""
        return self._reports.find("server", name_or_id)

    def owning(self, mac: str) -> list[Json]:
        """Return the servers that have an interface with this MAC."""
        return [s for s in self._reports.saying("server", mac) if mac in s["macs"]]

    def seen(self, mac: str) -> list[Json]:
        """Return the pending machines with this MAC, one a site."""
        return self._reports.find("pending", mac)

    def job(self, job_id: str) -> Json | None:
        """Return a job."""
        found = self._reports.find("job", job_id)
        return found[0] if found and found[0]["id"] == job_id else None

    def ordered(self, server_id: str) -> bool:
        """Tell whether a job or order for the server has not ended."""
        return server_id in self._ordered

    def nodes(self, name_or_id: str) -> list[Json]:
        """Return the members with this id or name."""
        return self._reports.find("node", name_or_id)

    def having(self, field: str, value: str) -> Sequence[Body]:
        """Return the servers in whose field this value stands, in whatever case."""
        return having(self._servers, field, value)

    def has_site(self, site: str) -> bool:
        """Tell whether there is a site of this name."""
        return bool(self._reports.find("site", site))

    @cached_property
    def _servers(self) -> list[Json]:
        return self._reports.documents("server", limit=LIST_MAX)

    @cached_property
    def _ordered(self) -> set[str]:
        return self._reports.ordered()
