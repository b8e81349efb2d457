"""Verbs about the content on the disk of the hub or node that is asked: verify, gc."""

from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import DEGRADED, Failure
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import print_table, size


@click.command("verify")
@click.argument("names", nargs=-1)
@options
def asset_verify(where: Where, as_json: bool, names: tuple[str, ...]) -> None:
    """Read the content of NAMES (default: all that is here) again and compare its hashes.

    Asks the hub or node whose data folder is given, and reads from its disk. Damaged chunks are
    forgotten, and fetched again where a site wants the asset. Exit code 3: some were damaged.
    """
    found: list[dict[str, Any]] = []
    with where.client() as client:
        every = () if names else client.every("/assets")["items"]
        asked = names or [item["name"] for item in every if item["asset"]]
        for name in asked:
            item = _verify(client, name)
            if names or item["of"]:
                found.append(item)
                if not as_json:
                    click.echo(_sentence(item))
    if as_json:
        print_json({"schema": "rackmesh/verified/1", "items": found})
    elif not found:
        click.echo("nothing is here")
    if any(item["damaged"] for item in found):
        raise Failure("some of the content was damaged", DEGRADED)


def _verify(client: Any, name: str) -> dict[str, Any]:
    total: dict[str, Any] = {"name": name, "checked": 0, "damaged": 0}
    first: int | None = 0
    while first is not None:
        item = client.post(f"/assets/{in_path(name)}/verify?first={first}", {})["item"]
        total |= {"asset": item["asset"], "of": item["of"]}
        for count in ("checked", "damaged"):
            total[count] += item[count]
        first = item["next"]
        if first is not None:
            click.echo(f"{name}: {first} of {item['of']} chunks read", err=True)
    return total


def _sentence(item: dict[str, Any]) -> str:
    if not item["of"]:
        return f"{item['name']}: nothing of it is here"
    sound = item["checked"] - item["damaged"]
    text = f"{item['name']}: {sound} of {item['of']} chunks are here and sound"
    return f"{text}, {item['damaged']} were damaged" if item["damaged"] else text


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@repeatable
@options
def asset_gc(where: Where, as_json: bool, dry_run: bool, key: str | None) -> None:
    """Let content go from the disk of the node that is asked, as when it needs the room.

    What a site wants, what a job works with and the last copy of what no origin gives again
    stays.
    """
    answer = give(where, "/cache/gc", {"dry_run": dry_run}, key)
    if as_json:
        print_json(answer)
        return
    item = answer["item"]
    rows = [
        (", ".join(one["names"]), size(one["bytes"]), one["asset"]) for one in item["assets"]
    ]
    print_table(("NAMES", "SIZE", "ASSET"), rows, "nothing here may go")
    if rows:
        click.echo(f"{size(item['bytes'])} {'would go' if dry_run else 'went'}")
