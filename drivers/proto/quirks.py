"""Where vendors' BMCs differ, as data; each row names where that was seen.

Knows nothing about transport. The rule: behaviour of a driver depends on a field of `Quirks` or
`IpmiQuirks`, never on a vendor's name.
"""

from dataclasses import dataclass
from typing import Final, Literal

Enabled = Literal["Continuous", "Once"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quirks:
    """What to do differently for one vendor."""

    send_mode: bool = False
    """Repeat BootSourceOverrideMode in the PATCH, when the system shows one."""
    enabled_network: tuple[Enabled, ...] = ("Continuous", "Once")
    """Values of BootSourceOverrideEnabled to try for network boot, best first."""
    enabled_disk: tuple[Enabled, ...] = ("Continuous", "Once")
    """The same for boot from disk."""
    enabled_cd: tuple[Enabled, ...] = ("Continuous", "Once")
    """The same for boot from the virtual CD."""
    empty_when_not_connected: bool = False
    """An empty drive goes on showing its last image; ConnectedVia tells the truth."""


PLAIN: Final = Quirks()

TABLE: Final[tuple[tuple[str, Quirks], ...]] = (
    # ignores the override without the mode (DMTF/Redfishtool#106); X10 has none
    # after an eject Image and ImageName stay (community.general#6969, #12537)
    ("supermicro", Quirks(send_mode=True, empty_when_not_connected=True)),
    # Hdd with Continuous loops in the boot manager (openstack/ironic, SR645 V3)
    ("lenovo", Quirks(enabled_disk=("Once", "Continuous"))),
    # sending the mode that is already set starts a Lifecycle job (metal-operator#80, #107)
    ("dell", Quirks(send_mode=False)),
    ("hpe", PLAIN),
)
"""Lower-case beginning of the vendor or manufacturer, and its quirks."""


def quirks_for(*names: str) -> Quirks:
    """Return the quirks of the first name that the table knows, else none."""
    for name in names:
        for prefix, quirks in TABLE:
            if name.strip().lower().startswith(prefix):
                return quirks
    return PLAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class IpmiQuirks:
    """What to do differently for one make of IPMI BMC."""

    reports_flags: bool = True
    """Get System Boot Options has the bits valid, persistent and EFI, not only the device."""


IPMI_PLAIN: Final = IpmiQuirks()

IPMI_TABLE: Final[dict[tuple[int, int], IpmiQuirks]] = {
    # OpenIPMI's simulator with a program for the chassis: 01 05 00 04 00 00 00 after an order
    # with all three bits (seen with 2.0.33; lanserv/bmc_chassis.c of cminyard/openipmi)
    (0x1291, 0x0F02): IpmiQuirks(reports_flags=False),
}
"""(Manufacturer's IANA number, product) of Get Device ID, and its quirks."""
