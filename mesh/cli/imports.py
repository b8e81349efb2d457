"""rackmesh server import: many servers out of one file, all or none."""

from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, options, print_json
from mesh.cli.errors import Failure
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import print_table


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--site", help="Site of the rows that name none.")
@click.option("--dry-run", is_flag=True, help="Say what is wrong, or would be done.")
@click.option("--format", "format_", type=click.Choice(["csv", "json"]),
              help="By the file's name where it ends in .csv or .json.")  # fmt: skip
@repeatable
@options
def server_import(
    where: Where, as_json: bool, file: Path, site: str | None, dry_run: bool,
    format_: str | None, key: str | None,
) -> None:  # fmt: skip
    """Make servers of all rows of FILE (CSV or JSON), or of none.

    Columns: name, mac (several with a blank between), bmc, bmc_user and bmc_password or
    bmc_secret, ip, mode (managed or monitored), tags, serial, site. Passwords are sealed as
    secrets. Everything that is wrong is told at once, with its line.
    """
    from mesh.proto import server_file

    format_ = format_ or file.suffix.lower().removeprefix(".")
    if format_ not in ("csv", "json"):
        raise Failure(f"{file} ends in neither .csv nor .json: say --format", 2)
    try:
        with file.open("rb") as stream:
            text = server_file.decode(stream.read(server_file.BYTES_MAX + 1))
    except OSError as exc:
        raise Failure(f"{file} cannot be read: {exc.strerror}", 2) from exc
    except ValueError as exc:
        raise Failure(f"{file}: {exc}", 2) from exc
    if not text.strip():
        raise Failure(f"{file} is empty", 2)
    body: dict[str, Any] = {"format": format_, "text": text, "dry_run": dry_run}
    if site:
        body["site"] = site
    answer = give(where, "/imports", body, key)
    item = answer["item"]
    if as_json:
        print_json(answer)
    else:
        _print(file, item)
    if item["faults"]:
        more = item["faults_more"]
        count = len(item["faults"]) + more
        raise Failure(f"{count} fault{'s' if count > 1 else ''} in {file}: nothing was done", 2)


def _print(file: Path, item: dict[str, Any]) -> None:
    for fault in item["faults"]:
        click.echo(f"{file}:{fault['line']}: {fault['detail']}", err=True)
    if item["faults_more"]:
        click.echo(f"and {item['faults_more']} more", err=True)
    if item["faults"]:
        return
    rows = [
        (str(s["line"]), s["name"], s["site"], s["mode"], s["secret"], s["job"])
        for s in item["servers"]
    ]
    print_table(("LINE", "SERVER", "SITE", "MODE", "NEW SECRET", "JOB"), rows, "no server")
    for group in item["groups"]:
        click.echo(f"watch them: rackmesh group show {group}", err=True)
