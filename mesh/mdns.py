"""Members of one site find each other on the local network by multicast DNS (RFC 6762, 6763).

It knows no handshake: what is said here is only a hint of where to dial. Told to everybody on
the network are the node id, the port and a hash of the site; not the site's name. Rules: the
library is imported and works in threads of its own, and only while this runs; whatever fails is
tried again with a back-off; findings of other sites are dropped, and a network that is flooded
with names costs a pause, not memory.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

import trio

from mesh.host.log import get_log
from mesh.proto.address_book import Place
from mesh.proto.crossing import Redial
from mesh.proto.ids import NODE_ID_PATTERN

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

SERVICE: Final = "_rackmesh._tcp.local."
SITE_KEY: Final = b"site"
RESOLVE_MS: Final = 3000
CHECK_S: Final = 10.0
"""How often our own addresses and the size of what was heard are looked at."""
RECORDS_MAX: Final = 20_000
"""Records of the local network that are kept; above it we let go of all and pause."""
RETRY_S: Final = 20.0
RETRY_S_MAX: Final = 600.0

_LOG = get_log("mdns")
_THREADS: Final = trio.CapacityLimiter(2)


class Flooded(Exception):
    """The local network says more than anybody can mean."""


def site_tag(root_fp: bytes, site: str) -> bytes:
    """Return what stands for a site where everybody can read it."""
    return hashlib.blake2b(
        root_fp + site.encode(), digest_size=8, person=b"rackmesh/mdns"
    ).hexdigest().encode()  # fmt: skip


def finding(tag: bytes, name: str, info: Any) -> tuple[str, list[Place]] | None:
    """Return who and where a service of our site is, None for anything else.

    ``info`` has ``port``, ``properties`` and ``parsed_addresses()``, as the network gave them.
    """
    node, _, rest = name.partition(".")
    if rest.lower() != SERVICE or not NODE_ID_PATTERN.match(node):
        return None
    if info.properties.get(SITE_KEY) != tag or not info.port:
        return None
    hosts = [text for text in info.parsed_addresses() if _is_useful(text)]
    return node, [(host, info.port) for host in hosts]


def _is_useful(text: str) -> bool:
    try:
        address = IPv4Address(text)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified or address.is_loopback)


class Mdns:
    """Says where we are, and listens to where the others of our site are."""

    def __init__(
        self,
        node_id: str,
        tag: bytes,
        port: Callable[[], int],
        hosts: Callable[[], Sequence[str]],
        found: Callable[[str, Sequence[Place]], None],
    ) -> None:
        """``hosts``: the IPv4 addresses of this machine that peers may dial."""
        self._node_id = node_id
        self._tag = tag
        self._port = port
        self._hosts = hosts
        self._found = found

    async def run(self) -> None:
        """Run until cancelled; never raises for what the network does."""
        retry = Redial(random.random, RETRY_S, RETRY_S_MAX)
        while True:
            began = trio.current_time()
            try:
                await self._run_once(list(self._hosts()))
                continue  # our addresses have changed
            except Exception as exc:  # the library's own failures are of many kinds
                error = f"{type(exc).__name__}: {exc}"
                _LOG.warning("local discovery failed", error=error)
            retry.succeeded(trio.current_time() - began)
            await trio.sleep(retry.wait_s())

    async def _run_once(self, hosts: list[str]) -> None:
        """Say and listen until our addresses change; raises what the library raises."""
        zone: Zeroconf | None = None
        usable = [host for host in hosts if _is_useful(host)]
        try:
            if usable:  # a node that only its own machine can dial is not told to the network
                zone = await trio.to_thread.run_sync(self._open, usable, limiter=_THREADS)
                listen = trio.lowlevel.current_trio_token()
                await trio.to_thread.run_sync(self._say, zone, usable, listen, limiter=_THREADS)
            while list(self._hosts()) == hosts:
                await trio.sleep(CHECK_S)
                if zone is not None and _records(zone) > RECORDS_MAX:
                    raise Flooded(f"more than {RECORDS_MAX} records on the local network")
        finally:
            if zone is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(zone.close, limiter=_THREADS)

    # -- in threads --------------------------------------------------------------------------

    def _open(self, hosts: list[str]) -> "Zeroconf":
        from zeroconf import IPVersion, Zeroconf

        return Zeroconf(interfaces=list(hosts), ip_version=IPVersion.V4Only)

    def _say(self, zone: "Zeroconf", hosts: list[str], token: trio.lowlevel.TrioToken) -> None:
        """Listen first, then register: that takes 1.6 s, since the name is asked for before."""
        from zeroconf import ServiceBrowser, ServiceInfo

        def heard(*, name: str, state_change: Any, **_: Any) -> None:
            self._on_change(zone, token, name, state_change.name)

        ServiceBrowser(zone, SERVICE, handlers=[heard])
        zone.register_service(
            ServiceInfo(
                SERVICE,
                f"{self._node_id}.{SERVICE}",
                port=self._port(),
                properties={SITE_KEY: self._tag},
                server=f"{self._node_id}.local.",
                addresses=[IPv4Address(host).packed for host in hosts],
            )
        )

    def _on_change(
        self, zone: "Zeroconf", token: trio.lowlevel.TrioToken, name: str, change: str
    ) -> None:
        """Resolve a service and hand it to trio; runs in the browser's thread."""
        node = name.partition(".")[0]
        if node == self._node_id or not NODE_ID_PATTERN.match(node):
            return
        places: Sequence[Place] = ()
        if change != "Removed":
            info: ServiceInfo | None = zone.get_service_info(SERVICE, name, RESOLVE_MS)
            known = info and finding(self._tag, name, info)
            if not known:
                return
            places = known[1]
        try:
            trio.from_thread.run_sync(self._found, node, places, trio_token=token)
        except trio.RunFinishedError:
            pass


def _records(zone: "Zeroconf") -> int:
    """Return how many records of the network the library keeps."""
    return sum(len(records) for records in list(zone.cache.cache.values()))
