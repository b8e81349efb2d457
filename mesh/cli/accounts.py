"""Verbs about people and programs: accounts, their roles and passwords, API tokens.

Rule: a password comes from a terminal without echo, from a file or from standard input, never
from argv.
"""

import sys
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import (
    Command,
    Where,
    in_path,
    options,
    print_json,
    read_secret_file,
)
from mesh.cli.errors import Failure
from mesh.cli.nouns import every, listing, show
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import age, print_table
from mesh.rest.roles import ROLES

DAYS_MAX = 3650


def new_password(function: Command) -> Command:
    """Give a verb --password-file."""
    return click.option(
        "--password-file", type=click.Path(path_type=Path, allow_dash=True),
        help="File with the password; - is standard input. Default: ask on the terminal.",
    )(function)  # fmt: skip


def _password(file: Path | None, name: str) -> str:
    if file is not None:
        text = read_secret_file(file)
        if not text:
            raise Failure(f"{file} holds no password", 2)
        return text
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure("give the password with --password-file FILE (- is standard input)", 2)
    text = str(click.prompt(f"Password for {name}", hide_input=True, err=True))
    if click.prompt("Again", hide_input=True, err=True) != text:
        raise Failure("the two passwords differ; nothing was changed", 2)
    return text


def _done(answer: Any, as_json: bool, sentence: str) -> None:
    print_json(answer) if as_json else click.echo(sentence)


@click.command("list")
@listing
@options
def account_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List who may sign in."""
    answer = every(where, "/accounts", as_json, asked)
    rows = [
        (a["name"], a["role"], "disabled" if a["disabled"] else "enabled",
         age(a["created_ms"], answer["as_of_ms"]), age(a["changed_ms"], answer["as_of_ms"]))
        for a in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("ACCOUNT", "ROLE", "STATE", "CREATED", "CHANGED")
        print_table(columns, rows, "nobody may sign in")


@click.command("show")
@click.argument("name")
@options
def account_show(where: Where, as_json: bool, name: str) -> None:
    """Show one account."""
    show(where, f"/accounts/{in_path(name)}", as_json)


@click.command("add")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@new_password
@repeatable
@options
def account_add(
    where: Where, as_json: bool, name: str, role: str, password_file: Path | None,
    key: str | None,
) -> None:  # fmt: skip
    """Make an account: a viewer reads, an operator works, an admin decides who may."""
    body = {"name": name, "role": role, "password": _password(password_file, name)}
    answer = give(where, "/accounts", body, key)
    _done(answer, as_json, f"account {name} made ({role})")


@click.command("password")
@click.argument("name")
@new_password
@options
def account_password(
    where: Where, as_json: bool, name: str, password_file: Path | None
) -> None:
    """Give an account a new password and end its sessions.

    On the hub's own machine this works for whoever may use its data folder: the way back in
    when the admin's password is lost.
    """
    body = {"password": _password(password_file, name)}
    with where.client() as client:
        answer = client.put_json(f"/accounts/{in_path(name)}/password", body)
    _done(answer, as_json, f"account {name} has a new password; its sessions are over")


@click.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@options
def account_role(where: Where, as_json: bool, name: str, role: str) -> None:
    """Change what an account may do."""
    answer = _change(where, name, {"role": role})
    _done(answer, as_json, f"account {name} is {role} now")


@click.command("disable")
@click.argument("name")
@options
def account_disable(where: Where, as_json: bool, name: str) -> None:
    """Keep an account out and end its sessions."""
    answer = _change(where, name, {"disabled": True})
    _done(answer, as_json, f"account {name} is disabled")


@click.command("enable")
@click.argument("name")
@options
def account_enable(where: Where, as_json: bool, name: str) -> None:
    """Let a disabled account in again."""
    answer = _change(where, name, {"disabled": False})
    _done(answer, as_json, f"account {name} is enabled")


def _change(where: Where, name: str, body: dict[str, Any]) -> Any:
    with where.client() as client:
        return client.patch(f"/accounts/{in_path(name)}", body)


@click.command("remove")
@click.argument("name")
@options
def account_remove(where: Where, as_json: bool, name: str) -> None:
    """Delete an account and end its sessions."""
    with where.client() as client:
        answer = client.delete(f"/accounts/{in_path(name)}")
    _done(answer, as_json, f"account {name} removed")


@click.command("list")
@listing
@options
def apitoken_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List API tokens (never their secrets)."""
    answer = every(where, "/api-tokens", as_json, asked)
    now_ms = answer["as_of_ms"]
    rows = [
        (t["id"], t["name"], t["role"], t["state"], t["created_by"],
         _ends(t["expires_ms"], now_ms), age(t["last_used_ms"], now_ms))
        for t in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("TOKEN", "NAME", "ROLE", "STATE", "MADE BY", "EXPIRES", "LAST USED HERE")
        print_table(columns, rows, "there are no API tokens")


def _ends(expires_ms: int | None, now_ms: int) -> str:
    if expires_ms is None:
        return "never"
    days = (expires_ms - now_ms) // 86_400_000
    return f"in {days} d" if days > 0 else "today" if days == 0 else "is over"


@click.command("create")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What it may do.")
@click.option("--days", type=click.FloatRange(min=0, max=DAYS_MAX, min_open=True),
              help="Days until it ends; default: it does not.")  # fmt: skip
@repeatable
@options
def apitoken_create(
    where: Where, as_json: bool, name: str, role: str, days: float | None, key: str | None
) -> None:
    """Make an API token for a program; prints it once, for --api-token-file."""
    ttl_s = None if days is None else max(1, int(days * 86_400))
    body = {"name": name, "role": role, "ttl_s": ttl_s}
    answer = give(where, "/api-tokens", body, key)
    _done(answer, as_json, answer["item"]["token"])


@click.command("revoke")
@click.argument("token_id")
@options
def apitoken_revoke(where: Where, as_json: bool, token_id: str) -> None:
    """Make an API token worthless at once."""
    with where.client() as client:
        answer = client.delete(f"/api-tokens/{in_path(token_id)}")
    _done(answer, as_json, f"API token {token_id} revoked")
