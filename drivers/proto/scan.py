"""Looking for BMCs in a network, without I/O: whom to ask what, and what answers mean.

Knows no socket and no login. ``Scan`` begins addresses at a fixed rate, so many at a time; each
gets two RMCP pings (ASF presence ping, IPMI Get Channel Authentication Capabilities) and a look
at its Redfish service root, which needs no user (DSP0266 section 6). The rules: whatever
answers is hostile until parsed; nobody is heard who was not asked; a scan ends at its deadline.
Sources: ASF 2.0 section 3.2.4, IPMI 2.0 sections 13.2.3 and 22.13.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from drivers.proto.redfish import NotRedfish, clip, link

DATAGRAM_BYTES_MAX: Final = 512
TEXT_CHARS_MAX: Final = 100
_ASF_IANA: Final = (4542).to_bytes(4, "big")
_RMCP: Final = b"\x06\x00\xff"
PRESENCE_PING: Final = _RMCP + b"\x06" + _ASF_IANA + b"\x80\x01\x00\x00"
_ASK: Final = bytes((0x20, 0x18, 0xC8, 0x81, 0x00, 0x38, 0x8E, 0x04))
CAPABILITIES_ASK: Final = (
    _RMCP + b"\x07" + bytes(9) + bytes((9,)) + _ASK + bytes((-sum(_ASK[3:]) & 0xFF,))
)
MAKERS: Final[Mapping[int, str]] = {
    2: "IBM", 11: "HP", 42: "Sun", 343: "Intel", 674: "Dell", 2623: "ASUS", 5771: "Cisco",
    6653: "Tyan", 7154: "OpenIPMI", 7244: "Quanta", 10368: "Fujitsu", 10876: "Supermicro",
    15370: "Gigabyte", 19046: "Lenovo", 20301: "Lenovo", 40092: "Wiwynn", 47196: "HPE",
    49769: "YADRO", 49622: "ASRock Rack", 49150: "Ampere",
}  # fmt: skip
"""IANA enterprise numbers of makers of servers, as BMCs tell them."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a Redfish service root says to strangers."""

    url: str
    vendor: str
    product: str
    uuid: str
    version: str
    tls_sha256: str | None
    """Of the certificate that it showed, 64 hexadecimal digits; None: plain HTTP."""


