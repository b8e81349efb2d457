"""Verbs on servers: put one aside; deploy, release or power one or many.

One server is an order, several are a group. Rule: before many are hit, it is said how many and
which; what was shown is what is ordered.
"""

from pathlib import Path
from typing import Any, Final

import click

from mesh.cli.context import Command, Where, in_path, options, print_json, read_secret_file
from mesh.cli.errors import Failure
from mesh.cli.orders import give, one, repeatable, waiting, within
from mesh.cli.variables import variables

SHOWN_MAX: Final = 20


def many(function: Command) -> Command:
    """Give a verb SERVER..., --filter and --yes."""
    decorators = [
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--filter", "text", help="Hit all servers that pass, as site:fra1 state:active web."
        ),
        click.argument("servers", nargs=-1, metavar="SERVER..."),
    ]
    for decorate in decorators:
        function = decorate(function)
    return function


@click.command("reject")
@click.argument("machine")
@click.option("--site", help="The site that is meant where several have seen it.")
@repeatable
@options
def reject(
    where: Where, as_json: bool, machine: str, site: str | None, key: str | None
) -> None:
    """Put the pending MACHINE (its MAC) aside; it is not touched."""
    _verdict(where, as_json, machine, site, key, "reject", "was put aside")


@click.command("restore")
@click.argument("machine")
@click.option("--site", help="The site that is meant where several have seen it.")
@repeatable
@options
def restore(
    where: Where, as_json: bool, machine: str, site: str | None, key: str | None
) -> None:
    """Take back that the pending MACHINE (its MAC) was put aside."""
    _verdict(where, as_json, machine, site, key, "restore", "waits to be accepted again")


def _verdict(
    where: Where, as_json: bool, machine: str, site: str | None, key: str | None, verb: str,
    done: str,
) -> None:  # fmt: skip
    answer = give(where, f"/pending/{in_path(machine)}/{verb}", {"site": site}, key)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['item']['mac']} of site {answer['item']['site']} {done}")


@click.command("deploy")
@many
@click.option("--image", help="Name of an image, live system or ISO.")
@click.option("--installer", help="Name of an installer: kernel and initrds, as a live system.")
@click.option("--template", help="Boot template that answers the installer's questions.")
@click.option("--var", "given", multiple=True,
              help="NAME=VALUE for the template; may be given more than once.")  # fmt: skip
@click.option(
    "--hostname", help="Host name of the installed system; default: the server's name."
)
@click.option(
    "--ssh-key", "ssh_keys", multiple=True,
    help="SSH public key to admit, or @FILE with one; may be given more than once.",
)  # fmt: skip
@click.option(
    "--user-data", type=click.Path(path_type=Path, allow_dash=True),
    help="File with cloud-init user-data for the installed system; - reads standard input.",
)  # fmt: skip
@click.option("--no-hooks", is_flag=True, help="Leave out the hooks of the site and the fleet.")
@waiting
@repeatable
@options
def deploy(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    image: str | None, installer: str | None, template: str | None, given: tuple[str, ...],
    hostname: str | None, ssh_keys: tuple[str, ...], user_data: Path | None, no_hooks: bool,
    **more: Any,
) -> None:  # fmt: skip
    """Install an image on each SERVER's disk, or boot a live system or an ISO there.

    With --installer and --template a real installer runs there: what it asks, the template
    answers. It overwrites the disk.
    """
    if (image is None) == (installer is None) or (installer is None) != (template is None):
        raise Failure("give --image, or --installer with --template", 2)
    if given and template is None:
        raise Failure("--var goes with --template", 2)
    image = image or installer
    keys = [read_secret_file(Path(key[1:])) if key.startswith("@") else key for key in ssh_keys]
    params: dict[str, Any] = {"image": image, "hostname": hostname, "ssh_keys": keys}
    if template is not None:
        params |= {"template": template, "vars": variables(given)}
    if user_data is not None:
        params["user_data"] = read_secret_file(user_data)
    if no_hooks:
        params["no_hooks"] = True
    what = f"{image} will be installed on"
    hit(where, as_json, more, servers, text, yes, "server.deploy", params, what)


