"""What a ramdisk agent says, from JSON bytes to checked values; garbage becomes ``None``.

It knows the fields and their limits, nothing of jobs. Rule: nothing of what a machine says is
kept beyond its limit, and no input raises.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from mesh.proto.ids import parse_mac

BODY_BYTES_MAX: Final = 256 * 1024
INVENTORY_BYTES_MAX: Final = 48 * 1024
"""An INVENTORY row ends at 64 KiB with everything around it."""
TEXT_CHARS_MAX: Final = 256
ITEMS_MAX: Final = 64
"""Entries of one list or map of an inventory."""
DEPTH_MAX: Final = 5
MACS_MAX: Final = 16
CAPABILITY_CHARS_MAX: Final = 256
STEP_CHARS_MAX: Final = 64
ERROR_CHARS_MAX: Final = 300
SIZE_MAX: Final = 1 << 60
_DISK_FIELDS: Final = (
    "name", "serial", "bytes", "fixed", "writable", "model", "rotational", "erase",
)  # fmt: skip
_CONTEXT: Final = b"rackmesh/agent/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A machine that presents itself."""

    mac: str
    macs: tuple[str, ...]
    cap: str | None
    key: str
    """Ephemeral Ed25519 public key, hex."""
    seal: bytes
    """Ephemeral X25519 public key."""
    inventory: dict[str, Any] = field(default_factory=dict)
    uuid: str | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The end of a command as the agent tells it."""

    step: str
    ok: bool
    evidence: dict[str, Any]
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCall:
    """The headers of a signed call, with what they sign."""

    session: str
    counter: int
    signature: bytes
    path: str
    body: bytes


def signed_message(session: str, counter: int, path: str, body: bytes) -> bytes:
    """Return the bytes that the session's key signs for one call."""
    return (
        _CONTEXT + session.encode() + counter.to_bytes(8, "big") + path.encode() + b"\0" + body
    )


def parse_json(body: bytes) -> dict[str, Any] | None:
    """Decode a JSON object, or None."""
    if len(body) > BODY_BYTES_MAX:
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def parse_hello(body: bytes) -> Hello | None:
    """Decode a hello, or None."""
    value = parse_json(body)
    if value is None:
        return None
    mac = _mac(value.get("mac"))
    key, seal = _hex32(value.get("key")), _hex32(value.get("seal"))
    if mac is None or key is None or seal is None:
        return None
    cap = value.get("cap")
    if cap is not None and (not isinstance(cap, str) or len(cap) > CAPABILITY_CHARS_MAX):
        return None
    listed = value.get("macs")
    others = [_mac(item) for item in listed[:MACS_MAX]] if isinstance(listed, list) else []
    told = value.get("inventory")
    inventory = kept_inventory(told) if isinstance(told, dict) else {}
    return Hello(
        mac=mac,
        macs=tuple(dict.fromkeys([mac, *(item for item in others if item)])),
        cap=cap or None,
        key=key.hex(),
        seal=seal,
        inventory=inventory,
        uuid=_identity(inventory, "uuid"),
        serial=_identity(inventory, "serial"),
    )


