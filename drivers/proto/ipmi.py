"""IPMI 2.0 (revision 1.1) without I/O: addresses, the few commands used, and their answers.

Knows no session, no time and no password. The rule: an answer is hostile until parsed here; one
that is too short raises NotIpmi, and bits that the specification reserves are not looked at.
"""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from drivers.proto.quirks import IpmiQuirks

PORT: Final = 623
MAX_USERNAME_BYTES: Final = 16
MAX_PASSWORD_BYTES: Final = 20
MAX_URL_CHARS: Final = 300
USERS_MAX: Final = 63
"""Highest user id (22.30); BMCs have far fewer."""

Power = Literal["on", "off"]
Device = Literal["network", "disk", "cd", "other"]
Target = Literal["network", "disk", "cd"]

_SELECTOR: Final = {"network": 0x04, "disk": 0x08, "cd": 0x14}
"""Boot device selector, bits 5 to 2 of the second byte of the boot flags (table 28-14)."""
_DEVICE: Final[dict[int, Device]] = {0x04: "network", 0x08: "disk", 0x14: "cd"}
_VALID, _PERSISTENT, _EFI = 0x80, 0x40, 0x20
_BOOT_FLAGS: Final = 5

BUSY: Final = frozenset({0xC0, 0xC3, 0xCF, 0xD0, 0xD1, 0xD2})
"""Completion codes (table 5-2) that pass by themselves: busy, timeout, duplicate, updating."""
NOT_SUPPORTED: Final = frozenset({0x80, 0xC1, 0xC7, 0xC9, 0xCC})
"""Completion codes of a BMC that does not know a command, a parameter or a bit of it."""
_PRIVILEGES: Final = {1: "callback", 2: "user", 3: "operator", 4: "administrator", 5: "oem"}
_WORDS: Final = {
    0x80: "it does not have this parameter",
    0x81: "another client is setting it",
    0x82: "it can only be read",
    0xC0: "it is busy",
    0xC1: "it does not know this command",
    0xC3: "it took too long itself",
    0xC9: "it does not have this parameter",
    0xCC: "it does not take this value",
    0xD4: "this user may not do that",
    0xD5: "it cannot do that in its present state",
    0xD6: "this command is switched off",
}


class NotIpmi(ValueError):
    """An answer that cannot be one; ``str(error)`` says why in a few words."""


@dataclass(frozen=True, slots=True)
class Address:
    """A BMC's host, without brackets, and UDP port."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ipmi://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Command:
    """One request: network function, command number and data; ``name`` is for people."""

    name: str
    netfn: int
    number: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Boot:
    """What the BMC says it boots from next."""

    device: Device
    persistent: bool
    efi: bool


DEVICE_ID: Final = Command("Get Device ID", 0x06, 0x01)
CHASSIS_STATUS: Final = Command("Get Chassis Status", 0x00, 0x01)
POWER_DOWN: Final = Command("Chassis Control: power down", 0x00, 0x02, b"\x00")
POWER_UP: Final = Command("Chassis Control: power up", 0x00, 0x02, b"\x01")
GET_BOOT: Final = Command("Get System Boot Options", 0x00, 0x09, bytes((_BOOT_FLAGS, 0, 0)))
KEEP_BOOT: Final = Command("Set System Boot Options: keep", 0x00, 0x08, b"\x03\x08")
"""The flags hold for longer than the 60 s that they hold without this (parameter 3)."""


def parse_address(url: str) -> Address:
    """Take apart ``ipmi://HOST[:PORT]``; ValueError carries one sentence for people."""
    if len(url) > MAX_URL_CHARS or not url.isprintable():
        raise ValueError(
            f"a BMC address must be printable and at most {MAX_URL_CHARS} characters long"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ValueError(f"BMC address {url!r} is not a URL: {exc}") from exc
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a BMC address must not hold a user or password: they belong in a secret"
        )
    bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme != "ipmi" or not parts.hostname or port == 0 or not bare:
        raise ValueError(f"BMC address {url!r} must look like ipmi://HOST or ipmi://HOST:PORT")
    return Address(parts.hostname, PORT if port is None else port)


def why_no_login(username: str, password: str) -> str | None:
    """Say what keeps a user name and password from being sent by IPMI, or None."""
    for what, text, limit in (
        ("user name", username, MAX_USERNAME_BYTES),
        ("password", password, MAX_PASSWORD_BYTES),
    ):
        size = len(text.encode())
        if size > limit:
            return f"the {what} has {size} bytes, but IPMI 2.0 takes at most {limit}"
        if "\0" in text:
            return f"the {what} holds a zero byte"
    return None


