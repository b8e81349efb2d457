"""``rackmesh rack simulate``: read the command line, run the rack, say what to type next."""

import json
import signal
from functools import partial
from pathlib import Path
from typing import Any

import click

from mesh.cli.errors import Failure

FOLDER = click.Path(path_type=Path, file_okay=False)
MIB = 1 << 20


@click.command("simulate")
@click.argument("servers", type=int)
@click.option(
    "--node-data",
    type=FOLDER,
    required=True,
    multiple=True,
    help="Data folder of the node that boots the servers; again for further nodes of its site.",
)
@click.option("--data", type=FOLDER, help="The rack's own folder; default: NODE_DATA/rack.")
@click.option("--name-prefix", default="sim", show_default=True, help="sim: sim-1, sim-2, ...")
@click.option("--disk-mib", type=int, default=512, show_default=True, help="Disk per server.")
@click.option(
    "--disk-kind",
    default="block",
    show_default=True,
    help="How the disks are erased: block, nvme, ata, ata-frozen, or a kind that lies.",
)
@click.option("--seed", type=int, help="Fixes MAC addresses and serial numbers.")
@click.option(
    "--power-on/--power-off",
    default=True,
    show_default=True,
    help="How new servers begin; known ones come back as they were.",
)
@click.option("--bmc-host", default="127.0.0.1", show_default=True, help="Address of the BMCs.")
@click.option("--bmc-port", type=int, default=0, help="Their port; default: a free one, kept.")
@click.option("--relay", help="Address of the servers' DHCP relay, inside their subnet.")
@click.option(
    "--rom",
    type=click.Choice(["pxe", "ipxe"]),
    default="pxe",
    show_default=True,
    help="What the network cards hold: a PXE ROM that fetches iPXE, or iPXE itself.",
)
@click.option(
    "--download/--no-download",
    default=True,
    show_default=True,
    help="Whether kernel and initrd are really fetched.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the rack as JSON.")
@click.option("--log-level", default="info", show_default=True, help="debug shows consoles.")
def simulate(
    servers: int, node_data: tuple[Path, ...], data: Path | None, disk_mib: int,
    as_json: bool, log_level: str, **rest: Any,
) -> None:  # fmt: skip
    """Run SERVERS servers without hardware, which boot from the node with data in --node-data.

    They have Redfish BMCs and one disk each, and boot by DHCP, TFTP and HTTP on loopback.
    """
    from mesh.errors import Refused
    from mesh.host.log import LEVELS, configure
    from node.rack.config import RackConfig

    if log_level not in LEVELS:
        raise Failure(f"--log-level is one of {', '.join(LEVELS)}, not {log_level!r}", 2)
    configure(log_level)
    first, *also = node_data
    if not first.is_dir():
        raise Failure(f"there is no folder {first}: --node-data is a node's data folder", 2)
    try:
        config = RackConfig(
            servers=servers,
            node_data=first,
            also=tuple(also),
            data=data or first / "rack",
            disk_bytes=disk_mib * MIB,
            **rest,
        )
    except Refused as refused:
        raise Failure(str(refused), 2) from refused
    _run(config, as_json)


def _run(config: Any, as_json: bool) -> None:
    import trio

    from mesh.errors import Refused
    from node.rack.main import RackInfo, run_rack

    async def until_signalled() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                info: RackInfo = await nursery.start(partial(run_rack, config))
                click.echo(json.dumps(info.as_json(), indent=2) if as_json else _shown(info))
                async for _ in signals:
                    break
                nursery.cancel_scope.cancel()

    refused: list[str] = []
    try:
        trio.run(until_signalled)
    except* Refused as group:
        refused = _sentences(group)
    if refused:
        raise Failure(refused[0])


def _sentences(group: BaseExceptionGroup[Any]) -> list[str]:
    """Return what the exceptions in nested groups say."""
    found: list[str] = []
    for inner in group.exceptions:
        found += _sentences(inner) if isinstance(inner, BaseExceptionGroup) else [str(inner)]
    return found


def _shown(info: Any) -> str:
    lines = [f"{len(info.servers)} simulated servers run:"]
    lines += [f"  {server.name:<10} {server.mac}  {server.bmc}" for server in info.servers]
    first = info.servers[0]
    return "\n".join(
        [
            *lines,
            f"BMC user and password: {info.credentials}",
            "They boot off the network and appear as pending machines. Next:",
            "  rackmesh server pending",
            "  rackmesh secret set rack-bmc --site SITE --username admin   (password on stdin)",
            f"  rackmesh server accept {first.mac} {first.name} --bmc {first.bmc}"
            " --bmc-secret rack-bmc",
            "Stop with Ctrl-C; they come back as they were.",
        ]
    )
