"""Verbs that change something: jobs, tokens, secrets.

Each write prints what it made; work prints its job id and can be waited for.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json, read_secret_file
from mesh.cli.errors import NOT_FOUND, Failure
from mesh.cli.orders import give, one, repeatable, waiting

TTL_H_MAX = 30 * 24


@click.command("cancel")
@click.argument("job")
@repeatable
@options
def job_cancel(where: Where, as_json: bool, job: str, **more: Any) -> None:
    """Stop JOB at the next safe point."""
    one(where, as_json, more, kind="job.cancel", job=job)


@click.command("retry")
@click.argument("job")
@waiting
@repeatable
@options
def job_retry(where: Where, as_json: bool, job: str, **more: Any) -> None:
    """Take a failed or parked JOB up again where it stopped."""
    one(where, as_json, more, kind="job.retry", job=job)


@click.command("logs")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@options
def job_logs(where: Where, as_json: bool, job: str, follow: bool) -> None:
    """Print the log of JOB."""
    from mesh.cli.follow import ENDED, POLL_S

    after = 0
    with where.client() as client:
        while True:
            item = client.get(f"/jobs/{in_path(job)}")["item"]
            ended = item["state"] in ENDED
            if follow and item["runner"] is None and not ended:
                time.sleep(POLL_S)  # no node has taken it up yet
                continue
            for line in client.lines(f"/jobs/{in_path(job)}/logs", after=after):
                after = max(after, line.get("seq", after))
                click.echo(_json_line("line", line) if as_json else _log_line(line))
            if ended or not follow:
                return
            time.sleep(POLL_S)


def _json_line(noun: str, value: dict[str, Any]) -> str:
    return json.dumps({"schema": f"rackmesh/{noun}/1", **value})


@click.command("follow")
@options
def event_follow(where: Where, as_json: bool) -> None:
    """Print what changes, as it changes, until interrupted."""
    with where.client() as client:
        for event in client.events("/events"):
            if as_json:
                click.echo(_json_line("event", event))
            else:
                said = " ".join(f"{key}={value}" for key, value in event["data"].items())
                click.echo(f"{event['kind']} {said}")


def _log_line(line: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(line.get("at_ms", 0) / 1000, UTC)
    return f"{moment:%H:%M:%S} {line.get('text', '')}"


@click.command("create")
@click.option("--site", help="Site that the node will belong to; a hub belongs to none.")
@click.option("--role", "roles", multiple=True, default=("node",), show_default=True,
              help="Role to grant: node, site-operator (or both), or hub.")  # fmt: skip
@click.option(
    "--ttl-h", type=float, default=24.0, show_default=True, help="Hours it is good for."
)
@repeatable
@options
def token_create(
    where: Where, as_json: bool, site: str | None, roles: tuple[str, ...], ttl_h: float,
    key: str | None,
) -> None:  # fmt: skip
    """Make a join token for one node, or for one more hub; prints it once."""
    if site is None and roles != ("hub",):
        raise Failure("--site is needed: a node belongs to a site", 2)
    if not 0 < ttl_h <= TTL_H_MAX:
        raise Failure(f"--ttl-h is above 0 and at most {TTL_H_MAX}, not {ttl_h:g}", 2)
    body = {"site": site, "roles": list(roles), "ttl_s": max(1, int(ttl_h * 3600))}
    answer = give(where, "/tokens", body, key)
    print_json(answer) if as_json else click.echo(answer["item"]["token"])


@click.command("revoke")
@click.argument("token_id")
@options
def token_revoke(where: Where, as_json: bool, token_id: str) -> None:
    """Make an unused token worthless."""
    with where.client() as client:
        answer = client.delete(f"/tokens/{in_path(token_id)}")
    print_json(answer) if as_json else click.echo(f"token {token_id} revoked")


@click.command("release")
@click.option("--node", required=True, help="Name or id of the node that shall have them.")
@click.option(
    "--secret", "secret_ids", multiple=True,
    help="Id of a secret; may be repeated. Default: all that a node of its site can open.",
)  # fmt: skip
@waiting
@repeatable
@options
def secret_release(
    where: Where, as_json: bool, node: str, secret_ids: tuple[str, ...], **more: Any
) -> None:
    """Let a node that joined later have the secrets of its site.

    A node of the site that can open them seals them to it; nobody else sees them.
    """
    params = {"secrets": list(secret_ids)} if secret_ids else {}
    one(where, as_json, more, kind="secret.release", node=node, params=params)


@click.command("change")
@click.argument("secret_ids", nargs=-1, metavar="SECRET...")
@click.option("--exposed-to", "node", help="All that this node (name or id) could ever read.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@waiting
@repeatable
@options
def secret_change(
    where: Where, as_json: bool, secret_ids: tuple[str, ...], node: str | None, yes: bool,
    **more: Any,
) -> None:  # fmt: skip
    """Give every BMC that uses one of these secrets a new password.

    What is no BMC login, or used by no server, is named: it must be changed by hand.
    """
    from mesh.cli.servers import order_group

    if bool(secret_ids) == bool(node):
        raise Failure("say which secrets: either their ids or --exposed-to NODE", 2)
    with where.client() as client:
        known = client.every("/secrets")["items"]
        servers = client.every("/servers")["items"]
        wanted = set(secret_ids) or _exposed(client, known, str(node))
    unknown = sorted(set(secret_ids) - {secret["id"] for secret in known})
    if unknown:
        raise Failure(f"there is no secret {unknown[0]!r}; see rackmesh secret list", NOT_FOUND)
    found = [server for server in servers if server["bmc_secret"] in wanted]
    by_hand = sorted(wanted - {server["bmc_secret"] for server in found})
    if by_hand:
        text = "no server's BMC uses these, change them by hand and set them again"
        click.echo(f"{text}: {', '.join(by_hand)}", err=True)
    if not found:
        click.echo("there is no BMC password to change", err=True)
        return
    order_group(where, as_json, more, found, yes, "server.password",
                {}, "the BMC passwords of these will be changed:")  # fmt: skip


def _exposed(client: Any, known: list[dict[str, Any]], node: str) -> set[str]:
    """Return the ids of the secrets that a node could ever read and that still open."""
    found = [n["id"] for n in client.every("/nodes")["items"] if node in (n["id"], n["name"])]
    if len(found) != 1:
        text = "no node" if not found else f"{len(found)} nodes"
        raise Failure(f"there is {text} {node!r}; see rackmesh node list", NOT_FOUND)
    return {s["id"] for s in known if found[0] in s["released"] and s["retired_ms"] is None}


@click.command("set")
@click.argument("secret_id")
@click.option("--site", required=True, help="Site whose nodes may read it.")
@click.option(
    "--username", help="With this, the secret is a BMC login: the value is the password."
)
@click.option("--value-file", type=click.Path(path_type=Path, allow_dash=True), default="-",
              show_default=True, help="File with the value; - is standard input.")  # fmt: skip
@click.option("--bmc", help="https:// address whose certificate the login is bound to.")
@click.option("--bmc-tls-sha256", "pin", help="What it must be; without it you are asked.")
@options
def secret_set(
    where: Where, as_json: bool, secret_id: str, site: str, username: str | None,
    value_file: Path, bmc: str | None, pin: str | None,
) -> None:  # fmt: skip
    """Seal a secret to every node of a site; the value never stands in argv.

    With --bmc a node of the site looks at the certificate there, and the login is sent to this
    certificate alone, once you have said that the BMC itself shows the same fingerprint.
    """
    if (bmc is not None or pin is not None) and username is None:
        raise Failure("--bmc and --bmc-tls-sha256 go with --username", 2)
    login = {"username": username} if username is not None else None
    if login is not None and (bmc is not None or pin is not None):
        from mesh.cli.bmc import confirmed_pin

        login["tls_sha256"] = confirmed_pin(where, site, bmc, pin, str(value_file) == "-")
    value = read_secret_file(value_file)
    if not value:
        raise Failure("the secret is empty", 2)
    kind = "opaque"
    if login is not None:
        kind, value = "bmc", json.dumps({**login, "password": value})
    with where.client() as client:
        body = {"site": site, "kind": kind, "value": value}
        answer = client.put_json(f"/secrets/{in_path(secret_id)}", body)
    if as_json:
        print_json(answer)
    else:
        ever = len(answer["item"]["released"])
        click.echo(f"secret {secret_id} sealed to the nodes of {site}")
        click.echo(f"{ever} node{'' if ever == 1 else 's'} could ever read it", err=True)


@click.command("api")
@click.argument(
    "method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], case_sensitive=False)
)
@click.argument("path")
@click.option(
    "--body-file", type=click.Path(path_type=Path, allow_dash=True), help="JSON body."
)
@options
def api(where: Where, as_json: bool, method: str, path: str, body_file: Path | None) -> None:
    """Call the API as it is: rackmesh api GET /servers."""
    if not path.startswith("/") or path.startswith("//"):
        raise Failure(f"PATH begins with one slash, as /servers; not {path[:80]!r}", 2)
    try:
        body = json.loads(read_secret_file(body_file)) if body_file else {}
    except ValueError as exc:
        raise Failure(f"{body_file} is not JSON: {exc}", 2) from exc
    with where.client() as client:
        if method == "GET":
            print_json(client.get(path))
        elif method == "POST":
            print_json(client.post(path, body))
        elif method == "PUT":
            print_json(client.put_json(path, body))
        elif method == "PATCH":
            print_json(client.patch(path, body))
        else:
            print_json(client.delete(path))
