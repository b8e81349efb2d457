"""Scanning for BMCs: who is asked when, what answers mean, where it ends."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.proto.redfish import NotRedfish
from drivers.proto.scan import (
    CAPABILITIES_ASK,
    PRESENCE_PING,
    Done,
    Hit,
    Ipmi,
    Probe,
    Root,
    Scan,
    ScanLimits,
    Send,
    origins,
    parse_rmcp,
    parse_seen_root,
)

PONG = bytes.fromhex("0600ff06000011be40010010 000002a2 00000000 81 00 000000000000")
"""Dell (674), IPMI supported (ASF 2.0 section 3.2.4.3)."""


def capabilities(types: int = 0x94, extended: int = 0x02, oem: int = 0, code: int = 0) -> bytes:
    """Get Channel Authentication Capabilities, answered (IPMI 2.0 section 22.13)."""
    head = bytes((0x81, 0x1C))
    rest = bytes((0x20, 0x00, 0x38, code, 0x01, types, 0x04, extended))
    rest += oem.to_bytes(3, "little") + b"\0"
    message = head + bytes((-sum(head) & 0xFF,)) + rest + bytes((-sum(rest) & 0xFF,))
    return b"\x06\x00\xff\x07" + bytes(9) + bytes((len(message),)) + message


def test_the_questions_are_those_of_the_specifications() -> None:
    assert PRESENCE_PING.hex() == "0600ff06000011be80010000"
    assert CAPABILITIES_ASK.hex() == "0600ff07000000000000000000092018c88100388e04b5"


def test_answers_are_read_and_others_dropped() -> None:
    assert parse_rmcp(PONG) == Ipmi("", "Dell")
    assert parse_rmcp(PONG[:20] + b"\x01" + PONG[21:]) is None  # ASF, no IPMI
    assert parse_rmcp(capabilities()) == Ipmi("2.0", "")
    assert parse_rmcp(capabilities(types=0x14)) == Ipmi("1.5", "")
    assert parse_rmcp(capabilities(oem=10876)) == Ipmi("2.0", "Supermicro")
    assert parse_rmcp(capabilities(code=0xC1)) is None
    good = capabilities()
    for at in range(14, len(good)):
        wrong = bytearray(good)
        wrong[at] ^= 0x01
        assert parse_rmcp(bytes(wrong)) is None
    for size in range(len(good)):
        assert parse_rmcp(good[:size]) is None
    assert parse_rmcp(good + bytes(600)) is None


@given(st.binary(max_size=80), st.binary(max_size=12))
def test_garbage_never_raises(data: bytes, more: bytes) -> None:
    for head in (b"", PONG[: len(more)], capabilities()[:14], b"\x06\0\xff"):
        parse_rmcp(head + data)


class Network:
    """Hosts that answer, in virtual time."""

    def __init__(
        self, scan: Scan, ipmi: set[str], redfish: set[str], slow_s: float = 0.3
    ) -> None:
        self.scan, self.ipmi, self.redfish, self.slow_s = scan, ipmi, redfish, slow_s
        self.now = 0.0
        self.waiting: list[tuple[float, int, str]] = []
        self.sent: list[tuple[float, str]] = []
        self.hits: list[Hit] = []
        self.active = self.most = 0

    def run(self, seed: int = 0) -> Done:
        rng = random.Random(seed)
        effects = self.scan.start(self.now)
        for number in range(200_000):
            for effect in effects:
                match effect:
                    case Send(host, data):
                        self.sent.append((self.now, host))
                        if (
                            host in self.ipmi
                            and data == CAPABILITIES_ASK
                            and rng.random() < 0.9
                        ):
                            self.waiting.append((self.now + 0.1, number, f"i{host}"))
                    case Probe(host):
                        self.active += 1
                        self.most = max(self.most, self.active)
                        self.waiting.append((self.now + self.slow_s, number, f"r{host}"))
                    case Hit():
                        self.hits.append(effect)
                    case Done():
                        return effect
            at = min([w[0] for w in self.waiting] or [1e9])
            assert self.scan.deadline is not None
            assert self.scan.deadline >= self.now
            if at <= self.scan.deadline:
                first = min(self.waiting)
                self.waiting.remove(first)
                self.now, what = first[0], first[2]
                effects = self._answer(what[0], what[1:])
            else:
                self.now = self.scan.deadline
                effects = self.scan.on_timer(self.now)
        raise AssertionError("it never ends")

    def _answer(self, kind: str, host: str) -> list[object]:
        if kind == "i":
            return self.scan.on_datagram(host, capabilities(), self.now)
        self.active -= 1
        found = host in self.redfish
        root = Root(f"https://{host}", "V", "P", "u", "1.1", "ab" * 32) if found else None
        return self.scan.on_root(host, root, self.now)


@pytest.mark.parametrize("seed", range(5))
def test_a_scan_finds_whoever_answers_within_its_rate(seed: int) -> None:
    rng = random.Random(seed)
    hosts = [f"10.0.{n // 256}.{n % 256}" for n in range(600)]
    ipmi, redfish = set(rng.sample(hosts, 40)), set(rng.sample(hosts, 40))
    limits = ScanLimits(per_s=100, at_once=50)
    net = Network(Scan([*hosts, *hosts[:50]], limits), ipmi, redfish)
    assert net.run(seed) == Done(600, 600)
    assert {hit.host for hit in net.hits if hit.root} == redfish
    found = {hit.host for hit in net.hits if hit.ipmi}
    assert found <= ipmi
    assert len(found) >= len(ipmi) - 2  # two pings, a tenth of them lost
    assert net.most <= 50
    assert len(net.hits) == len({hit.host for hit in net.hits})
    for second in range(int(net.now)):
        begun = [host for at, host in net.sent if second <= at < second + 1]
        assert len(begun) <= 4 * limits.per_s
    assert net.now < 60


def test_it_ends_at_its_deadline_and_says_how_far_it_came() -> None:
    limits = ScanLimits(per_s=100, at_once=10, deadline_s=30)
    net = Network(Scan([f"h{n}" for n in range(500)], limits), {"h1"}, {"h3"}, slow_s=5)
    done = net.run()
    assert net.now == 30
    assert 0 < done.asked < done.total == 500
    assert {hit.host for hit in net.hits} == {"h1", "h3"}


def test_strangers_are_not_heard() -> None:
    scan = Scan(["10.0.0.1"])
    scan.start(0)
    assert scan.on_datagram("10.0.0.2", capabilities(), 0.1) == []
    assert scan.on_root("10.0.0.2", None, 0.1) == []


def test_a_service_root_is_told_from_other_json() -> None:
    root = {
        "RedfishVersion": "1.15.0", "Vendor": "Contoso", "Product": "x" * 5000,
        "UUID": "AB-CD", "Systems": {"@odata.id": "/redfish/v1/Systems"},
    }  # fmt: skip
    seen = parse_seen_root(root, "https://10.0.0.1", None)
    assert (seen.vendor, seen.uuid, seen.version) == ("Contoso", "ab-cd", "1.15.0")
    assert len(seen.product) == 100
    assert parse_seen_root({"@odata.type": "#ServiceRoot.v1", "Oem": {"Hpe": {}}}, "u", None)
    for other in ({}, {"RedfishVersion": 1}, {"Systems": "https://evil/x"}, {"Vendor": "x"}):
        with pytest.raises(NotRedfish):
            parse_seen_root(other, "u", None)


def test_tls_is_tried_before_anything_else() -> None:
    assert origins("h", (443, 80)) == ["https://h", "http://h"]
    assert origins("h", (80, 8000, 443)) == [
        "https://h:8000", "https://h", "http://h", "http://h:8000",
    ]  # fmt: skip
