"""Two panels of a server's page: what its BMC says, read only when somebody asks.

Rule: the address says what is asked for (``?read=sensors,events``), so nothing is read by
opening the page, nor again by an event that renews other parts.
"""

from collections.abc import Mapping
from typing import Any, Final

from quart import request

from hub.bmc import read_bmc
from hub.errors import HubError
from hub.pages.page import PART, Section
from hub.ports import Json, Services
from mesh.rest.health_words import limits, reading

READ: Final = "read"
TONES: Final[Mapping[str, str]] = {
    "ok": "good", "warning": "warn", "critical": "bad", "unknown": "quiet",
}  # fmt: skip
PANELS: Final = ("sensors", "events")


async def panels(services: Services, server: Json) -> tuple[Section, ...]:
    """Return the sections, with what this request asks for already read."""
    asked = [word for word in request.args.get(READ, "").split(",") if word in PANELS]
    parts = request.args.get(PART)
    shown = PANELS if parts is None else parts.split(",")
    sections: list[Section] = []
    for name in PANELS:
        values: Json = {"found": None, "error": "", "why_not": "", "tones": TONES}
        values["href"] = f"?{READ}={','.join(dict.fromkeys([*asked, name]))}#{name}"
        if not server["bmc"]:
            values["why_not"] = "This server has no BMC: nobody can ask it."
        elif name in asked and name in shown:
            values |= await _read(services, server, name)
        sections.append(_section(name, values))
    return tuple(sections)


def _section(name: str, values: Json) -> Section:
    return Section(name, f"servers/{name}.html", "", lambda: values)


async def _read(services: Services, server: Json, name: str) -> Json:
    try:
        found: Any = await read_bmc(
            services.live.peers, services.store, server,
            "sensors" if name == "sensors" else "events",
        )  # fmt: skip
    except HubError as exc:
        return {"error": f"{exc}."}
    for one in found.get("readings", ()):
        one["words"], one["limits"] = reading(one), limits(one)
    return {"found": found}
