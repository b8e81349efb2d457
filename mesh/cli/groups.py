"""Verbs on groups: orders that were given together for many servers."""

from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.nouns import every, listing, show
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import age, print_table


@click.command("list")
@listing
@options
def group_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List groups, newest first."""
    answer = every(where, "/groups", as_json, asked)
    rows = [
        (g["id"], g["kind"], ",".join(g["sites"]), g["state"], f"{g['over']}/{g['total']}",
         g["error"] or "; ".join(f"{w['jobs']}: {w['waits_for']}" for w in g["waits"][:1]),
         age(g["created_ms"], answer["as_of_ms"]))
        for g in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("GROUP", "KIND", "SITES", "STATE", "OVER", "NOW", "AGE")
        print_table(columns, rows, "there are no groups: server deploy|release|power --filter")


@click.command("show")
@click.argument("group")
@options
def group_show(where: Where, as_json: bool, group: str) -> None:
    """Show how a group fares and what its jobs wait for."""
    show(where, f"/groups/{in_path(group)}", as_json)


@click.command("cancel")
@click.argument("group")
@click.option("--yes", is_flag=True, help="Do not ask.")
@repeatable
@options
def group_cancel(where: Where, as_json: bool, group: str, yes: bool, key: str | None) -> None:
    """Cancel all jobs of GROUP that have not ended."""
    if not yes:
        with where.client() as client:
            item = client.get(f"/groups/{in_path(group)}")["item"]
        left = item["total"] - item["over"]
        click.confirm(f"{left} of {item['total']} jobs will be cancelled. Go on?", abort=True)
    _tell(where, as_json, group, "cancel", key)


@click.command("retry")
@click.argument("group")
@repeatable
@options
def group_retry(where: Where, as_json: bool, group: str, key: str | None) -> None:
    """Retry all jobs of GROUP that failed, parked or were cancelled."""
    _tell(where, as_json, group, "retry", key)


def _tell(where: Where, as_json: bool, group: str, verb: str, key: str | None) -> None:
    answer = give(where, f"/groups/{in_path(group)}/{verb}", None, key)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{verb} goes to {len(answer['item']['jobs'])} jobs")
