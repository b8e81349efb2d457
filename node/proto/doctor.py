"""What the facts of a machine mean for a node: findings, each with the command that mends it.

It knows no sockets and no files (``node/doctor/`` gathers). Rules: what could not be found out
is ``unknown``, never ``ok``; every ``warn`` and ``fail`` says what to do. A site's box has
2 cores, 4 GB of memory, 40 GB of disk and two interfaces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warn", "fail", "unknown"]
ORDER: Final[Mapping[State, int]] = {"fail": 0, "warn": 1, "unknown": 2, "ok": 3}

CORES_MIN: Final = 2
MEMORY_BYTES_MIN: Final = 3_500_000_000
"""4 GB as machines report it: less what firmware and kernel keep."""
MEMORY_BYTES_LEAST: Final = 1 << 30
DISK_BYTES_MIN: Final = 40_000_000_000
DISK_BYTES_LEAST: Final = 5_000_000_000
VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "fuse.sshfs"})
CLOCK_OFF_S_MAX: Final = 60.0
"""Beyond this, orders and leases of others look too old or too new."""
CLOCK_OFF_S_WARN: Final = 5.0
CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_RAW: Final = 13
LOADERS: Final = ("undionly.kpxe", "snponly.efi")
RAMDISK: Final = ("vmlinuz", "initrd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``mend``: a command or a sentence, when not ok."""

    check: str
    state: State
    says: str
    mend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network interface. ``carrier`` None: the kernel does not say."""

    name: str
    up: bool
    carrier: bool | None
    address: str | None
    virtual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port that the node will use. ``held``: by whom; ``ours``: by this node that runs."""

    service: str
    where: str
    number: int
    held: str | None
    ours: bool
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAnswer:
    """What came of one address of a hub. ``offset_s``: its clock less ours."""

    url: str
    error: str | None
    took_ms: float | None = None
    offset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A DHCP server that answered where only the nodes of this site should."""

    server: str
    mac: str | None
    address: str


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings, fails first, else in their order."""
    return sorted(findings, key=lambda finding: ORDER[finding.state])


def cores(count: int) -> Finding:
    """Judge the number of processors that this process may use."""
    if count >= CORES_MIN:
        return Finding(check="cores", state="ok", says=f"{count} cores")
    return Finding(
        check="cores", state="warn", says=f"{count} core; {CORES_MIN} are wanted",
        mend="give the machine a second core: boot services and hashing share one now",
    )  # fmt: skip


def memory(total: int, available: int) -> Finding:
    """Judge memory in bytes, total and free for new use."""
    says = f"{_gb(total)} GB, {_gb(available)} GB of it free"
    if total >= MEMORY_BYTES_MIN:
        return Finding(check="memory", state="ok", says=says)
    state: State = "warn" if total >= MEMORY_BYTES_LEAST else "fail"
    return Finding(check="memory", state=state, says=f"{says}; 4 GB are wanted",
                   mend="give the machine 4 GB of memory")  # fmt: skip


def disk(path: str, free: int, kind: str | None) -> Finding:
    """Judge the file system of the data folder: ``free`` bytes, ``kind`` as in /proc/mounts."""
    says = f"{path}: {_gb(free)} GB free on {kind or 'an unknown file system'}"
    if kind in VOLATILE:
        return Finding(
            check="disk", state="fail", says=f"{says}, which is lost when the power goes",
            mend="keep the data on a disk: rackmesh node run --data FOLDER",
        )  # fmt: skip
    if kind in REMOTE:
        return Finding(
            check="disk", state="fail", says=f"{says}: databases need a local disk",
            mend="keep the data on a local disk: rackmesh node run --data FOLDER",
        )  # fmt: skip
    if free >= DISK_BYTES_MIN:
        return Finding(check="disk", state="ok", says=says)
    state: State = "warn" if free >= DISK_BYTES_LEAST else "fail"
    return Finding(
        check="disk", state=state, says=f"{says}; 40 GB are wanted",
        mend="make room, or set [cache] quota_gib below what is free",
    )  # fmt: skip


