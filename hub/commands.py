"""``rackmesh hub up``, ``hub join`` and ``hub root export``: words in, one thing done.

Rule: configuration is read here and nowhere else; whatever stops the hub before it serves is
one sentence and an exit code.
"""

import os
import sys
from pathlib import Path
from typing import Any

import click

from hub.config import HubConfig
from mesh.cli.context import print_json, read_secret_file
from mesh.cli.errors import DENIED, NOT_FOUND, UNREACHABLE, Failure, failure_of
from mesh.errors import MeshError, Refused, Unreachable
from mesh.host.config import default_data, load
from mesh.host.files import act_as_owner
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
@click.option(
    "--root-passphrase-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="First start: file with the passphrase that wraps the root key; - is standard input.",
)
@click.option(
    "--force-epoch",
    is_flag=True,
    default=None,
    help="After a restore: write without having met a member, if no other one is left.",
)
@click.option(
    "--trust-clock",
    is_flag=True,
    default=None,
    help="This machine's clock is right, though it stands far from what was written last.",
)
@click.option("--log-level", help="debug, info, warning or error.")
def up(config: Path | None, root_passphrase_file: Path | None, **flags: Any) -> None:
    """Run a hub until it is stopped (SIGTERM, SIGINT); the first start makes everything."""
    tree = {
        **flags,
        "advertise": list(flags["advertise"]) or None,
        "data": folder_of(flags["data"]),
    }
    from hub.joining import kept_settings

    try:
        below = kept_settings(folder_of(flags["data"]))
        settings = load(HubConfig, config, os.environ, tree, below)
    except MeshError as exc:
        raise Failure(str(exc), 2) from exc
    configure(settings.log_level)
    passphrase = _passphrase(settings.data, root_passphrase_file)
    import trio

    from hub.main import run_hub

    try:
        trio.run(run_hub, settings, passphrase)
    except (MeshError, OSError, ExceptionGroup) as exc:
        raise failure_of(exc, "hub", {}) from exc


@click.command("join")
@click.option("--token", help="The join token; it is good for one use only.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File with the token; - is standard input.",
)
@click.option("--name", help="Name of this hub for people; default: the host name.")
@click.option(
    "--region", default="main", show_default=True, help="Region that this hub's orders carry."
)
@click.option(
    "--advertise", multiple=True, help="Host name or address that nodes dial; may be repeated."
)
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print a document.")
def join(
    token: str | None, token_file: Path | None, name: str | None, region: str,
    advertise: tuple[str, ...], data: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Join an organisation as one more hub, with a token of `token create --role hub`.

    The hub makes its own keys. It shows everything and relays at once; it admits, orders and
    names when whoever holds the root key has named them: rackmesh hub root admit HUB.
    """
    if (token is None) == (token_file is None):
        raise Failure("give either --token-file FILE (or -) or --token TOKEN", 2)
    text = token if token is not None else read_secret_file(token_file or Path("-"))
    folder = folder_of(data)
    act_as_owner(folder)
    import trio

    from hub.founding import lock_folder
    from hub.joining import join_as_hub, shown

    called = (name or os.uname().nodename).split(".", maxsplit=1)[0]
    try:
        lock = lock_folder(folder)
        try:
            joined = trio.run(join_as_hub, folder, text, called, region, advertise)
        finally:
            lock.release()
    except (MeshError, OSError) as exc:
        raise failure_of(exc, "join", {Unreachable: UNREACHABLE, Refused: DENIED}) from exc
    if as_json:
        print_json({"schema": "rackmesh/hub-join/1", "item": shown(joined)})
        return
    click.echo(f"hub {joined.hub} ({joined.name}) is a member, region {joined.region}")
    click.echo(f"start it: rackmesh hub up --data {folder}", err=True)
    click.echo(f"then, where the root key is: rackmesh hub root admit {joined.hub}", err=True)


@click.command("export")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)
def root_export(target: Path, data: Path | None) -> None:
    """Move the root key to TARGET, a file on a medium that is kept offline.

    The hub works without it; only changing role keys or region epochs needs it.
    """
    from mesh.hub_keys import RING_FILE, load_or_make_hub_keys

    folder = folder_of(data) / "keys"
    if not (folder / RING_FILE).exists():
        raise Failure(f"no hub has been started with its data in {folder.parent}", NOT_FOUND)
    try:
        load_or_make_hub_keys(folder, "").export_root(target)
    except (MeshError, OSError) as exc:
        raise failure_of(exc, "export", {}) from exc
    click.echo(f"the root key is in {target} and no longer on this hub")


def folder_of(data: Path | None) -> Path:
    """Return the hub's data folder."""
    return data or default_data("hub", os.environ)


def _passphrase(data: Path, file: Path | None) -> str | None:
    """Return what wraps the root key, asked for on a terminal at the first start."""
    if (data / "keys").exists():
        return None
    if file is not None:
        text = read_secret_file(file)
        if not text:
            raise Failure(f"{file} holds no passphrase", 2)
        return text
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    words = "Passphrase for the organisation's root key (empty: none)"
    text = click.prompt(words, default="", show_default=False, hide_input=True, err=True)
    if text and click.prompt("Again", hide_input=True, err=True) != text:
        raise Failure("the two passphrases differ; start again", 2)
    return text or None
