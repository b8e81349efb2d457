"""Verbs that change something: servers, jobs, tokens, secrets.

Each write prints what it made; work prints its job id and can be waited for.
"""

import json
import secrets
import time
from datetime import UTC, datetime
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

TTL_H_MAX = 30 * 24


def waiting(function: Command) -> Command:
    """Give an order verb --wait and --timeout."""
    function = click.option("--timeout", "timeout_s", type=float, help="Most seconds to wait.")(
        function
    )
    return click.option("--wait", is_flag=True, help="Watch the job to its end.")(function)


def _order(
    where: Where, as_json: bool, wait: bool, timeout_s: float | None, **body: Any
) -> None:
    from mesh.cli.follow import follow_job, follow_verb

    body["idempotency_key"] = secrets.token_hex(16)
    with where.client() as client:
        answer = client.post("/orders", body)
    job = answer["item"]["job"]
    if not wait:
        if as_json:
            print_json(answer)
        else:
            click.echo(f"job {job}")
            click.echo(f"watch it: rackmesh job logs -f {job}", err=True)
        return
    click.echo(f"job {job}", err=True)
    if body["kind"] == "job.retry":  # the job has ended once: it counts from the verb on
        follow_verb(where, answer["item"]["order"], timeout_s)
    item = follow_job(where, job, timeout_s)
    if as_json:
        print_json({"schema": "rackmesh/job/1", "item": item})
    else:
        click.echo(f"{item['kind']} of {item['server_name'] or item['server']}: succeeded")


@click.command("accept")
@click.argument("machine")
@click.argument("name")
@click.option(
    "--bmc", help="Its BMC: Redfish URL of the ComputerSystem, or ipmi://HOST[:PORT]."
)
@click.option("--bmc-secret", help="Id of the secret with the BMC's user name and password.")
@waiting
@options
def server_accept(
    where: Where, as_json: bool, machine: str, name: str, bmc: str | None,
    bmc_secret: str | None, wait: bool, timeout_s: float | None,
) -> None:  # fmt: skip
    """Make the pending MACHINE (its MAC) a server called NAME. Writes no disk."""
    if bmc_secret and not bmc:
        raise Failure("--bmc-secret needs --bmc URL", 2)
    params = {"name": name, "bmc": {"url": bmc, "secret": bmc_secret} if bmc else None}
    _order(
        where, as_json, wait, timeout_s, kind="server.accept", machine=machine, params=params
    )


@click.command("reject")
@click.argument("machine")
@click.option("--site", help="The site that is meant where several have seen it.")
@options
def server_reject(where: Where, as_json: bool, machine: str, site: str | None) -> None:
    """Put the pending MACHINE (its MAC) aside; it is not touched."""
    _verdict(where, as_json, machine, site, "reject", "was put aside")


@click.command("restore")
@click.argument("machine")
@click.option("--site", help="The site that is meant where several have seen it.")
@options
def server_restore(where: Where, as_json: bool, machine: str, site: str | None) -> None:
    """Take back that the pending MACHINE (its MAC) was put aside."""
    _verdict(where, as_json, machine, site, "restore", "waits to be accepted again")


def _verdict(
    where: Where, as_json: bool, machine: str, site: str | None, verb: str, done: str
) -> None:
    with where.client() as client:
        answer = client.post(f"/pending/{in_path(machine)}/{verb}", {"site": site})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['item']['mac']} of site {answer['item']['site']} {done}")


@click.command("deploy")
@click.argument("server")
@click.option("--image", required=True, help="Name of the image asset.")
@click.option(
    "--hostname", help="Host name of the installed system; default: the server's name."
)
@click.option(
    "--ssh-key", "ssh_keys", multiple=True,
    help="SSH public key to admit, or @FILE with one; may be given more than once.",
)  # fmt: skip
@waiting
@options
def server_deploy(
    where: Where, as_json: bool, server: str, image: str, hostname: str | None,
    ssh_keys: tuple[str, ...], wait: bool, timeout_s: float | None,
) -> None:  # fmt: skip
    """Install an image on SERVER's disk and wait for the system to phone in."""
    keys = [read_secret_file(Path(key[1:])) if key.startswith("@") else key for key in ssh_keys]
    params = {"image": image, "hostname": hostname, "ssh_keys": keys}
    _order(where, as_json, wait, timeout_s, kind="server.deploy", server=server, params=params)


