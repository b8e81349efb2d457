"""DHCP options as bytes: numbers, the walk over an option field, splitting and joining.

It knows nothing of leases. Rule (RFC 3396): an option that occurs several times, or in several
fields (options, then file, then sname), is one value, joined in that order; what does not parse
as a whole is refused as a whole, so that two nodes never read the same packet differently.
"""

from collections.abc import Mapping
from typing import Final

PAD: Final = 0
END: Final = 255
SUBNET_MASK: Final = 1
ROUTER: Final = 3
DNS: Final = 6
HOSTNAME: Final = 12
BROADCAST_ADDRESS: Final = 28
VENDOR: Final = 43
REQUESTED_ADDRESS: Final = 50
LEASE_TIME: Final = 51
OVERLOAD: Final = 52
MESSAGE_TYPE: Final = 53
SERVER_ID: Final = 54
PARAMETERS: Final = 55
MESSAGE: Final = 56
SIZE_MAX: Final = 57
RENEWAL_TIME: Final = 58
REBINDING_TIME: Final = 59
VENDOR_CLASS: Final = 60
CLIENT_ID: Final = 61
BOOT_FILE: Final = 67
USER_CLASS: Final = 77
RELAY_AGENT: Final = 82
ARCHITECTURE: Final = 93
NETWORK_INTERFACE: Final = 94
MACHINE_UUID: Final = 97
IPXE: Final = 175

RELAY_CIRCUIT: Final = 1
RELAY_REMOTE: Final = 2
RELAY_LINK_SELECTION: Final = 5  # RFC 3527
RELAY_SERVER_OVERRIDE: Final = 11  # RFC 5107
RELAY_SOURCE_PORT: Final = 19  # RFC 8357

CHUNK_BYTES_MAX: Final = 255
OPTIONS_MAX: Final = 256
"""Options read from one field; a packet of 1,500 bytes cannot make us work longer."""

_PLACED_LAST: Final = frozenset({RELAY_AGENT, OVERLOAD})


def read_into(joined: dict[int, bytes], area: bytes, at: int) -> bool:
    """Add the options of one field, from an offset on; False when one of them is cut off.

    Parts of one option are joined (RFC 3396 section 7). The end mark may be missing (seen from
    real clients) when the last option is whole.
    """
    end, count = len(area), 0
    while at < end:
        code = area[at]
        at += 1
        if code == PAD:
            continue
        if code == END:
            return True
        if at >= end or count >= OPTIONS_MAX:
            return False
        after = at + 1 + area[at]
        if after > end:
            return False
        data = area[at + 1 : after]
        joined[code] = joined[code] + data if code in joined else data
        at, count = after, count + 1
    return True


def write(code: int, data: bytes) -> list[bytes]:
    """Return one option as encoded parts of at most 255 bytes of data each."""
    assert PAD < code < END
    parts = [data[at : at + CHUNK_BYTES_MAX] for at in range(0, len(data), CHUNK_BYTES_MAX)]
    return [bytes((code, len(part))) + part for part in parts or [b""]]


def _plain(options: Mapping[int, bytes]) -> bytes | None:
    """Return all options but the relay agent's in one piece; None when one is to be split."""
    parts: list[bytes] = []
    for code, data in options.items():
        if code not in _PLACED_LAST:
            if len(data) > CHUNK_BYTES_MAX:
                return None
            parts += (bytes((code, len(data))), data)
    return b"".join(parts)


def lay_out(
    options: Mapping[int, bytes], bytes_max: int, file_free: bool, sname_free: bool
) -> tuple[bytes, bytes, bytes]:
    """Place options into the option field (``bytes_max`` with its end mark), file and sname.

    An option that fits nowhere is left out, so the order of ``options`` is their importance.
    The relay agent's option always comes last in the option field (RFC 3046 section 2.2).
    """
    relay = (
        b"".join(write(RELAY_AGENT, options[RELAY_AGENT])) if RELAY_AGENT in options else b""
    )
    plain = _plain(options)
    if plain is not None and len(plain) + len(relay) + 1 <= bytes_max:
        return plain + relay + b"\xff", b"", b""
    areas = [bytearray(), bytearray(), bytearray()]
    spare = 127 * file_free, 63 * sname_free
    room = [bytes_max - len(relay) - 1, *spare]
    rest = [code for code in options if code not in {RELAY_AGENT, OVERLOAD}]
    total = sum(len(part) for code in rest for part in write(code, options[code]))
    if total > room[0] and any(spare):
        room[0] -= 3  # the overload option itself
    for code in rest:
        trial = [len(area) for area in areas]
        placed: list[tuple[int, bytes]] = []
        first = 0
        for part in write(code, options[code]):
            first = next((n for n in range(first, 3) if trial[n] + len(part) <= room[n]), 3)
            if first == 3:
                break
            trial[first] += len(part)
            placed.append((first, part))
        else:
            for index, part in placed:
                areas[index] += part
    used = (1 if areas[1] else 0) | (2 if areas[2] else 0)
    if used:
        areas[0] += bytes((OVERLOAD, 1, used))
    main = bytes(areas[0]) + relay + bytes((END,))
    ends = [bytes(area) + bytes((END,)) if area else b"" for area in areas[1:]]
    return main, ends[0], ends[1]
