"""What a server is made of, through its Redfish BMC; the machine is not touched.

Decides nothing: what is read, and what it means, stands in `drivers.proto.redfish_inventory`.
The rule: a part that the service does not have, or cannot show, is left out; that the user is
refused, or the system itself cannot be read, is an error.
"""

from collections.abc import Callable
from typing import Any, Final

import trio

from drivers.errors import DeviceLied, DeviceUnreachable
from drivers.proto.redfish_inventory import InventoryReading
from drivers.redfish_http import Answer, complain
from drivers.redfish_media import Call

READ_S_MAX: Final = 240.0
_NOT_ALLOWED: Final = frozenset({401, 403})


async def read_inventory(
    url: str, system: str, call: Call, read: Callable[[Answer], dict[str, Any]]
) -> dict[str, Any]:
    """Return the inventory of one system; see `drivers.api.Inventory`.

    ``url`` is for sentences, ``read`` takes an answer's body and raises a DriverError.
    """
    reading = InventoryReading(system)
    try:
        with trio.fail_after(READ_S_MAX):
            while (path := reading.wants) is not None:
                answer = await call("GET", path)
                if not answer.ok and (path == system or answer.status in _NOT_ALLOWED):
                    raise complain(answer)
                try:
                    body = read(answer) if answer.ok else None
                except DeviceLied:
                    if path == system:
                        raise
                    body = None
                reading.on_body(body)
    except trio.TooSlowError as exc:
        raise DeviceUnreachable(
            f"{url}: its inventory was not read within {READ_S_MAX:g} s"
        ) from exc
    return reading.result()