def interfaces(nics: Sequence[Nic], provisioning: str | None, oob: str | None) -> list[Finding]:
    """Judge the two networks: the one machines boot from, and the one of the BMCs."""
    found = [_role(nics, "provisioning", provisioning), _role(nics, "oob", oob)]
    real = [nic for nic in nics if not nic.virtual]
    if provisioning is not None and provisioning == oob:
        found.append(Finding(
            check="network separation", state="warn",
            says=f"provisioning and oob are both {oob}: machines that boot can reach the BMCs",
            mend="give BMCs a network of their own and set [interfaces] oob",
        ))  # fmt: skip
    elif len(real) < 2:
        found.append(Finding(
            check="network separation", state="warn",
            says=f"{len(real)} network interface; two are wanted (machines, BMCs)",
            mend="add an interface for the BMCs' network",
        ))  # fmt: skip
    return found


def _role(nics: Sequence[Nic], role: str, wanted: str | None) -> Finding:
    names = ", ".join(nic.name for nic in nics) or "none"
    if wanted is None:
        what = "machines boot from [boot] listen" if role == "provisioning" else (
            "the routing table decides how BMCs are reached"
        )  # fmt: skip
        return Finding(
            check=role, state="warn", says=f"no {role} interface is configured: {what}",
            mend=f"set [interfaces] {role} to one of: {names}",
        )  # fmt: skip
    nic = next((nic for nic in nics if nic.name == wanted), None)
    if nic is None:
        return Finding(
            check=role, state="fail", says=f"there is no interface {wanted}, only {names}",
            mend=f"set [interfaces] {role} to one of: {names}",
        )  # fmt: skip
    if not nic.up:
        return Finding(check=role, state="fail", says=f"{wanted} is down",
                       mend=f"ip link set {wanted} up")  # fmt: skip
    if nic.address is None:
        return Finding(
            check=role, state="fail", says=f"{wanted} has no IPv4 address",
            mend=f"ip address add ADDRESS/LENGTH dev {wanted}",
        )  # fmt: skip
    if nic.carrier is False:
        return Finding(check=role, state="warn", says=f"{wanted} ({nic.address}) has no link",
                       mend=f"look at the cable and the switch port of {wanted}")  # fmt: skip
    return Finding(check=role, state="ok", says=f"{wanted} is up with {nic.address}")


def port(found: Port) -> Finding:
    """Judge one port."""
    check, where = f"port {found.number}", f"{found.service} on {found.where}"
    if found.ours:
        return Finding(check=check, state="ok", says=f"{where}: held by this node, which runs")
    if found.held is not None:
        return Finding(
            check=check, state="fail", says=f"{where}: held by {found.held}",
            mend="stop that process (systemctl stop UNIT), or give this node another interface",
        )  # fmt: skip
    if found.refused is not None:
        return Finding(
            check=check, state="fail", says=f"{where}: {found.refused}",
            mend="run as root, or by rackmesh service install node (CAP_NET_BIND_SERVICE,"
            " CAP_NET_RAW)",
        )  # fmt: skip
    return Finding(check=check, state="ok", says=f"{where}: free")


def clock(now_ms: int, built_ms: int, synchronised: bool | None) -> Finding:
    """Judge this machine's clock by itself: it cannot be earlier than the program."""
    mend = "set the clock: timedatectl set-ntp true, or date -s, then hwclock --systohc"
    if now_ms < built_ms:
        return Finding(check="clock", state="fail", mend=mend,
                       says="the clock says a time before this program was made")  # fmt: skip
    if synchronised is None:
        return Finding(check="clock", state="unknown", mend=mend,
                       says="the kernel does not say whether it is kept right")  # fmt: skip
    if not synchronised:
        return Finding(check="clock", state="warn", mend=mend,
                       says="nothing keeps the clock right (no NTP)")  # fmt: skip
    return Finding(check="clock", state="ok", says="kept right by NTP")


