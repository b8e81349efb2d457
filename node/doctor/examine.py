"""One examination: what is asked of the machine and its networks, in which order.

The facts come from ``facts.py``, ``dhcp_probe.py`` and ``far.py``, the judgement from
``node/proto/doctor.py``. Rule: nothing here changes the machine; what cannot be found out is a
finding of its own, so one broken check never hides the others.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import trio

from cache.api import why_no_converter
from mesh.errors import LocalError, RemoteError
from mesh.host.clock import SystemClock
from node.config import NodeConfig
from node.doctor import facts
from node.doctor.dhcp_probe import strangers
from node.doctor.far import Target, knock
from node.proto import doctor
from node.proto.dhcp_answer import pxe_port
from node.proto.doctor import Finding, HubAnswer

HUB_S: Final = 10.0
DATE_HALF_S: Final = 0.5
"""An HTTP date is cut to whole seconds (RFC 9110 section 5.6.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to look at."""

    config: NodeConfig
    hubs: Sequence[str] = ()
    """URLs of hubs."""
    far: Sequence[Target] = ()
    fingerprint: bytes | None = None
    """SHA-256 of the far listener's certificate."""
    probe: bool = True
    """Whether to ask for strangers' DHCP servers."""
    running: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """run/ports.json of the node when it runs here; empty when it does not."""
    nodes: Sequence[str] = ()
    """IPv4 addresses of the site's nodes."""


async def examine(plan: Plan) -> list[Finding]:
    """Look at everything in the plan; returns the findings, worst first."""
    found = _machine(plan)
    network: list[list[Finding]] = [[], [], []]

    async def one(slot: int, check: Any) -> None:
        network[slot] = await check(plan)

    async with trio.open_nursery() as nursery:
        for slot, check in enumerate((_hubs, _rogue, _far)):
            nursery.start_soon(one, slot, check)
    return doctor.worst_first([*found, *(f for findings in network for f in findings)])


def _machine(plan: Plan) -> list[Finding]:
    config = plan.config
    wires = config.interfaces
    found = [
        doctor.cores(facts.cores()),
        doctor.memory(*facts.memory_bytes()),
        _disk(config.data),
        *doctor.interfaces(facts.nics(), wires.provisioning, wires.oob),
        doctor.clock(SystemClock().now_ms(), facts.built_ms(), facts.synchronised()),
        doctor.converter(why_no_converter()),
    ]
    if config.boot.enabled:
        folder = config.boot.files or config.data / "boot"
        found.append(doctor.boot_files(str(folder), facts.names_in(folder)))
    return [*found, *_ports(plan)]


def _disk(data: Path) -> Finding:
    free = _free_bytes(facts.existing(data))
    return doctor.disk(str(data), free, facts.file_system(data))


def _free_bytes(folder: Path) -> int:
    from shutil import disk_usage

    return disk_usage(folder).free


def _ports(plan: Plan) -> list[Finding]:
    config, running = plan.config, plan.running
    boot, wire = config.boot, config.interfaces.provisioning
    listen = boot.listen
    if wire is not None:
        listen = next((n.address for n in facts.nics() if n.name == wire and n.address), "")
        if not listen:
            wire, listen = None, boot.listen  # the interface itself is a finding already
    wanted: list[tuple[str, str, int, str, str | None]] = [
        ("mesh", "tcp", config.mesh.port, config.mesh.listen, None)
    ]
    if boot.enabled:
        wanted += [
            ("dhcp", "udp", boot.dhcp_port, listen, wire),
            ("pxe", "udp", pxe_port(boot.dhcp_port), listen, wire),
            ("tftp", "udp", boot.tftp_port, listen, wire),
            ("http", "tcp", boot.http_port, listen, None),
        ]
    return [
        doctor.port(facts.port(name, protocol, number, address, interface,
                               ours=running.get(name) == number))
        for name, protocol, number, address, interface in wanted
        if number
    ]  # fmt: skip


# -- networks ------------------------------------------------------------------------------


async def _hubs(plan: Plan) -> list[Finding]:
    answers: list[HubAnswer] = []

    async def ask(url: str) -> None:
        answers.append(await ask_hub(url))

    async with trio.open_nursery() as nursery:
        for url in plan.hubs:
            nursery.start_soon(ask, url)
    return doctor.hubs(sorted(answers, key=lambda answer: answer.url))


async def ask_hub(url: str) -> HubAnswer:
    """Ask a hub's /healthz over TLS 1.3; its Date header tells its clock."""
    import httpx2

    from mesh.link.tls import client_context

    began_s, began = time.monotonic(), SystemClock().now_ms()
    try:
        async with httpx2.AsyncClient(
            verify=client_context(), timeout=HUB_S, trust_env=False
        ) as client:
            response = await client.get(f"{url.rstrip('/')}/healthz")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
        return HubAnswer(url=url, error=f"no answer: {str(exc) or type(exc).__name__}")
    took_ms = (time.monotonic() - began_s) * 1000
    if response.status_code != 200 or response.text.strip() != "ok":
        return HubAnswer(url=url, error="something else than a hub answers there")
    return HubAnswer(
        url=url, error=None, took_ms=took_ms,
        offset_s=_offset_s(response.headers.get("date"), began + took_ms / 2),
    )  # fmt: skip


def _offset_s(date: str | None, middle_ms: float) -> float | None:
    try:
        said = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    return said + DATE_HALF_S - middle_ms / 1000


async def _rogue(plan: Plan) -> list[Finding]:
    interface = plan.config.interfaces.provisioning
    if not plan.probe or not plan.config.boot.enabled:
        return []
    if interface is None:
        return doctor.rogue_dhcp(None, None, ())
    try:
        return doctor.rogue_dhcp(interface, await strangers(interface), plan.nodes)
    except LocalError as exc:
        return doctor.rogue_dhcp(interface, None, (), str(exc))


async def _far(plan: Plan) -> list[Finding]:
    findings: dict[Target, Finding] = {}

    async def one(target: Target) -> None:
        try:
            took_ms = await knock(target, plan.fingerprint)
        except (RemoteError, OSError) as exc:
            findings[target] = doctor.far(str(target), str(exc), None)
        else:
            findings[target] = doctor.far(str(target), None, took_ms)

    async with trio.open_nursery() as nursery:
        for target in plan.far:
            nursery.start_soon(one, target)
    return [findings[target] for target in plan.far]
