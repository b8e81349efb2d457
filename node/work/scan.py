"""The step of a job that looks for BMCs: from networks to BMC_SIGHTING rows.

It knows rows and the scan's port (``drivers/scan.py``, loaded when it is needed). Rules: what
was found stands before the scan is over, so a scan that is cancelled has found it all the same;
a network that answers everywhere fills no store.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from drivers.proto.scan import Done, Hit
from mesh.errors import Refused
from mesh.proto import tables
from mesh.proto.scan_range import addresses, read_networks
from node.work.ports import Tx
from node.work.rows import SiteRows

FOUND_MAX: Final = 1024
"""BMCs that one scan writes down."""
PROGRESS_S: Final = 1.0

Job = Mapping[str, Any]
Progress = Callable[[int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFrom:
    """How this node reaches BMCs."""

    networks: Sequence[str] = ()
    """Asked when an order names none."""
    local_address: str | None = None
    """Of the out-of-band interface; None: the routing table decides."""


class Scanner:
    """Carries out scans of one site."""

    def __init__(self, rows: SiteRows, where: ScanFrom) -> None:
        self._rows = rows
        self._where = where

    async def run(self, job: Job, progress: Progress) -> dict[str, Any]:
        """Scan as the job's order says; return what came of it."""
        from drivers.scan import REDFISH_PORTS, RMCP_PORT, scan_bmcs

        params = job["params"]
        texts = params.get("networks") or self._where.networks
        if not texts:
            raise Refused(
                "the order names no network, and this node has no [interfaces] oob_networks"
            )
        hosts = [str(address) for address in addresses(read_networks(texts))]
        rmcp = int(params.get("rmcp_port") or RMCP_PORT)
        tally = _Tally()

        async def found(hit: Hit) -> None:
            tally.count(hit)
            if tally.found <= FOUND_MAX:
                await self._keep(hit, rmcp if rmcp != RMCP_PORT else None)

        async def told(asked: int, total: int) -> None:
            if tally.may_tell(asked == total):
                await progress(asked, total)

        done = await scan_bmcs(
            hosts, found, told, local_address=self._where.local_address,
            ports=tuple(params.get("ports") or REDFISH_PORTS), rmcp_port=rmcp,
        )  # fmt: skip
        return _evidence(done, tally, texts)

    async def _keep(self, hit: Hit, rmcp_port: int | None) -> None:
        scope, root = self._rows.scope, hit.root
        ipmi = f"ipmi://{hit.host}" + (f":{rmcp_port}" if rmcp_port else "")
        url = root.url if root is not None else ipmi
        maker = hit.ipmi.maker if hit.ipmi is not None else ""
        body = {
            "url": url, "ip": hit.host,
            "redfish": root.url if root is not None else None,
            "ipmi": ipmi if hit.ipmi is not None else None,
            "ipmi_version": hit.ipmi.version if hit.ipmi is not None else "",
            "vendor": (root.vendor if root is not None else "") or maker,
            "product": root.product if root is not None else "",
            "uuid": root.uuid if root is not None else "",
            "version": root.version if root is not None else "",
            "tls_sha256": root.tls_sha256 if root is not None else None,
        }  # fmt: skip

        def fn(tx: Tx) -> None:
            own = tx.own(scope, tables.BMC_SIGHTING, url)
            first = own.body.get("first_ms") if own is not None else None
            times = {"first_ms": first or tx.now_ms, "last_ms": tx.now_ms}
            tx.put(scope, tables.BMC_SIGHTING, url, body | times)

        await self._rows.store.write(fn)


class _Tally:
    """What a scan has found so far, and when that was last told."""

    def __init__(self) -> None:
        self.found = self.redfish = self.ipmi = 0
        self._told_s = 0.0

    def count(self, hit: Hit) -> None:
        self.found += 1
        self.redfish += hit.root is not None
        self.ipmi += hit.ipmi is not None

    def may_tell(self, last: bool) -> bool:
        now = trio.current_time()
        if last or now >= self._told_s + PROGRESS_S:
            self._told_s = now
            return True
        return False


def _evidence(done: Done, tally: _Tally, networks: Sequence[str]) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "networks": list(networks), "addresses": done.total, "asked": done.asked,
        "found": tally.found, "redfish": tally.redfish, "ipmi": tally.ipmi,
    }  # fmt: skip
    if done.asked < done.total:
        evidence["note"] = "its time was over before all addresses were asked"
    if tally.found > FOUND_MAX:
        evidence["note"] = f"{tally.found} answered, {FOUND_MAX} are written down"
    return evidence