def hubs(answers: Sequence[HubAnswer]) -> list[Finding]:
    """Judge the way to the hubs, and our clock by theirs."""
    if not answers:
        return [Finding(
            check="hub", state="unknown", says="no hub is known here yet",
            mend="name one: --hub https://HOST:8443 or --token-file FILE",
        )]  # fmt: skip
    found: list[Finding] = []
    for answer in answers:
        if answer.error is not None:
            found.append(Finding(
                check="hub", state="fail", says=f"{answer.url}: {answer.error}",
                mend="open this outbound TCP port in the firewall; to test it: rackmesh node"
                " doctor listen on the far side",
            ))  # fmt: skip
        else:
            took = f" in {answer.took_ms:.0f} ms" if answer.took_ms is not None else ""
            found.append(Finding(check="hub", state="ok", says=f"{answer.url} answers{took}"))
    offsets = [answer.offset_s for answer in answers if answer.offset_s is not None]
    if offsets:
        found.append(_offset(min(offsets, key=abs)))
    return found


def _offset(seconds: float) -> Finding:
    off = abs(seconds)
    side = "behind" if seconds > 0 else "ahead of"
    if off <= CLOCK_OFF_S_WARN:
        return Finding(check="clock of hub", state="ok", says="agrees within 5 s")
    state: State = "fail" if off > CLOCK_OFF_S_MAX else "warn"
    return Finding(
        check="clock of hub", state=state, says=f"this clock is {off:.0f} s {side} the hub's",
        mend="set the clock that is wrong: timedatectl set-ntp true",
    )  # fmt: skip


def rogue_dhcp(
    interface: str | None, offers: Sequence[Offer] | None, nodes: Sequence[str], why: str = ""
) -> list[Finding]:
    """Judge who answers DHCP. ``offers`` None: it could not be asked, for the reason ``why``.

    The probe carries a mark that nodes do not answer, so whoever does is a stranger; an address
    in ``nodes`` (an older release of a node) is forgiven.
    """
    check = "rogue DHCP"
    if interface is None:
        return [Finding(check=check, state="unknown", says="there is no interface to ask on",
                        mend="set [interfaces] provisioning")]  # fmt: skip
    if offers is None:
        return [Finding(check=check, state="unknown", says=f"could not be asked: {why}",
                        mend="run the doctor as root")]  # fmt: skip
    strangers = [offer for offer in offers if offer.server not in nodes]
    if not strangers:
        return [Finding(check=check, state="ok", says=f"nobody else answers on {interface}")]
    return [
        Finding(
            check=check, state="fail",
            says=f"{offer.server} ({offer.mac or 'MAC unknown'}) offers {offer.address}"
            f" on {interface}: machines may boot from it",
            mend="switch that DHCP server off on this network, or use another interface",
        )
        for offer in strangers
    ]  # fmt: skip


def boot_files(folder: str, names: Sequence[str] | None) -> Finding:
    """Judge the folder of boot files; None: it cannot be read."""
    missing = [name for name in (*RAMDISK, *LOADERS) if name not in (names or ())]
    if not missing:
        return Finding(check="boot files", state="ok", says=f"all are in {folder}")
    makers = [
        *([f"scripts/fetch-boot-files {folder}"] if set(missing) & set(LOADERS) else []),
        *([f"scripts/build-ramdisk --kernel full --output {folder}"]
          if set(missing) & set(RAMDISK) else []),
    ]  # fmt: skip
    return Finding(check="boot files", state="fail", mend="; ".join(makers),
                   says=f"missing in {folder}: {', '.join(missing)}")  # fmt: skip


def converter(missing: str | None) -> Finding:
    """Judge whether qcow2 images can be converted here; ``missing``: the sentence when not."""
    if missing is None:
        return Finding(check="qcow2 images", state="ok", says="qemu-img is here")
    return Finding(check="qcow2 images", state="warn", mend="apt install qemu-utils",
                   says=f"{missing}; raw images, ISOs and live systems need none")  # fmt: skip


def far(target: str, error: str | None, took_ms: float | None) -> Finding:
    """Judge one port of ``doctor listen`` on the far side."""
    check = f"way to {target}"
    if error is None:
        return Finding(check=check, state="ok", says=f"answered in {took_ms or 0:.0f} ms")
    return Finding(check=check, state="fail", says=error,
                   mend="open this port on the way, or start the listener there")  # fmt: skip


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"
