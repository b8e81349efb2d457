"""Verbs for boot templates: the text that an installer reads about a server."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import Failure
from mesh.cli.nouns import every, listing
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import age, print_table
from mesh.cli.variables import variables
from mesh.proto.template_text import FORMATS, TEXT_BYTES_MAX

EXAMPLES: Final = {"debian-preseed": "debian-preseed.cfg"}
_BY_END: Final = {
    "preseed.cfg": "preseed", ".seed": "preseed", "ks.cfg": "kickstart", ".ks": "kickstart",
    "user-data": "autoinstall", ".ipxe": "ipxe", "grub.cfg": "grub",
}  # fmt: skip


@click.command("add")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--format", "form", type=click.Choice(list(FORMATS)),
              help="Whose file it is; default: what the name of FILE says.")  # fmt: skip
@options
def template_add(where: Where, as_json: bool, name: str, file: Path, form: str | None) -> None:
    """Make FILE the boot template NAME; one that is there already is changed.

    Orders that were given before name the text they were given with: give them again.
    """
    form = form or next((f for end, f in _BY_END.items() if file.name.endswith(end)), None)
    if form is None:
        raise Failure(f"{file} does not say what it is; give --format", 2)
    try:
        with click.open_file(str(file), "rb") as opened:
            data = opened.read(TEXT_BYTES_MAX + 1)
        text = data.decode()
    except OSError as exc:
        raise Failure(f"{file} cannot be read: {exc.strerror}", 2) from exc
    except UnicodeDecodeError as exc:
        raise Failure(f"{file} is no text in UTF-8", 2) from exc
    if len(data) > TEXT_BYTES_MAX:
        raise Failure(f"{file} is longer than {TEXT_BYTES_MAX} bytes", 2)
    with where.client() as client:
        body = {"format": form, "text": text}
        answer = client.put_json(f"/templates/{in_path(name)}", body)
    print_json(answer) if as_json else click.echo(f"template {name} ({form}) is there")


@click.command("list")
@listing
@options
def template_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the boot templates."""
    answer = every(where, "/templates", as_json, asked)
    rows = [
        (t["name"], t["format"], t["bytes"], ",".join(t["secrets"]), t["by"],
         age(t["changed_ms"], answer["as_of_ms"]))
        for t in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("TEMPLATE", "FORMAT", "BYTES", "SECRETS", "BY", "CHANGED")
        print_table(columns, rows, "there are no templates: rackmesh template add NAME FILE")


@click.command("show")
@click.argument("name")
@options
def template_show(where: Where, as_json: bool, name: str) -> None:
    """Print the text of the boot template NAME."""
    with where.client() as client:
        answer = client.get(f"/templates/{in_path(name)}")
    print_json(answer) if as_json else click.echo(answer["item"]["text"], nl=False)


@click.command("remove")
@click.argument("name")
@options
def template_remove(where: Where, as_json: bool, name: str) -> None:
    """Take the boot template NAME away; what was ordered with it is not given out any more."""
    with where.client() as client:
        answer = client.delete(f"/templates/{in_path(name)}")
    print_json(answer) if as_json else click.echo(f"template {name} removed")


@click.command("render")
@click.argument("name")
@click.option("--server", required=True, help="Server whose file it shall be.")
@click.option("--var", "given", multiple=True, help="NAME=VALUE; may be given more than once.")
@repeatable
@options
def template_render(
    where: Where, as_json: bool, name: str, server: str, given: tuple[str, ...],
    key: str | None,
) -> None:  # fmt: skip
    """Print what a server would get of NAME; secrets and capabilities stand there as ***."""
    body = {"server": server, "vars": variables(given)}
    answer = give(where, f"/templates/{in_path(name)}/render", body, key)
    print_json(answer) if as_json else click.echo(answer["item"]["text"], nl=False)


@click.command("example")
@click.argument("name", type=click.Choice(list(EXAMPLES)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def template_example(name: str, as_json: bool) -> None:
    """Print a template that comes with Rackmesh, to begin with."""
    text = files("mesh.cli").joinpath("examples", EXAMPLES[name]).read_text()
    if as_json:
        print_json({"schema": "rackmesh/example/1", "item": {"name": name, "text": text}})
    else:
        click.echo(text, nl=False)
