"""``rackmesh node join`` and ``rackmesh node run``: words in, one role started.

Rule: configuration is read here and nowhere else; whatever stops the node before it runs is one
sentence and an exit code.
"""

import os
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import read_secret_file
from mesh.cli.errors import DENIED, UNREACHABLE, Failure, failure_of
from mesh.errors import MeshError, Unreachable
from mesh.host.config import default_data, load
from mesh.host.files import act_as_owner
from mesh.host.log import configure
from node.config import NodeConfig
from node.errors import NotJoined

DATA = click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)


@click.command("join")
@click.option("--token", help="The join token; it is good for one use only.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File with the token; - is standard input.",
)
@click.option("--name", help="Name of this node for people; default: the host name.")
@DATA
def join(
    token: str | None, token_file: Path | None, name: str | None, data: Path | None
) -> None:
    """Join a mesh: the hub admits this node to the token's site."""
    if (token is None) == (token_file is None):
        raise Failure("give either --token-file FILE (or -) or --token TOKEN", 2)
    text = token if token is not None else read_secret_file(token_file or Path("-"))
    folder = data or default_data("node", os.environ)
    act_as_owner(folder)
    import trio

    from node.joining import join_mesh

    try:
        joined = trio.run(join_mesh, folder, text, name or os.uname().nodename)
    except Unreachable as exc:
        raise Failure(str(exc), UNREACHABLE) from exc
    except MeshError as exc:
        raise Failure(str(exc), DENIED) from exc
    except OSError as exc:
        raise Failure(f"{folder} cannot be used: {exc.strerror or exc}") from exc
    click.echo(f"node {joined.node} ({joined.name}) is a member of site {joined.site}")
    click.echo(f"start it: rackmesh node run --data {folder}", err=True)


@click.command("run")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; flags go on top.")
@click.option("--simulate-rack", type=int, help="Also run so many servers without hardware.")
@click.option("--interface", help="Interface that machines boot from (provisioning network).")
@click.option("--boot-listen", help="Address to serve boot on, without an interface.")
@click.option("--dhcp-port", type=int, help="UDP port of DHCP (67; others answer relays only).")
@click.option("--tftp-port", type=int, help="UDP port of TFTP (69; 0 takes a free one).")
@click.option("--http-port", type=int, help="TCP port of boot HTTP (8470; 0 takes a free one).")
@click.option("--mesh-listen", help="Address of the mesh port.")
@click.option("--mesh-port", type=int, help="TCP port of the mesh (4770; 0 takes a free one).")
@click.option("--peer", "peers", multiple=True, help="A member to dial, [NODE-ID@]HOST:PORT.")
@click.option("--mdns/--no-mdns", default=None, help="Find members on the local network (yes).")
@click.option("--subnet", help="Provisioning subnet that this node proposes, 10.77.0.0/24.")
@click.option("--boot-files", type=click.Path(path_type=Path), help="Folder with vmlinuz, ...")
@click.option(
    "--force-epoch",
    is_flag=True,
    default=None,
    help="Go on with a lost or restored state though no other member is left to ask.",
)
@click.option(
    "--trust-clock",
    is_flag=True,
    default=None,
    help="This machine's clock is right, though it stands far from what was written last.",
)
@click.option("--log-level", help="debug, info, warning or error.")
@DATA
def run(config: Path | None, **flags: Any) -> None:
    """Run this node until it is stopped (SIGTERM, SIGINT)."""
    tree = {
        "data": flags["data"] or default_data("node", os.environ),
        "simulate_rack": flags["simulate_rack"],
        "force_epoch": flags["force_epoch"],
        "trust_clock": flags["trust_clock"],
        "log_level": flags["log_level"],
        "interfaces": {"provisioning": flags["interface"]},
        "boot": {
            "listen": flags["boot_listen"],
            "dhcp_port": flags["dhcp_port"],
            "tftp_port": flags["tftp_port"],
            "http_port": flags["http_port"],
            "files": flags["boot_files"],
        },
        "mesh": {
            "listen": flags["mesh_listen"],
            "port": flags["mesh_port"],
            "peers": flags["peers"] or None,
            "mdns": flags["mdns"],
        },
        "subnet": {"cidr": flags["subnet"]},
    }
    try:
        settings = load(NodeConfig, config, os.environ, tree)
    except MeshError as exc:
        raise Failure(str(exc), 2) from exc
    configure(settings.log_level)
    import trio

    from node.main import run_node

    try:
        trio.run(run_node, settings)
    except (MeshError, OSError, ExceptionGroup) as exc:
        raise failure_of(exc, "node", {NotJoined: UNREACHABLE}) from exc
