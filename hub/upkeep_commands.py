"""``rackmesh hub backup``, ``restore`` and ``restore-report``: words in, one thing done.

Rule: a backup is made by the running hub and only sealed here; a restore runs while no hub
runs, and asks for a passphrase on a terminal or takes it from a file, never from argv.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, options, print_json, read_secret_file
from mesh.cli.errors import CONFLICT, Failure, failure_of
from mesh.cli.tables import age, print_table, size
from mesh.errors import MeshError

PASSPHRASE_CHARS_MIN = 8


def passphrase_file(function: Any) -> Any:
    """Give a command --passphrase-file."""
    return click.option(
        "--passphrase-file", type=click.Path(path_type=Path, allow_dash=True),
        help="File with the backup's passphrase; - is standard input. Default: ask.",
    )(function)  # fmt: skip


def _passphrase(file: Path | None, *, twice: bool) -> str:
    if file is not None:
        text = read_secret_file(file)
    elif sys.stdin.isatty() and sys.stderr.isatty():
        text = str(click.prompt("Passphrase of the backup", hide_input=True, err=True))
        if twice and click.prompt("Again", hide_input=True, err=True) != text:
            raise Failure("the two passphrases differ; nothing was written", 2)
    else:
        raise Failure("give the passphrase with --passphrase-file FILE (- is stdin)", 2)
    if len(text) < PASSPHRASE_CHARS_MIN:
        raise Failure(f"a passphrase has {PASSPHRASE_CHARS_MIN} characters or more", 2)
    return text


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@passphrase_file
@options
def backup(where: Where, as_json: bool, file: Path, passphrase_file: Path | None) -> None:
    """Write FILE, one sealed file with all that only this hub has, while it runs.

    Inside: identity and key ring (with the root key, if it is here), TLS key, register, the
    replicated rows with orders, accounts and tokens. Not inside: reports and cached content
    (both are made again), and uploaded images, which are named. Run it on the hub's machine.
    """
    from hub.proto.backup_file import read_manifest
    from hub.restore import seal_to, shown

    if file.exists():
        raise Failure(f"{file} already exists; give a name that is free", CONFLICT)
    passphrase, first = _passphrase(passphrase_file, twice=True), bytearray()

    def noting(pieces: Any) -> Any:
        for piece in pieces:
            if b"\n" not in first:
                first.extend(piece)
            yield piece

    with where.client() as client:
        try:
            written = seal_to(file, noting(client.pieces("/backup")), passphrase)
        except (MeshError, OSError) as exc:
            raise failure_of(exc, "backup", {}) from exc
    item = shown(read_manifest(bytes(first[: first.find(b"\n") + 1])))
    if as_json:
        print_json({"schema": "rackmesh/backup/1", "item": {**item, "file": str(file)}})
        return
    click.echo(f"{file}: {size(written)}, hub {item['name']} ({item['node'][:8]})")
    _say_left_out(item["assets_not_inside"])


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA", help="Data folder."
)
@click.option("--replace", is_flag=True, help="Put what is in the data folder aside first.")
@click.option("--json", "as_json", is_flag=True, help="Print what was restored as JSON.")
@passphrase_file
def restore(
    file: Path, data: Path | None, replace: bool, as_json: bool, passphrase_file: Path | None
) -> None:
    """Make a hub's data folder of the backup FILE; the hub must not run.

    Everything is checked before anything changes. The hub then writes nothing before it has met
    a node of each of its sites and has got back from them what it wrote after the backup;
    rackmesh hub restore-report says what that was. Never let two hubs run from one backup.
    """
    from hub.commands import folder_of
    from hub.founding import lock_folder
    from hub.restore import occupied, put_in_place, shown, unpack
    from mesh.host.clock import SystemClock

    folder = folder_of(data)
    try:
        lock = lock_folder(folder)
        try:
            if occupied(folder) and not replace:
                raise Failure(
                    f"{folder} is not empty; --replace puts what is there aside", CONFLICT
                )
            manifest = unpack(file, _passphrase(passphrase_file, twice=False), folder)
            aside = put_in_place(folder, manifest, SystemClock().now_ms())
        finally:
            lock.release()
    except (MeshError, OSError) as exc:
        raise failure_of(exc, "restore", {}) from exc
    place = {"data": str(folder), "aside": str(aside) if aside else None}
    item: dict[str, Any] = {**shown(manifest), **place}
    if as_json:
        print_json({"schema": "rackmesh/restore/1", "item": item})
        return
    made = datetime.fromtimestamp(manifest.created_ms / 1000, UTC).isoformat(" ", "seconds")
    click.echo(f"hub {manifest.name} ({manifest.node[:8]}) as of {made} is in {folder}")
    if aside:
        click.echo(f"what was there before is in {aside}")
    _say_left_out(item["assets_not_inside"])
    click.echo(f"start it: rackmesh hub up --data {folder}", err=True)
    click.echo("it writes nothing before it has met a node of each of its sites", err=True)


def _say_left_out(assets: list[dict[str, Any]]) -> None:
    for asset in assets:
        sites = ", ".join(asset["sites"]) or "no site"
        click.echo(f"not inside: uploaded {asset['name']} (held by {sites})", err=True)


@click.command("restore-report")
@click.option("--dismiss", is_flag=True, help="Forget the report: you have read it.")
@options
def restore_report(where: Where, as_json: bool, dismiss: bool) -> None:
    """Show what a restore brought back from others, and what nobody can account for."""
    with where.client() as client:
        call = client.delete if dismiss else client.get
        answer = call("/restore-report")
    if as_json:
        print_json(answer)
        return
    item, now_ms = answer["item"], answer["as_of_ms"]
    for line in _sentences(item, now_ms):
        click.echo(line)
    rows = [
        (age(row["at_ms"], now_ms), row["site"], row["table"], row["key"], row["what"])
        for row in item["got_back"]
    ]
    print_table(("AGE", "SITE", "WHAT", "ID", ""), rows, "nothing came back")
    if item["got_back_more"]:
        click.echo(f"and {item['got_back_more']} more")


def _sentences(item: dict[str, Any], now_ms: int) -> list[str]:
    since = (
        "lost database"
        if item["backup_ms"] is None
        else (f"backup of {age(item['backup_ms'], now_ms)} ago")
    )
    lines = [f"restored {age(item['restored_ms'], now_ms)} ago from a {since}: {item['state']}"]
    lines += [f"waits for {name}" for name in item["waits_for"]]
    lines.append(f"orders that came back: {item['orders_got_back']}")
    lines += [f"site {site} was not met yet" for site in item["sites_not_met"]]
    lines += [f"job {job} runs without its order" for job in item["jobs_without_order"]]
    window = json.dumps([item["lost_from_ms"], item["lost_until_ms"]])
    lines.append(f"lost: what was written in {window} (Unix ms) and reached no other machine")
    return lines