@click.command("release")
@many
@click.option("--no-hooks", is_flag=True, help="Leave out the hooks of the site and the fleet.")
@waiting
@repeatable
@options
def release(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    no_hooks: bool, **more: Any,
) -> None:  # fmt: skip
    """Wipe each SERVER's disk, read it back, and make the server available."""
    if len(servers) == 1 and text is None and not yes:
        click.confirm(
            f"Every byte on the disk of {servers[0]} will be overwritten. Go on?", abort=True
        )
    what = "every byte will be overwritten on the disks of"
    params = {"no_hooks": True} if no_hooks else {}
    hit(where, as_json, more, servers, text, yes, "server.release", params, what)


@click.command("power")
@many
@click.argument("target", type=click.Choice(["on", "off"]))
@waiting
@repeatable
@options
def power(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    target: str, **more: Any,
) -> None:  # fmt: skip
    """Switch each SERVER on or off through its BMC."""
    params = {"on": target == "on"}
    what = f"these will be switched {target}:"
    hit(where, as_json, more, servers, text, yes, "server.power", params, what)


@click.command("password")
@many
@waiting
@repeatable
@options
def password(
    where: Where, as_json: bool, servers: tuple[str, ...], text: str | None, yes: bool,
    **more: Any,
) -> None:  # fmt: skip
    """Give the BMC of each SERVER a new random password.

    Only the active nodes of its site can read it. Other servers behind the same BMC go on with
    the new one, too.
    """
    what = "the BMC passwords of these will be changed:"
    hit(where, as_json, more, servers, text, yes, "server.password", {}, what)


@click.command("inventory")
@click.argument("server")
@options
def inventory(where: Where, as_json: bool, server: str) -> None:
    """Show what SERVER is made of, as its ramdisk found it."""
    from mesh.cli.nouns import show

    show(where, f"/servers/{in_path(server)}/inventory", as_json)


def hit(
    where: Where, as_json: bool, more: dict[str, Any], servers: tuple[str, ...],
    text: str | None, yes: bool, kind: str, params: dict[str, Any], what: str,
) -> None:  # fmt: skip
    """Order one server, or many as a group."""
    if bool(servers) == (text is not None):
        raise Failure("say which servers: either their names or --filter", 2)
    if text is not None and not text.strip():
        raise Failure("--filter is empty; name:* means all servers", 2)
    if len(servers) == 1:
        one(where, as_json, more, kind=kind, server=servers[0], params=params)
        return
    found = _found(where, servers, text)
    order_group(where, as_json, more, found, yes, kind, params, what)


def order_group(
    where: Where, as_json: bool, more: dict[str, Any], found: list[dict[str, Any]],
    yes: bool, kind: str, params: dict[str, Any], what: str,
) -> None:  # fmt: skip
    """Order many servers, after it was said which."""
    from mesh.cli.follow import follow_group

    names = [f"{server['name']} ({server['site']})" for server in found]
    rest = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    count = f"{len(found)} server{'' if len(found) == 1 else 's'}"
    click.echo(f"{what} {count}: {', '.join(names[:SHOWN_MAX])}{rest}", err=True)
    if not yes:
        click.confirm("Go on?", abort=True, err=True)
    given = {key: value for key, value in params.items() if value is not None}
    body: dict[str, Any] = {
        "kind": kind,
        "servers": [server["id"] for server in found],
        "params": given,
    }
    body |= within(more)
    answer = give(where, "/groups", body, more["key"])
    for refused in answer["item"]["refused"]:
        click.echo(f"refused: {refused['detail']}", err=True)
    follow_group(where, as_json, answer, more["timeout_s"] if more["wait"] else 0)
    if answer["item"]["refused"]:
        raise Failure(f"{len(answer['item']['refused'])} of {count} got no order", 7)


def _found(where: Where, servers: tuple[str, ...], text: str | None) -> list[dict[str, Any]]:
    """Return the servers that are meant, or fail with exit code 4."""
    with where.client() as client:
        if text is None:
            shown = [client.get(f"/servers/{in_path(name)}")["item"] for name in servers]
            return list({server["id"]: server for server in shown}.values())
        found: list[dict[str, Any]] = client.every("/servers", filter=text)["items"]
    if not found:
        raise Failure(f"no server passes the filter {text!r}", 4)
    return found