@dataclass(frozen=True, slots=True)
class Ipmi:
    """What a BMC says over RMCP to strangers."""

    version: str
    """"2.0", "1.5", or "" while only the ASF ping was answered."""
    maker: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send a datagram to the RMCP port of a host."""

    host: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the Redfish service root of a host, and say ``on_root`` what came."""

    host: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A host with a BMC."""

    host: str
    root: Root | None
    ipmi: Ipmi | None


@dataclass(frozen=True, slots=True)
class Done:
    """The scan is over; ``asked`` of ``total`` addresses were asked to the end."""

    asked: int
    total: int


Effect = Send | Probe | Hit | Done


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanLimits:
    """How fast, and how long."""

    per_s: int = 100
    """Addresses begun in a second: 400 small datagrams and 200 connections at most."""
    at_once: int = 128
    """Addresses under way."""
    pings: int = 2
    """Times that an address is pinged."""
    ping_wait_s: float = 1.0
    """After each ping."""
    deadline_s: float = 600.0
    """The whole scan; above ``total / per_s``."""


@dataclass(slots=True)
class _Host:
    pings: int
    next_s: float
    ipmi: Ipmi | None = None
    root: Root | None = None
    probed: bool = False


class Scan:
    """One scan; ``deadline`` says when to call ``on_timer``."""

    def __init__(self, hosts: Sequence[str], limits: ScanLimits | None = None) -> None:
        self._hosts = list(dict.fromkeys(hosts))
        self._limits = limits or ScanLimits()
        self._active: dict[str, _Host] = {}
        self._begun = 0
        self.asked = 0
        self._start_s = 0.0
        self.deadline: float | None = None

    @property
    def total(self) -> int:
        """How many addresses are asked."""
        return len(self._hosts)

    def start(self, now: float) -> list[Effect]:
        """Begin."""
        self._start_s = now
        return self._go_on(now)

    def on_datagram(self, host: str, data: bytes, now: float) -> list[Effect]:
        """Take what came from the RMCP port of a host."""
        known, found = self._active.get(host), parse_rmcp(data)
        if known is None or found is None:
            return []
        if known.ipmi is None or (not known.ipmi.version and found.version):
            maker = found.maker or (known.ipmi.maker if known.ipmi else "")
            known.ipmi = Ipmi(found.version, maker)
        return self._go_on(now)

    def on_root(self, host: str, root: Root | None, now: float) -> list[Effect]:
        """Take the end of a probe; None: there is no Redfish service."""
        known = self._active.get(host)
        if known is None:
            return []
        known.root, known.probed = root, True
        return self._go_on(now)

    def on_timer(self, now: float) -> list[Effect]:
        """Begin what has its turn, ping again, end what nobody answers."""
        return self._go_on(now)

    def _go_on(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        over = now >= self._start_s + self._limits.deadline_s
        for host, known in list(self._active.items()):
            effects += self._look(host, known, now, over)
        while not over and self._may_begin(now):
            host = self._hosts[self._begun]
            self._begun += 1
            self._active[host] = _Host(0, now)
            effects.append(Probe(host))
            effects += self._look(host, self._active[host], now, over)
        if over or (not self._active and self._begun == self.total):
            self.deadline = None
            return [*effects, Done(self.asked, self.total)]
        self.deadline = self._next(now)
        return effects

    def _look(self, host: str, known: _Host, now: float, over: bool) -> list[Effect]:
        silent = known.ipmi is None or not known.ipmi.version
        if silent and not over and now >= known.next_s and known.pings < self._limits.pings:
            known.pings += 1
            known.next_s = now + self._limits.ping_wait_s
            return [Send(host, PRESENCE_PING), Send(host, CAPABILITIES_ASK)]
        pinged = not silent or (known.pings >= self._limits.pings and now >= known.next_s)
        if not over and not (known.probed and pinged):
            return []
        del self._active[host]
        self.asked += not over
        if known.root is None and known.ipmi is None:
            return []
        return [Hit(host, known.root, known.ipmi)]

    def _may_begin(self, now: float) -> bool:
        if self._begun >= self.total or len(self._active) >= self._limits.at_once:
            return False
        return now >= self._start_s + self._begun / self._limits.per_s

    def _next(self, now: float) -> float:
        """Return when there is something to do without any answer."""
        times = [self._start_s + self._limits.deadline_s]
        times += [known.next_s for known in self._active.values() if known.next_s > now]
        if self._begun < self.total and len(self._active) < self._limits.at_once:
            times.append(self._start_s + self._begun / self._limits.per_s)
        return min(times)


def parse_rmcp(data: bytes) -> Ipmi | None:
    """Read a presence pong, or the answer to Get Channel Authentication Capabilities."""
    if len(data) > DATAGRAM_BYTES_MAX or len(data) < 16 or data[0] != 6:
        return None
    if data[3] == 6:
        return _pong(data)
    return _capabilities(data) if data[3] == 7 else None


def _pong(data: bytes) -> Ipmi | None:
    if len(data) < 28 or data[4:8] != _ASF_IANA or data[8] != 0x40 or data[11] < 16:
        return None
    if not data[20] & 0x80:  # it speaks ASF, and no IPMI
        return None
    return Ipmi("", MAKERS.get(int.from_bytes(data[12:16], "big"), ""))


def _capabilities(data: bytes) -> Ipmi | None:
    if data[4] != 0 or data[13] < 15 or len(data) < 14 + data[13]:
        return None
    message = data[14 : 14 + data[13]]
    sound = sum(message[:3]) & 0xFF == 0 and sum(message[3:]) & 0xFF == 0
    if not sound or message[1] != 0x1C or message[5] != 0x38 or message[6] != 0:
        return None
    second = bool(message[8] & 0x80 and message[10] & 0x02)
    maker = int.from_bytes(message[11:14], "little") if len(message) >= 15 else 0
    return Ipmi("2.0" if second else "1.5", MAKERS.get(maker, ""))


def parse_seen_root(body: Mapping[str, Any], url: str, tls_sha256: str | None) -> Root:
    """Read a service root as a stranger sees it; NotRedfish for anything else."""
    version = body.get("RedfishVersion")
    kind = body.get("@odata.type")
    named = isinstance(kind, str) and kind.startswith("#ServiceRoot.")
    if not isinstance(version, str) and not named and link(body.get("Systems")) is None:
        raise NotRedfish("JSON that is no service root")
    vendor = _text(body.get("Vendor"))
    oem = body.get("Oem")
    if not vendor and isinstance(oem, dict):
        vendor = next((_text(key) for key in oem if not str(key).startswith("@")), "")
    return Root(
        url=url, vendor=vendor, product=_text(body.get("Product")),
        uuid=_text(body.get("UUID")).lower(), version=_text(version), tls_sha256=tls_sha256,
    )  # fmt: skip


def origins(host: str, ports: Iterable[int]) -> list[str]:
    """Return where a Redfish service may be at a host, TLS first."""
    found: list[str] = []
    for port in ports:
        for scheme, usual in (("https", 443), ("http", 80)):
            if port == usual:
                found.append(f"{scheme}://{host}")
            elif port not in (443, 80):
                found.append(f"{scheme}://{host}:{port}")
    return sorted(found, key=lambda origin: not origin.startswith("https"))


def _text(value: object) -> str:
    return clip(value[:400])[:TEXT_CHARS_MAX] if isinstance(value, str) else ""
