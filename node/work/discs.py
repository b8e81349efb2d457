"""Boot discs of servers that boot by virtual media: their URL, and what is on them.

It knows rows, capabilities and addresses; the disc itself is put together by the boot listener.
Rules: a disc is for one attempt of one running job and worth nothing afterwards; the boot
capability on it lives as long as the one that it is read by, so its bytes never change; nothing
is inserted for a machine that has no address of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh.errors import Refused
from node.proto.disc_config import MachineNetwork, ramdisk_config
from node.work.capabilities import BOOT, DISC, Capabilities
from node.work.rows import SiteRows, plan_of

DISC_PATH: Final = "/boot/v1/media/"
SUFFIX: Final = ".iso"
_RUNS: Final = frozenset({"running", "retry_wait"})


@dataclass(frozen=True, slots=True)
class Places:
    """What the boot services know of discs and machines."""

    disc_base: Callable[[], str | None] = lambda: None
    """Base URL by which BMCs reach this node's boot listener; None: it serves no machines."""
    network_of: Callable[[str], MachineNetwork | None] = lambda mac: None
    """The address that is reserved for a MAC; None: none is, or another server gives it."""


class BootPlace(Protocol):
    """The boot services, as far as discs ask them."""

    def disc_base(self) -> str | None: ...  # noqa: D102
    def network_of(self, mac: str, /) -> MachineNetwork | None: ...  # noqa: D102


def places_of(boot: Callable[[], BootPlace | None]) -> Places:
    """Return what boot services know, which come later than work, or never."""

    def disc_base() -> str | None:
        found = boot()
        return None if found is None else found.disc_base()

    def network_of(mac: str) -> MachineNetwork | None:
        found = boot()
        return None if found is None else found.network_of(mac)

    return Places(disc_base, network_of)


class DiscDesk:
    """Decides about the discs of this site's servers."""

    def __init__(
        self,
        rows: SiteRows,
        capabilities: Capabilities,
        places: Places,
        now_ms: Callable[[], int],
    ) -> None:
        self._rows, self._capabilities = rows, capabilities
        self._places, self._now_ms = places, now_ms

    def url(self, job: Mapping[str, Any]) -> str:
        """Return the URL of the disc for a job's attempt; raises Refused."""
        server = self._rows.server(str(job["server"])) or {}
        self._network(server)
        base = self._places.disc_base()
        if base is None:
            raise Refused("this node serves no machines, so it has no disc to boot from")
        capability = self._capabilities.mint(
            DISC, str(job["server"]), str(job["id"]), int(job["attempt"]), self._now_ms()
        )
        if capability is None:
            raise Refused("this node has no site secret yet")
        return f"{base.rstrip('/')}{DISC_PATH}{capability}{SUFFIX}"

    def is_for(self, shown: str, job: Mapping[str, Any]) -> bool:
        """Tell whether what a BMC shows is the disc of this job's attempt and may be read."""
        text = shown.rpartition("/")[2].removesuffix(SUFFIX)
        try:
            found = self._capabilities.check(DISC, text, str(job["server"]), self._now_ms())
        except Refused:
            return False
        return (found.job, found.attempt) == (job["id"], job["attempt"])

    def config(self, text: str) -> str:
        """Return what the loader of a disc is told; raises Refused."""
        job = self._rows.job(self._capabilities.job_of(text))
        if job is None or not job.get("server"):
            raise Refused("there is no such order at this site")
        server_id = str(job["server"])
        found = self._capabilities.check(DISC, text, server_id, self._now_ms())
        server = self._rows.server(server_id)
        wants = any(step.do == "disc" for step in plan_of(job))
        current = job.get("state") in _RUNS and found.attempt == job["attempt"]
        if server is None or not wants or not current:
            raise Refused(f"{job.get('server_name')} does not boot from that disc any more")
        mac, network = self._network(server)
        urls = self._rows.boot_urls()
        if not urls:
            raise Refused("no node of this site says where its boot listener is")
        boot = self._capabilities.like(found, BOOT, server_id)
        return ramdisk_config(urls, mac, boot, network)

    def network(self, server: Mapping[str, Any]) -> tuple[str, MachineNetwork] | None:
        """Return the boot MAC of a server and the address reserved for it, or None."""
        for mac in server.get("macs") or ():
            found = self._places.network_of(mac)
            if found is not None:
                return mac, found
        return None

    def _network(self, server: Mapping[str, Any]) -> tuple[str, MachineNetwork]:
        found = self.network(server)
        if found is None:
            raise Refused(
                f"no address is reserved for {server.get('name')}: its subnet is unknown, full,"
                " or served by another DHCP server"
            )
        return found


def by_media(server: Mapping[str, Any] | None, params: Mapping[str, Any]) -> bool:
    """Tell whether a server boots by virtual media: said beside its BMC."""
    bmc = params.get("bmc") or (server or {}).get("bmc")
    return isinstance(bmc, Mapping) and bmc.get("boot_by") == "media"
