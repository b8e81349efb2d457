"""What is said of a machine when it becomes a server: by an accept, an adopt, a file.

It knows no store and no device. Rules: a server that is only *monitored* is made by a kind of
order of its own (``server.adopt``), so that a node of an earlier version refuses it and never
takes it for one that it may boot; a machine is named by a MAC, or by the BMC that shall tell
its MACs (``inspect: oob``). Source of the words: DOMAIN section 1, Server.administration.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import NAME_PATTERN, parse_mac
from mesh.proto.urls import BMC_SCHEMES, why_no_url

MONITORED: Final = "monitored"
MANAGED: Final = "managed"
MODES: Final = (MANAGED, MONITORED)
OOB: Final = "oob"
"""``inspect``: what the server is made of is read from its BMC, the server is not touched."""
BOOT_WAYS: Final = ("network", "media")
"""How a server with a BMC gets its ramdisk: DHCP and TFTP, or a disc in its virtual drive."""
MACS_MAX: Final = 32
TAGS_MAX: Final = 16
SERIAL_CHARS_MAX: Final = 100
WAYS_MAX: Final = 4
URL_CHARS_MAX: Final = 512
SECRET_CHARS_MAX: Final = 64
TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=-]{0,31}\Z")
NO_SERIALS: Final = frozenset(
    {
        "", "0", "none", "n/a", "na", "null", "unknown", "default string", "not specified",
        "not applicable", "system serial number", "chassis serial number", "0123456789",
        "1234567890", "123456789", "to be filled by o.e.m.", "to be filled by oem", "empty",
    }
)  # fmt: skip
"""What boards say that were never given a serial number: no two of them are one machine."""


def real_serial(value: object) -> str | None:
    """Return a serial number in the spelling that is compared, None for none or a stand-in."""
    if not isinstance(value, str):
        return None
    text = " ".join(value.split())[:SERIAL_CHARS_MAX].lower()
    bare = text.strip(". -_")
    empty = text in NO_SERIALS or bare in NO_SERIALS or len(set(bare)) < 2
    return None if empty else text


def check_enrol(params: Mapping[str, Any], *, named: bool) -> None:
    """Raise CodecError unless what an order says of a new server can be.

    ``named``: the machine is named by a field of its own; else its MACs must be told, or read
    from its BMC.
    """
    if not NAME_PATTERN.match(fields.text(params, "name")):
        raise CodecError("field name is not a name of letters, digits, dots and dashes")
    check_bmc(params.get("bmc"))
    inspect = params.get("inspect")
    if inspect not in (None, OOB):
        raise CodecError("field inspect is neither missing nor oob")
    if inspect == OOB and not isinstance(params.get("bmc"), Mapping):
        raise CodecError("field inspect needs a BMC to read from")
    told = named or inspect == OOB
    macs = fields.texts(
        params, "macs", count_max=MACS_MAX, default=() if told else fields.MISSING
    )
    if any(parse_mac(mac) != mac for mac in macs):
        raise CodecError("field macs holds what is no MAC address")
    if not told and not macs:
        raise CodecError("field macs is empty")
    tags = fields.texts(params, "tags", count_max=TAGS_MAX, chars_max=32, default=())
    if any(not TAG.match(tag) for tag in tags):
        raise CodecError("field tags holds what is no tag: letters, digits, . _ : = -")
    if params.get("serial") is not None:
        fields.text(params, "serial", chars_max=SERIAL_CHARS_MAX)
    if params.get("ip") is not None:
        try:
            IPv4Address(fields.text(params, "ip", chars_max=15))
        except ValueError:
            raise CodecError("field ip is not an IPv4 address") from None


def check_bmc(bmc: Any) -> None:
    """Raise CodecError unless this is where a BMC answers, or None.

    Its ``url`` may be several ways to one BMC with blanks between them, best first.
    """
    if bmc is None:
        return
    if not isinstance(bmc, Mapping):
        raise CodecError("field bmc is not a map")
    ways = fields.text(bmc, "url", chars_max=URL_CHARS_MAX).split(" ")
    if len(ways) > WAYS_MAX:
        raise CodecError(f"field bmc.url has {len(ways)} addresses, {WAYS_MAX} are the most")
    for way in ways:
        wrong = why_no_url(way, URL_CHARS_MAX, BMC_SCHEMES)
        if wrong is not None:
            raise CodecError(f"field bmc.url {wrong}")
    if bmc.get("secret") is not None:
        fields.text(bmc, "secret", chars_max=SECRET_CHARS_MAX)
    if not isinstance(bmc.get("rotate", False), bool):
        raise CodecError("field bmc.rotate is neither true nor false")
    if bmc.get("rotate") and bmc.get("secret") is None:
        raise CodecError("a password is changed only with bmc.secret, which holds now")
    if bmc.get("boot_by") not in (None, *BOOT_WAYS):
        raise CodecError(f"field bmc.boot_by is none of {', '.join(BOOT_WAYS)}")
    if bmc.get("boot_by") == "media" and str(bmc["url"]).startswith("ipmi:"):
        raise CodecError("IPMI has no virtual media: give the BMC's Redfish address")
