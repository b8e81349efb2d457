"""The simulated rack as one process: its folder, its BMC listener, its servers.

Knows no command line. Rule: sockets only: the rack and the nodes share no memory and no file
but a node's run/ports.json, which the rack reads.
"""

import errno
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import Refused
from mesh.host.files import write_json
from mesh.host.log import get_log
from node.proto.rack_bmc import SYSTEMS
from node.rack.bmc import BmcService
from node.rack.config import RackConfig
from node.rack.server import Rack, SimServer
from node.rack.state import RackState

AGENTS_MAX: Final = 64
"""Ramdisk agents that run at once; further servers wait with a loaded ramdisk."""
BACKLOG: Final = 64

log = get_log("rack")


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server of a running rack, as servers.json and ``--json`` show it."""

    name: str
    mac: str
    uuid: str
    serial: str
    bmc: str
    disk: str


@dataclass(frozen=True, slots=True)
class RackInfo:
    """A running rack."""

    servers: tuple[ServerInfo, ...]
    credentials: Path

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        servers = [asdict(server) for server in self.servers]
        return {
            "schema": "rackmesh/rack/1",
            "servers": servers,
            "credentials": str(self.credentials),
        }


async def run_rack(
    config: RackConfig, *, task_status: trio.TaskStatus[RackInfo] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a rack until cancelled; reports a RackInfo once the BMCs answer. Raises Refused."""
    state = RackState.open(config)
    try:
        listener = _listen(config, state)
        port = int(listener.socket.getsockname()[1])
        if state.bmc_port != port:
            state.bmc_port = port
            await state.save()
        agents = trio.CapacityLimiter(min(config.servers, AGENTS_MAX))
        rack = Rack(config, state, agents)
        servers = {record.name: SimServer(record, rack) for record in state.servers}
        service = BmcService(servers, state.credentials, state.keep_credentials)
        info = _info(state, f"http://{config.bmc_host}:{port}{SYSTEMS}")
        write_json(state.folder / "servers.json", info.as_json()["servers"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, service.serve, [listener])
            for server in servers.values():
                nursery.start_soon(server.run)
            log.info("simulated rack runs", count=len(servers), port=port)
            task_status.started(info)
    finally:
        state.close()


def _listen(config: RackConfig, state: RackState) -> trio.SocketListener:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((config.bmc_host, state.bmc_port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        where = f"{config.bmc_host}:{state.bmc_port}"
        if exc.errno == errno.EADDRINUSE:
            raise Refused(
                f"the rack's BMC port {where} is taken by another process; stop that one, or"
                " choose another with --bmc-port (servers that were accepted keep the old one)"
            ) from exc
        raise Refused(f"the BMCs cannot listen on {where}: {exc.strerror}") from exc
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _info(state: RackState, base: str) -> RackInfo:
    servers = tuple(
        ServerInfo(
            name=record.name,
            mac=record.mac,
            uuid=record.uuid,
            serial=record.serial,
            bmc=f"{base}/{record.name}",
            disk=str(state.disk(record).resolve()),
        )
        for record in state.servers
    )
    return RackInfo(servers, state.credentials_file.resolve())
