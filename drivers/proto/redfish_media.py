"""Redfish virtual media (DMTF DSP2046 VirtualMedia) without I/O: drives, and what to send.

Knows no transport. The rule: whether a drive is empty is said by what the service reports of
it, by the quirks of its make, never by what it answered to an order.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivers.proto.quirks import Quirks
from drivers.proto.redfish import link

DRIVES_MAX: Final = 8
"""Drives of one collection that are looked at."""
IMAGE_CHARS_MAX: Final = 1024
_DISCS: Final = frozenset({"CD", "DVD"})
_NOT_CONNECTED: Final = "NotConnected"


@dataclass(frozen=True, slots=True)
class Drive:
    """One virtual drive; absent values are empty, ``inserted`` None when it is not said."""

    path: str
    types: tuple[str, ...]
    inserted: bool | None
    image: str
    connected_via: str
    insert_path: str | None
    eject_path: str | None
    etag: str

    @property
    def takes_discs(self) -> bool:
        """Whether it stands for a CD or DVD drive; one that does not say may be one."""
        return not self.types or not _DISCS.isdisjoint(self.types)


def media_links(body: Mapping[str, Any]) -> str | None:
    """Return the collection of drives of a ComputerSystem or Manager, if it has one."""
    return link(body.get("VirtualMedia"))


def managers(body: Mapping[str, Any]) -> list[str]:
    """Return the managers of a ComputerSystem: older services have the drives there."""
    links = body.get("Links")
    listed = links.get("ManagedBy") if isinstance(links, dict) else None
    found = [link(one) for one in listed[:DRIVES_MAX]] if isinstance(listed, list) else []
    return [path for path in found if path is not None]


def parse_drive(body: Mapping[str, Any], path: str, etag: str | None) -> Drive:
    """Read a VirtualMedia resource; wrong types count as absent."""
    types, inserted = body.get("MediaTypes"), body.get("Inserted")
    return Drive(
        path=path,
        types=tuple(t for t in types if isinstance(t, str)) if isinstance(types, list) else (),
        inserted=inserted if isinstance(inserted, bool) else None,
        image=_text(body.get("Image")) or _text(body.get("ImageName")),
        connected_via=_text(body.get("ConnectedVia")),
        insert_path=_action(body, "InsertMedia"),
        eject_path=_action(body, "EjectMedia"),
        etag=etag or "",
    )


def in_drive(drive: Drive, quirks: Quirks) -> str | None:
    """Return what the service shows for the disc in the drive ("" for nothing), None: empty."""
    if quirks.empty_when_not_connected and drive.connected_via == _NOT_CONNECTED:
        return None
    if drive.inserted is None:
        return drive.image or None
    return drive.image if drive.inserted else None


def shows(image: str | None, url: str) -> bool:
    """Whether what a service shows for a disc can be the one at ``url``.

    Services show the URL, its last part, or nothing.
    """
    return image is not None and image in {"", url, url.rpartition("/")[2]}


def insert_bodies(url: str) -> list[dict[str, Any]]:
    """Return the bodies to try in order, each when the one before was answered 400."""
    protocol = url.partition(":")[0].upper()
    whole: dict[str, Any] = {"Image": url, "Inserted": True, "WriteProtected": True}
    return [whole, {"Image": url}, {**whole, "TransferProtocolType": protocol}]


def without(text: str, url: str) -> str:
    """Return a sentence without the words that repeat the URL's last part: it may be secret."""
    secret = url.rpartition("/")[2][:12]
    if not secret:
        return text
    return re.sub(rf"\S*{re.escape(secret)}\S*", "***", text)


def _action(body: Mapping[str, Any], name: str) -> str | None:
    actions = body.get("Actions")
    found = actions.get(f"#VirtualMedia.{name}") if isinstance(actions, dict) else None
    return link(found.get("target")) if isinstance(found, dict) else None


def _text(value: object) -> str:
    return value[:IMAGE_CHARS_MAX] if isinstance(value, str) else ""
