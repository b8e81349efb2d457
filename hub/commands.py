"""``rackmesh hub up``: words in, one hub started.

Rule: configuration is read here and nowhere else; whatever stops the hub before it serves is
one sentence and an exit code.
"""

import os
from pathlib import Path
from typing import Any

import click

from hub.config import HubConfig
from mesh.cli.errors import FAILED, Failure
from mesh.errors import MeshError
from mesh.host.config import default_data, load
from mesh.host.log import configure


@click.command("up")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; flags go on top.")
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)
@click.option("--listen", help="Address of the HTTPS port; default: all.")
@click.option("--port", type=int, help="HTTPS port (8443; 0 takes a free one).")
@click.option(
    "--advertise", multiple=True, help="Host name or address that nodes dial; may be repeated."
)
@click.option("--name", help="Name of this hub for people.")
@click.option("--region", help="Region that this hub's orders carry; the first start counts.")
@click.option("--site", help="First start: make a join token for this site (main; '': none).")
@click.option("--cache-gib", type=int, help="Quota of the hub's asset cache, GiB.")
@click.option("--log-level", help="debug, info, warning or error.")
def up(config: Path | None, **flags: Any) -> None:
    """Run a hub until it is stopped (SIGTERM, SIGINT); the first start makes everything."""
    tree = {
        **flags,
        "advertise": list(flags["advertise"]) or None,
        "data": flags["data"] or default_data("hub", os.environ),
    }
    try:
        settings = load(HubConfig, config, os.environ, tree)
    except MeshError as exc:
        raise Failure(str(exc), 2) from exc
    configure(settings.log_level)
    import trio

    from hub.main import run_hub

    try:
        trio.run(run_hub, settings)
    except* MeshError as group:
        raise Failure(str(_first(group)), FAILED) from group
    except* OSError as group:
        raise Failure(f"the hub stopped: {_first(group)}", FAILED) from group


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
