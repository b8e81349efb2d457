"""Verbs for hooks: what else is done before and after a server is deployed or released."""

from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json, read_secret_file
from mesh.cli.errors import Failure
from mesh.cli.nouns import every, listing
from mesh.cli.tables import age, print_table
from mesh.proto.hook import ANSIBLE, ON_FAILURE, POINTS, SSH, WEBHOOK


@click.command("add")
@click.argument("name")
@click.option(
    "--at", "point", required=True, type=click.Choice(POINTS), help="When it is done."
)
@click.option("--webhook", "url", help="POST what happens to this https URL.")
@click.option("--ssh", "command", help="Run this command over ssh.")
@click.option("--ansible", "playbook", help="Run this playbook of the node's hooks folder.")
@click.option("--ansible-asset", "asset", help="Run the playbook that this asset is.")
@click.option("--local", is_flag=True, help="Ansible works on the node, not on the server.")
@click.option(
    "--secret",
    help="Id (hook-...) of the webhook's signing key, or of the private ssh key; {site} in it"
    " stands for the order's site.",
)
@click.option("--pin", help="SHA-256 of the webhook's certificate; default: it must verify.")
@click.option("--host", help="Host for --ssh; default: the server itself.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of ssh; default: 22.")
@click.option("--user", help="User of ssh; default: root.")
@click.option(
    "--host-key",
    help="Public host key, or @FILE with it; default: what the installed system reported.",
)
@click.option("--site", help="Only at this site; default: at every site.")
@click.option("--repeatable", is_flag=True, help="It may be done twice: try it again.")
@click.option(
    "--on-failure", type=click.Choice(ON_FAILURE),
    help="Whether a failure ends the job; default: fail.",
)  # fmt: skip
@click.option("--timeout", "timeout_s", type=click.IntRange(1), help="Seconds; default: 600.")
@click.option("--tries", type=click.IntRange(1), help="Tries in all.")
@options
def hook_add(
    where: Where, as_json: bool, name: str, url: str | None, command: str | None,
    playbook: str | None, asset: str | None, local: bool, host_key: str | None,
    repeatable: bool, **more: Any,
) -> None:  # fmt: skip
    """Make or change the hook NAME: one of --webhook, --ssh, --ansible, --ansible-asset.

    Orders that were given before keep what the hook was then.
    """
    kinds = {WEBHOOK: url, SSH: command, ANSIBLE: playbook or asset}
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1 or (playbook is not None and asset is not None):
        raise Failure("give one of --webhook, --ssh, --ansible and --ansible-asset", 2)
    if host_key is not None and host_key.startswith("@"):
        host_key = read_secret_file(Path(host_key[1:]))
    body: dict[str, Any] = {
        **more, "kind": given[0], "url": url, "command": command, "playbook": playbook,
        "asset": asset, "host_key": host_key, "repeatable": repeatable or None,
        "connection": "local" if local else None,
    }  # fmt: skip
    body = {key: value for key, value in body.items() if value is not None}
    with where.client() as client:
        answer = client.put_json(f"/hooks/{in_path(name)}", body)
    print_json(answer) if as_json else click.echo(f"hook {name} ({more['point']}) is there")


@click.command("list")
@listing
@options
def hook_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the hooks in the order in which they are done."""
    answer = every(where, "/hooks", as_json, asked)
    rows = [
        (h["name"], h["point"], h["kind"], _does(h), h["site"] or "every site",
         h["on_failure"], h["by"], age(h["changed_ms"], answer["as_of_ms"]))
        for h in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("HOOK", "AT", "KIND", "DOES", "SITE", "ON FAILURE", "BY", "CHANGED")
        print_table(columns, rows, "there are no hooks: rackmesh hook add NAME --at POINT ...")


@click.command("show")
@click.argument("name")
@options
def hook_show(where: Where, as_json: bool, name: str) -> None:
    """Show the hook NAME."""
    with where.client() as client:
        answer = client.get(f"/hooks/{in_path(name)}")
    if as_json:
        print_json(answer)
        return
    for key, value in answer["item"].items():
        if value is not None and key != "changed_ms":
            click.echo(f"{key:12} {value}")


@click.command("remove")
@click.argument("name")
@options
def hook_remove(where: Where, as_json: bool, name: str) -> None:
    """Take the hook NAME away; orders that were given before keep it."""
    with where.client() as client:
        answer = client.delete(f"/hooks/{in_path(name)}")
    print_json(answer) if as_json else click.echo(f"hook {name} removed")


def _does(hook: dict[str, Any]) -> str:
    what = hook["url"] or hook["command"] or hook["playbook"] or f"asset {hook['asset']}"
    return str(what)[:60]