def kept_inventory(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an inventory fits a row; ``disks_cut`` says how many disks there are."""
    inventory: dict[str, Any] = bounded(dict(told))
    disks = told.get("disks")
    if isinstance(disks, list) and len(disks) > ITEMS_MAX:
        inventory["disks_cut"] = len(disks)  # whoever wipes must know that there are more
    if len(json.dumps(inventory)) > INVENTORY_BYTES_MAX:
        inventory = {"error": f"the inventory was longer than {INVENTORY_BYTES_MAX} bytes"}
        if isinstance(disks, list):
            inventory["disks_cut"] = len(disks)
    return inventory


def parse_report(value: Any) -> Report | None:
    """Decode the ``done`` of a next call, or None."""
    if not isinstance(value, dict):
        return None
    step, ok = value.get("step"), value.get("ok")
    if not isinstance(step, str) or len(step) > STEP_CHARS_MAX or not isinstance(ok, bool):
        return None
    evidence = bounded(value.get("evidence"))
    error = value.get("error")
    text = None if error is None else printable(str(error), ERROR_CHARS_MAX)
    return Report(
        step=step, ok=ok, evidence=evidence if isinstance(evidence, dict) else {}, error=text
    )


def parse_progress(value: Mapping[str, Any]) -> tuple[str, int, int] | None:
    """Decode a progress call to (step, done, total), or None."""
    step, done, total = value.get("step"), value.get("done"), value.get("total")
    if not isinstance(step, str) or len(step) > STEP_CHARS_MAX:
        return None
    if not _is_size(done) or not _is_size(total):
        return None
    return step, cast("int", done), cast("int", total)


def parse_call(headers: Mapping[str, str], path: str, body: bytes) -> SignedCall | None:
    """Read the three headers of a signed call (names in lower case), or None."""
    session = headers.get("x-rackmesh-session", "")
    counter = headers.get("x-rackmesh-counter", "")
    signature = headers.get("x-rackmesh-signature", "")
    if not 0 < len(session) <= 128 or not session.isascii() or not session.isprintable():
        return None
    if not counter.isascii() or not counter.isdigit() or len(counter) > 19:
        return None
    if len(signature) != 128 or len(body) > BODY_BYTES_MAX:
        return None
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        return None
    if int(counter) >= 1 << 63 or len(raw) != 64 or not path.isascii():
        return None
    return SignedCall(
        session=session, counter=int(counter), signature=raw, path=path, body=body
    )


def bounded(value: Any, depth: int = 0) -> Any:
    """Return a JSON value cut to our limits of depth, breadth, text and number."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -SIZE_MAX <= value <= SIZE_MAX else None
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) and abs(value) < SIZE_MAX else None
    if isinstance(value, str):
        return printable(value, TEXT_CHARS_MAX)
    if depth >= DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [bounded(item, depth + 1) for item in value[:ITEMS_MAX]]
    if isinstance(value, dict):
        items = list(value.items())[:ITEMS_MAX]
        return {printable(str(key), 64): bounded(item, depth + 1) for key, item in items}
    return None


def printable(text: str, chars_max: int) -> str:
    """Return text without control characters and lone surrogates, cut to a length."""
    return "".join(char if char.isprintable() else "?" for char in text[:chars_max])


def summary(inventory: Mapping[str, Any]) -> str:
    """Return one line for people: vendor, product, serial, memory, disks.

    The shape of an inventory stands in ``node/ramdisk/inventory.py``.
    """
    system = _system(inventory)
    words = [str(system.get("vendor") or ""), str(system.get("product") or "")]
    serial = system.get("serial")
    if serial:
        words.append(f"({serial})")
    memory = inventory.get("memory")
    size = cast("Any", memory).get("bytes") if isinstance(memory, Mapping) else None
    if _is_size(size) and size:
        words.append(f"{size / (1 << 30):.1f} GiB RAM")
    disks = inventory.get("disks")
    if isinstance(disks, list) and disks:
        sizes = [disk.get("bytes") for disk in disks if isinstance(disk, dict)]
        total = sum(cast("int", size) for size in sizes if _is_size(size))
        plural = "s" if len(disks) > 1 else ""
        words.append(f"{len(disks)} disk{plural}, {total / 1e9:.1f} GB")
    return printable(" ".join(word for word in words if word), TEXT_CHARS_MAX)


def disks_of(inventory: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an inventory says which disks there are, and whether some were cut."""
    listed = inventory.get("disks")
    disks = (
        [disk for disk in listed if isinstance(disk, Mapping)]
        if isinstance(listed, list)
        else []
    )
    return {
        "disks": [{key: disk[key] for key in _DISK_FIELDS if key in disk} for disk in disks],
        "disks_cut": inventory.get("disks_cut"),
    }


def _system(inventory: Mapping[str, Any]) -> Mapping[str, Any]:
    system = inventory.get("system")
    return cast("Mapping[str, Any]", system) if isinstance(system, Mapping) else inventory


def _identity(inventory: Mapping[str, Any], name: str) -> str | None:
    value = _system(inventory).get(name)
    return value.lower() if isinstance(value, str) and value.strip() else None


def _mac(value: Any) -> str | None:
    return parse_mac(value) if isinstance(value, str) and len(value) <= 32 else None


def _hex32(value: Any) -> bytes | None:
    if not isinstance(value, str) or len(value) != 64:
        return None
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        return None
    return raw if len(raw) == 32 else None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SIZE_MAX
