"""Verbs about members and their keys: revoke, suspend, resume, relay, rotate-key."""

from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.orders import give, repeatable

YES = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command("revoke")
@click.argument("node")
@YES
@repeatable
@options
def node_revoke(where: Where, as_json: bool, node: str, yes: bool, key: str | None) -> None:
    """End the membership of NODE (id or name) for good; its identity never comes back.

    Every connected member closes its links with it; a site that is offline learns it from
    whomever it meets first. Prints the secrets that the node could read: change them.
    """
    if not yes:
        click.confirm(f"{node} will be locked out for good. Go on?", abort=True, err=True)
    _change(where, as_json, node, "revoke", key)


@click.command("suspend")
@click.argument("node")
@YES
@repeatable
@options
def node_suspend(where: Where, as_json: bool, node: str, yes: bool, key: str | None) -> None:
    """Keep NODE (id or name) out until it is resumed."""
    if not yes:
        click.confirm(f"{node} will be locked out. Go on?", abort=True, err=True)
    _change(where, as_json, node, "suspend", key)


@click.command("resume")
@click.argument("node")
@repeatable
@options
def node_resume(where: Where, as_json: bool, node: str, key: str | None) -> None:
    """Let the suspended NODE (id or name) in again."""
    _change(where, as_json, node, "resume", key)


@click.command("relay")
@click.argument("node")
@click.option("--off", is_flag=True, help="No more.")
@options
def node_relay(where: Where, as_json: bool, node: str, off: bool) -> None:
    """Let NODE (id or name) relay links between members that cannot reach each other.

    Hubs always do. What passes is sealed end to end, the node sees ids and lengths.
    """
    with where.client() as client:
        path = f"/nodes/{in_path(node)}/relay"
        answer = client.delete(path) if off else client.put_json(path, {})
    if as_json:
        print_json(answer)
    else:
        item = answer["item"]
        does = "relays for others" if item["relays"] else "does not relay"
        click.echo(f"{item['name'] or item['id']} ({item['id']}) {does}")


@click.command("rotate-key")
@repeatable
@options
def rotate_key(where: Where, as_json: bool, key: str | None) -> None:
    """Replace the X25519 key of the running node (or hub); its links are made anew.

    This happens by itself every month.
    """
    answer = give(where, "/rotate-key", {}, key)
    if as_json:
        print_json(answer)
    else:
        item = answer["item"]
        click.echo(f"node {item['node']} has key {item['epoch']} now")


def _change(where: Where, as_json: bool, node: str, verb: str, key: str | None) -> None:
    answer = give(where, f"/nodes/{in_path(node)}/{verb}", {}, key)
    if as_json:
        print_json(answer)
    else:
        _say(answer["item"])


def _say(item: dict[str, Any]) -> None:
    where = f" of site {item['site']}" if item["site"] else ""
    click.echo(f"{item['name'] or item['id']} ({item['id']}){where} is {item['status']}")
    if item["secrets"]:
        change = f"rackmesh secret change --exposed-to {item['id']}"
        click.echo(f"it could read these secrets; change them: {change}", err=True)
        for secret in item["secrets"]:
            click.echo(secret)
