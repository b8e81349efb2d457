"""What the doctor makes of facts: each bad one is found, said, and comes with what mends it."""

import pytest

from node.proto import doctor
from node.proto.doctor import Finding, HubAnswer, Nic, Offer, Port

GOOD = Nic(name="eth1", up=True, carrier=True, address="10.77.0.1")


def port(**facts: object) -> Port:
    base = {
        "service": "dhcp",
        "where": "UDP 67 of eth1",
        "number": 67,
        "held": None,
        "ours": False,
    }
    return Port(**{**base, **facts})  # type: ignore[arg-type]


def one(findings: list[Finding], check: str) -> Finding:
    found = [finding for finding in findings if finding.check == check]
    assert len(found) == 1, findings
    return found[0]


@pytest.mark.parametrize(
    ("finding", "state", "words"),
    [
        (doctor.cores(2), "ok", "2 cores"),
        (doctor.cores(1), "warn", "1 core"),
        (doctor.memory(4_000_000_000, 1), "ok", "4.0 GB"),
        (doctor.memory(2_000_000_000, 1), "warn", "4 GB are wanted"),
        (doctor.memory(500_000_000, 1), "fail", "4 GB are wanted"),
        (doctor.disk("/d", 50_000_000_000, "ext4"), "ok", "50.0 GB free on ext4"),
        (doctor.disk("/d", 20_000_000_000, "xfs"), "warn", "40 GB are wanted"),
        (doctor.disk("/d", 1_000_000_000, "xfs"), "fail", "40 GB are wanted"),
        (doctor.disk("/d", 50_000_000_000, "tmpfs"), "fail", "lost when the power goes"),
        (doctor.disk("/d", 50_000_000_000, "nfs4"), "fail", "local disk"),
        (doctor.port(port()), "ok", "free"),
        (doctor.port(port(ours=True)), "ok", "held by this node"),
        (doctor.port(port(held="process 7 (dnsmasq)")), "fail", "held by process 7 (dnsmasq)"),
        (doctor.port(port(refused="Permission denied")), "fail", "Permission denied"),
        (doctor.clock(1, 2, True), "fail", "before this program was made"),
        (doctor.clock(2, 1, False), "warn", "no NTP"),
        (doctor.clock(2, 1, None), "unknown", "does not say"),
        (doctor.clock(2, 1, True), "ok", "NTP"),
        (doctor.converter(None), "ok", "qemu-img is here"),
        (doctor.converter("qemu-img is missing"), "warn", "raw images, ISOs and live systems"),
        (doctor.boot_files("/b", None), "fail", "vmlinuz, initrd, undionly.kpxe, snponly.efi"),
        (
            doctor.boot_files("/b", ["vmlinuz", "initrd", "undionly.kpxe"]),
            "fail",
            "snponly.efi",
        ),
        (doctor.boot_files("/b", [*doctor.RAMDISK, *doctor.LOADERS]), "ok", "all are in /b"),
        (doctor.far("h:1/tls", None, 3.0), "ok", "3 ms"),
        (doctor.far("h:1/udp", "no answer", None), "fail", "no answer"),
    ],
)
def test_a_fact_is_judged_and_what_is_not_well_says_what_mends_it(finding, state, words):
    assert finding.state == state
    assert words in finding.says
    assert state == "ok" or finding.mend


def test_only_missing_boot_files_are_to_be_made():
    mend = doctor.boot_files("/b", ["vmlinuz", "initrd"]).mend
    assert mend == "scripts/fetch-boot-files /b"


@pytest.mark.parametrize(
    ("nic", "state", "words"),
    [
        (GOOD, "ok", "is up with 10.77.0.1"),
        (Nic(name="eth1", up=False, carrier=None, address=None), "fail", "eth1 is down"),
        (Nic(name="eth1", up=True, carrier=True, address=None), "fail", "no IPv4 address"),
        (Nic(name="eth1", up=True, carrier=False, address="10.0.0.1"), "warn", "no link"),
        (Nic(name="eth9", up=True, carrier=True, address="10.0.0.1"), "fail", "only eth9"),
    ],
)
def test_the_provisioning_interface_must_be_there_and_up_with_an_address(nic, state, words):
    finding = one(doctor.interfaces([nic], "eth1", None), "provisioning")
    assert finding.state == state
    assert words in finding.says


def test_one_network_for_machines_and_bmcs_is_a_warning():
    other = Nic(name="eth0", up=True, carrier=True, address="10.9.0.1")
    apart = doctor.interfaces([GOOD, other], "eth1", "eth0")
    assert {finding.state for finding in apart} == {"ok"}
    same = doctor.interfaces([GOOD, other], "eth1", "eth1")
    assert one(same, "network separation").state == "warn"
    alone = doctor.interfaces([GOOD], "eth1", None)
    assert "two are wanted" in one(alone, "network separation").says


@pytest.mark.parametrize(
    ("offset_s", "state"),
    [(0.4, "ok"), (-4, "ok"), (20, "warn"), (-20, "warn"), (3600, "fail")],
)
def test_our_clock_is_judged_by_the_hubs(offset_s, state):
    answers = [
        HubAnswer(url="https://h", error=None, took_ms=12, offset_s=offset_s),
        HubAnswer(url="https://g", error=None, took_ms=12, offset_s=None),
    ]
    assert one(doctor.hubs(answers), "clock of hub").state == state


def test_of_several_hubs_the_one_that_agrees_best_counts():
    answers = [
        HubAnswer(url=f"https://{off}", error=None, took_ms=1, offset_s=off)
        for off in (90_000.0, 1.0)
    ]
    assert one(doctor.hubs(answers), "clock of hub").state == "ok"


def test_a_hub_out_of_reach_fails_and_no_hub_is_unknown():
    assert doctor.hubs([])[0].state == "unknown"
    found = doctor.hubs([HubAnswer(url="https://h:8443", error="no answer")])
    assert [finding.state for finding in found] == ["fail"]
    assert "listen" in (found[0].mend or "")


def test_a_stranger_who_answers_dhcp_is_named_and_our_nodes_are_not():
    stranger = Offer(server="10.77.0.66", mac="02:00:00:00:00:66", address="10.77.0.200")
    node = Offer(server="10.77.0.1", mac=None, address="10.77.0.100")
    found = doctor.rogue_dhcp("eth1", [stranger, node], ["10.77.0.1"])
    assert [finding.state for finding in found] == ["fail"]
    assert "10.77.0.66 (02:00:00:00:00:66) offers 10.77.0.200" in found[0].says
    assert doctor.rogue_dhcp("eth1", [node], ["10.77.0.1"])[0].state == "ok"
    assert doctor.rogue_dhcp("eth1", None, [], "Permission denied")[0].state == "unknown"
    assert doctor.rogue_dhcp(None, None, [])[0].state == "unknown"


def test_the_worst_comes_first():
    found = [doctor.cores(2), doctor.hubs([])[0], doctor.cores(1), doctor.memory(1, 1)]
    states = [finding.state for finding in doctor.worst_first(found)]
    assert states == ["fail", "warn", "unknown", "ok"]