def parse_device_id(data: bytes) -> tuple[int, int]:
    """Return (IANA number of the manufacturer, product) (20.1)."""
    _need(data, 11)
    return int.from_bytes(data[6:9], "little") & 0xFFFFF, int.from_bytes(data[9:11], "little")


def parse_power(data: bytes) -> Power:
    """Return whether the chassis has power (28.2)."""
    _need(data, 3)
    return "on" if data[0] & 1 else "off"


def parse_boot(data: bytes, quirks: IpmiQuirks) -> Boot:
    """Read the boot flags (28.13, table 28-14)."""
    _need(data, 4)
    if data[0] & 0x0F != 1 or data[1] & 0x7F != _BOOT_FLAGS:
        raise NotIpmi("boot options that nobody asked for")
    locked = bool(data[1] & 0x80)
    valid = bool(data[2] & _VALID) or not quirks.reports_flags
    if locked or not valid:
        return Boot("other", persistent=False, efi=False)
    return Boot(
        _DEVICE.get(data[3] & 0x3C, "other"),
        persistent=bool(data[2] & _PERSISTENT),
        efi=bool(data[2] & _EFI),
    )


def stands(boot: Boot, device: Target, uefi: bool | None) -> bool:
    """Tell whether nothing needs to be sent to boot from a device again and again."""
    fits = uefi is None or boot.efi == uefi
    return boot.device == device and boot.persistent and fits


def boot_commands(device: Target, uefi: bool | None, now: Boot) -> tuple[Command, Command]:
    """Return the order that lasts, and the one for the next start, for who refuses the first.

    Lasting ones come first, because a job that dies between two steps finds them again. UEFI
    firmware may ignore an order without the EFI bit, whatever the device (mr-provisioner#82,
    #107); when nobody has seen the firmware, the bit stays as it is.
    """
    efi = now.efi if uefi is None else uefi
    flags = _VALID | (_EFI if efi else 0)
    name, selector = f"Set System Boot Options: {device}", _SELECTOR[device]
    lasting = bytes((_BOOT_FLAGS, flags | _PERSISTENT, selector, 0, 0, 0))
    once = bytes((_BOOT_FLAGS, flags, selector, 0, 0, 0))
    return Command(name, 0x00, 0x08, lasting), Command(name, 0x00, 0x08, once)


def user_name_command(user: int) -> Command:
    """Ask for the name of a user id, 1 to 63 (22.29)."""
    assert 0 < user <= USERS_MAX
    return Command("Get User Name", 0x06, 0x46, bytes((user,)))


def parse_user_name(data: bytes) -> str:
    """Return the name, without its zero bytes (22.29)."""
    _need(data, 16)
    return data[:16].split(b"\0", 1)[0].decode("utf-8", "replace")


def user_access_command(user: int) -> Command:
    """Ask for a user's rights on the channel that we speak on (22.27)."""
    assert 0 < user <= USERS_MAX
    return Command("Get User Access", 0x06, 0x44, bytes((0x0E, user)))


def parse_user_access(data: bytes) -> tuple[str, bool]:
    """Return (privilege level, whether it is enabled) (22.27)."""
    _need(data, 4)
    role = _PRIVILEGES.get(data[3] & 0x0F, "none")
    return role, data[1] >> 6 != 2 and role != "none"


def password_command(user: int, password: str) -> Command:
    """Set a user's password: 20 bytes where it needs them, else 16 (22.30)."""
    raw = password.encode()
    assert 0 < len(raw) <= MAX_PASSWORD_BYTES
    assert 0 < user <= USERS_MAX
    room, long = (16, 0) if len(raw) <= 16 else (20, 0x80)
    data = bytes((user | long, 2)) + raw.ljust(room, b"\0")
    return Command("Set User Password", 0x06, 0x47, data)


def refusal(code: int) -> str:
    """Return what a completion code says to people (table 5-2 and the commands' own)."""
    return f"completion code 0x{code:02x}, {_WORDS.get(code, 'it refused')}"


def _need(data: bytes, count: int) -> None:
    if len(data) < count:
        raise NotIpmi(f"an answer of {len(data)} bytes, where {count} are due")
