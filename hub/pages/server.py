"""One server: its life so far, what works on it, what it is made of, and its jobs."""

from typing import Any, Final

from quart import Blueprint, Response

from hub import show
from hub.api import read
from hub.errors import NotFound
from hub.pages import bmc, forms
from hub.pages.context import Console
from hub.pages.lists import silent_sites
from hub.pages.page import Page, Section
from hub.ports import Json, Services
from hub.proto.gantt import gantt
from hub.proto.server_facts import facts
from hub.proto.stepper import stages
from mesh.proto.lifecycle import monitored, refuse
from mesh.proto.order import DEPLOY, POWER, PROMOTE, RELEASE
from mesh.rest.lists import JOB_OVER, plan
from mesh.rest.requests import ListQuery

JOBS_MAX: Final = 200
"""Jobs of a server that are read for its times and facts."""
HISTORY_MAX: Final = 20
ACTS: Final[tuple[tuple[str, str, str, str, Json], ...]] = (
    ("server.promote", "Manage it …", "", PROMOTE, {}),
    ("server.deploy", "Deploy …", "", DEPLOY, {}),
    ("server.release", "Release …", "quiet loses", RELEASE, {}),
    ("power.on", "Power on …", "quiet", POWER, {"on": True}),
    ("power.off", "Power off …", "quiet", POWER, {"on": False}),
)
"""Word of the form, label, looks, kind of order, parameters that count for what is legal."""


def add(pages: Blueprint, console: Console) -> None:
    """Add the routes."""
    services = console.services

    @pages.get("/servers/<name>")
    async def server(name: str) -> Response:
        found = read.one(services.store, "server", name, "server")
        if name != found["id"]:
            return forms.go(f"/servers/{found['id']}")
        view = _View(services, found["id"])
        of_bmc = await bmc.panels(services, found)
        page = Page(
            title=found["name"], template="servers/server.html", at="servers",
            site=found["site"],
            sections=(
                Section("server", "servers/head.html", "server job node", view.head),
                Section("facts", "servers/facts.html", "server job", view.facts),
                Section("hardware", "servers/hardware.html", "inventory", view.hardware),
                *of_bmc,
                Section("history", "servers/history.html", "job", view.history),
            ),
        )  # fmt: skip
        return console.render.page(page)

    @pages.get("/servers/<name>/console")
    async def terminal(name: str) -> Response:
        found = read.one(services.store, "server", name, "server")
        if name != found["id"]:
            return forms.go(f"/servers/{found['id']}/console")
        page = Page(
            title=f"Console of {found['name']}", template="servers/console.html", at="servers",
            site=found["site"], values={"server": found}, still=True,
        )  # fmt: skip
        return console.render.page(page)


class _View:
    """Reads what the sections of one server show; each reads anew."""

    def __init__(self, services: Services, server: str) -> None:
        self._services = services
        self._id = server

    def _server(self) -> Json:
        return read.one(self._services.store, "server", self._id, "server")

    def _jobs(self) -> list[Json]:
        """Return the jobs of this server, the newest first."""
        query = ListQuery(filter=f"server:{self._id}", sort="-id", limit=JOBS_MAX)
        return read.listed(self._services, plan("jobs", query)).items

    def head(self) -> Json:
        """Return state, stages, and the job at work."""
        server, jobs = self._server(), self._jobs()
        stale = silent_sites(self._services)
        job = next((one for one in jobs if one["state"] not in JOB_OVER), None)
        acts: list[Json] = []
        for word, label, look, kind, params in ACTS:
            if kind == PROMOTE and not monitored(server):
                continue
            refusal = None if job else refuse(kind, params, server)
            first = kind == DEPLOY and refusal is None and job is None
            look = "" if first or kind == PROMOTE else look or "quiet"
            acts.append({"kind": word, "label": label, "look": look, "refusal": refusal})
        refusals = list(dict.fromkeys(act["refusal"] for act in acts if act["refusal"]))
        return {
            "server": server, "stages": stages(server, jobs), "facts": facts(jobs), "job": job,
            "bars": gantt(job["steps"], self._services.clock.now_ms()) if job else None,
            "stale": server["site"] in stale, "stale_ms": stale.get(server["site"]),
            "acts": acts, "refusals": refusals,
        }  # fmt: skip

    def facts(self) -> Json:
        """Return what is installed and what was seen last."""
        return {"server": self._server(), "facts": facts(self._jobs())}

    def hardware(self) -> Json:
        """Return the inventory in words."""
        try:
            found = read.inventory(self._services.store, self._server())
        except NotFound:
            return {"inventory": None}
        return {"inventory": hardware(found)}

    def history(self) -> Json:
        """Return the newest jobs."""
        jobs = self._jobs()
        rows = [{**job, "took": took(job)} for job in jobs[:HISTORY_MAX]]
        more = len(jobs) - len(rows)
        return {"rows": rows, "more": more, "server": {"id": self._id}}


def took(job: Json) -> str:
    """Return how long a job took, in words."""
    if job["started_ms"] is None or job["ended_ms"] is None:
        return "–"
    return show.duration(job["ended_ms"] - job["started_ms"])


def hardware(found: Json) -> Json:
    """Return an inventory (shape: node/ramdisk/inventory.py) in words; odd fields are left."""
    parts: dict[str, Any] = found["hardware"]
    system, firmware, cpu = (_map(parts.get(name)) for name in ("system", "firmware", "cpu"))
    memory = _map(parts.get("memory")).get("bytes")
    cores, threads = cpu.get("cores"), cpu.get("threads")
    cpu_words = [cpu.get("model"), f"{cores} cores" if cores else "",
                 f"{threads} threads" if threads and threads != cores else ""]  # fmt: skip
    firmware_words = [str(firmware.get("type") or "").upper(), firmware.get("vendor"),
                      firmware.get("version"), firmware.get("date")]  # fmt: skip
    return {
        "seen_ms": found["seen_ms"],
        "system": _words([system.get("vendor"), system.get("product")]),
        "serial": system.get("serial"),
        "firmware": _words(firmware_words),
        "cpu": ", ".join(str(word) for word in cpu_words if word),
        "memory": show.memory(memory) if isinstance(memory, int) else "",
        "disks": [_disk(disk) for disk in _maps(parts.get("disks"))],
        "nics": [_nic(nic) for nic in _maps(parts.get("nics"))],
    }


def _disk(disk: Json) -> Json:
    size = disk.get("bytes")
    notes = ["rotating" if disk.get("rotational") else "",
             "" if disk.get("fixed", True) else "removable",
             "" if disk.get("writable", True) else "read-only"]  # fmt: skip
    return {
        "name": disk.get("name"), "size": show.size(size if isinstance(size, int) else None),
        "model": disk.get("model"), "serial": disk.get("serial"), "bus": disk.get("bus"),
        "note": "".join(f", {note}" for note in notes if note),
    }  # fmt: skip


def _nic(nic: Json) -> Json:
    speed = nic.get("speed_mbps")
    link = {True: "up", False: "down"}.get(nic.get("link"), "not known")  # type: ignore[arg-type]
    if link == "up" and isinstance(speed, int):
        link += f", {speed // 1000} Gbit/s" if speed >= 1000 else f", {speed} Mbit/s"
    return {
        "name": nic.get("name"), "mac": nic.get("mac"), "link": link,
        "driver": nic.get("driver"), "boot": nic.get("boot") is True,
    }  # fmt: skip


def _map(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[Json]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _words(parts: list[Any]) -> str:
    return " ".join(str(part) for part in parts if part)