@click.command("release")
@click.argument("server")
@click.option("--yes", is_flag=True, help="Do not ask: the disk is wiped.")
@waiting
@options
def server_release(
    where: Where, as_json: bool, server: str, yes: bool, wait: bool, timeout_s: float | None
) -> None:
    """Wipe SERVER's disk, read it back, and make the server available."""
    if not yes:
        click.confirm(
            f"Every byte on the disk of {server} will be overwritten. Go on?", abort=True
        )
    _order(where, as_json, wait, timeout_s, kind="server.release", server=server, params={})


@click.command("power")
@click.argument("server")
@click.argument("target", type=click.Choice(["on", "off"]))
@waiting
@options
def server_power(
    where: Where, as_json: bool, server: str, target: str, wait: bool, timeout_s: float | None
) -> None:
    """Switch SERVER on or off through its BMC."""
    params = {"on": target == "on"}
    _order(where, as_json, wait, timeout_s, kind="server.power", server=server, params=params)


@click.command("cancel")
@click.argument("job")
@options
def job_cancel(where: Where, as_json: bool, job: str) -> None:
    """Stop JOB at the next safe point."""
    _order(where, as_json, False, None, kind="job.cancel", job=job, params={})


@click.command("retry")
@click.argument("job")
@waiting
@options
def job_retry(
    where: Where, as_json: bool, job: str, wait: bool, timeout_s: float | None
) -> None:
    """Take a failed or parked JOB up again where it stopped."""
    _order(where, as_json, wait, timeout_s, kind="job.retry", job=job, params={})


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
                click.echo(json.dumps(line) if as_json else _log_line(line))
            if ended or not follow:
                return
            time.sleep(POLL_S)


def _log_line(line: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(line.get("at_ms", 0) / 1000, UTC)
    return f"{moment:%H:%M:%S} {line.get('text', '')}"


@click.command("create")
@click.option("--site", required=True, help="Site that the node will belong to.")
@click.option("--role", "roles", multiple=True, default=("node",), show_default=True,
              help="Role to grant: node, site-operator; may be repeated.")  # fmt: skip
@click.option(
    "--ttl-h", type=float, default=24.0, show_default=True, help="Hours it is good for."
)
@options
def token_create(
    where: Where, as_json: bool, site: str, roles: tuple[str, ...], ttl_h: float
) -> None:
    """Make a join token for one node; prints it once."""
    if not 0 < ttl_h <= TTL_H_MAX:
        raise Failure(f"--ttl-h is above 0 and at most {TTL_H_MAX}, not {ttl_h:g}", 2)
    body = {"site": site, "roles": list(roles), "ttl_s": max(1, int(ttl_h * 3600))}
    with where.client() as client:
        answer = client.post("/tokens", body)
    print_json(answer) if as_json else click.echo(answer["item"]["token"])


@click.command("revoke")
@click.argument("token_id")
@options
def token_revoke(where: Where, as_json: bool, token_id: str) -> None:
    """Make an unused token worthless."""
    with where.client() as client:
        answer = client.delete(f"/tokens/{in_path(token_id)}")
    print_json(answer) if as_json else click.echo(f"token {token_id} revoked")


@click.command("set")
@click.argument("secret_id")
@click.option("--site", required=True, help="Site whose nodes may read it.")
@click.option(
    "--username", help="With this, the secret is a BMC login: the value is the password."
)
@click.option("--value-file", type=click.Path(path_type=Path, allow_dash=True), default="-",
              show_default=True, help="File with the value; - is standard input.")  # fmt: skip
@options
def secret_set(
    where: Where,
    as_json: bool,
    secret_id: str,
    site: str,
    username: str | None,
    value_file: Path,
) -> None:
    """Seal a secret to every node of a site; the value never stands in argv."""
    value = read_secret_file(value_file)
    if not value:
        raise Failure("the secret is empty", 2)
    kind = "opaque"
    if username is not None:
        kind, value = "bmc", json.dumps({"username": username, "password": value})
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
