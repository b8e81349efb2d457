"""Giving orders from the command line: what every verb that asks for work has in common.

Rule: each request has a key, so that one whose answer was lost can be repeated with
``--idempotency-key`` and is carried out once.
"""

import secrets
from typing import Any

import click

from mesh.cli.context import Command, Where, print_json


def waiting(function: Command) -> Command:
    """Give an order verb --wait, --timeout and --valid-s."""
    function = click.option(
        "--valid-s", type=click.IntRange(1, 24 * 3600),
        help="Seconds in which the site must begin it, else it runs out; default: a day.",
    )(function)  # fmt: skip
    function = click.option("--timeout", "timeout_s", type=float, help="Most seconds to wait.")(
        function
    )
    return click.option("--wait", is_flag=True, help="Watch the work to its end.")(function)


def repeatable(function: Command) -> Command:
    """Give a writing verb --idempotency-key."""
    return click.option(
        "--idempotency-key", "key", help="Repeat a request whose answer was lost: same key."
    )(function)


def give(where: Where, path: str, body: Any, key: str | None) -> Any:
    """POST a request under a key and return its answer."""
    with where.client() as client:
        return client.post(path, body, key or secrets.token_hex(16))


def within(more: dict[str, Any]) -> dict[str, int]:
    """Return what --valid-s adds to a request."""
    return {"valid_s": more["valid_s"]} if more.get("valid_s") else {}


def one(where: Where, as_json: bool, more: dict[str, Any], **body: Any) -> None:
    """Give one order, and watch its job when ``--wait`` says so.

    ``more`` holds the values of ``waiting`` (or nothing of it) and ``repeatable``.
    """
    from mesh.cli.follow import follow_job, follow_verb

    body |= within(more)
    answer = give(where, "/orders", body, more["key"])
    job = answer["item"]["job"]
    if not more.get("wait"):
        if as_json:
            print_json(answer)
        else:
            click.echo(f"job {job}")
            click.echo(f"watch it: rackmesh job logs -f {job}", err=True)
        return
    click.echo(f"job {job}", err=True)
    if body["kind"] == "job.retry":  # the job has ended once: it counts from the verb on
        follow_verb(where, answer["item"]["order"], more["timeout_s"])
    item = follow_job(where, job, more["timeout_s"])
    if as_json:
        print_json({"schema": "rackmesh/job/1", "item": item})
    else:
        about = item["server_name"] or item["server"] or item["site"]
        click.echo(f"{item['kind']} of {about}: succeeded")
