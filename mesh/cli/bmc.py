"""Verbs that ask a server's BMC, now: sensors, event log, versions, settings.

Rule: nothing is changed and nothing was kept, so each answer says how old it is. Exit code 7
means that the BMC has no answer, 5 that nobody could ask it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import CONFLICT, Failure
from mesh.cli.tables import age, print_table
from mesh.rest.health_words import limits, reading


@click.command("sensors")
@click.argument("server")
@options
def sensors(where: Where, as_json: bool, server: str) -> None:
    """Read the sensors of SERVER through its BMC, now."""
    rows = [
        (one["name"], one["kind"], reading(one), one["state"], limits(one))
        for one in _asked(where, as_json, server, "sensors", "readings")
    ]
    if not as_json:
        columns = ("SENSOR", "KIND", "READING", "STATE", "LIMITS")
        print_table(columns, rows, "the BMC shows no sensors")


@click.command("events")
@click.argument("server")
@options
def events(where: Where, as_json: bool, server: str) -> None:
    """Read the event log of SERVER's BMC, newest first; nothing is cleared."""
    rows = [
        (moment(one["at_ms"]), one["severity"], one["message"], one["id"])
        for one in _asked(where, as_json, server, "events", "entries")
    ]
    if not as_json:
        print_table(("TIME (UTC)", "SEVERITY", "EVENT", "ID"), rows, "the event log is empty")


@click.command("firmware")
@click.argument("server")
@options
def firmware(where: Where, as_json: bool, server: str) -> None:
    """Show the firmware versions that SERVER's BMC names."""
    rows = [
        (one["name"], one["version"])
        for one in _asked(where, as_json, server, "firmware", "components")
    ]
    if not as_json:
        print_table(("FIRMWARE", "VERSION"), rows, "the BMC names no firmware")


@click.command("show")
@click.argument("server")
@options
def bios_show(where: Where, as_json: bool, server: str) -> None:
    """Show the firmware settings of SERVER, and which hold from its next start."""
    with where.client() as client:
        answer = client.get(f"/servers/{in_path(server)}/bios")
    if as_json:
        print_json(answer)
        return
    item = answer["item"]
    _say_age(answer)
    current, pending = item["current"], item["pending"]
    waits = {name: str(value) for name, value in pending.items() if current.get(name) != value}
    rows = [
        (name, current.get(name), waits.get(name, "")) for name in sorted({*current, *waits})
    ]
    print_table(("SETTING", "NOW", "FROM THE NEXT START"), rows, "the BMC shows no settings")


def _asked(
    where: Where, as_json: bool, server: str, what: str, field: str
) -> Sequence[dict[str, Any]]:
    with where.client() as client:
        answer = client.get(f"/servers/{in_path(server)}/{what}")
    if as_json:
        print_json(answer)
    else:
        _say_age(answer)
        if answer["item"].get("more"):
            click.echo("the log has older entries, which are not shown", err=True)
    found: list[dict[str, Any]] = answer["item"][field]
    return found


def _say_age(answer: dict[str, Any]) -> None:
    item = answer["item"]
    for attempt in item["attempts"]:
        if attempt["outcome"] != "done":
            click.echo(f"tried first: {attempt['outcome']}", err=True)
    read = age(item["read_ms"], max(item["read_ms"], answer["as_of_ms"]))
    click.echo(f"read {read} ago by node {item['node']}", err=True)


def moment(at_ms: int | None) -> str:
    """Return a time of the BMC's clock; it may never have been set."""
    if at_ms is None:
        return "clock not set"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def confirmed_pin(
    where: Where, site: str, bmc: str | None, pin: str | None, stdin_taken: bool
) -> str:
    """Return the certificate's SHA-256 that a person has seen at the BMC, as 64 hex digits."""
    wanted = None if pin is None else pin.replace(":", "").strip().lower()
    if wanted is not None and (len(wanted) != 64 or set(wanted) - set("0123456789abcdef")):
        raise Failure("--bmc-tls-sha256 must be 64 hexadecimal digits", 2)
    if bmc is None:
        assert wanted is not None
        return wanted
    if wanted is None and stdin_taken:
        raise Failure("give the password in --value-file FILE, so that you can be asked", 2)
    with where.client() as client:
        path = f"/sites/{in_path(site)}/bmc-certificate"
        shown = client.get(path, url=bmc)["item"]
    digits = shown["sha256"].upper()
    grouped = ":".join(digits[i : i + 2] for i in range(0, 64, 2))
    until = moment(shown["until_ms"]) if shown["until_ms"] else "unknown"
    name = shown["subject"] or "without a readable name"
    click.echo(
        f"{bmc} shows the certificate {name}, valid until {until}, with the SHA-256"
        f" fingerprint\n  {grouped}",
        err=True,
    )
    if wanted is None:
        click.confirm("Does the BMC itself show the same fingerprint?", abort=True, err=True)
    elif wanted != shown["sha256"]:
        raise Failure(f"that is not the certificate {wanted[:16]}... that you named", CONFLICT)
    found: str = shown["sha256"]
    return found
