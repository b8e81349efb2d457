"""Verbs that list and show; none of them changes anything."""

from collections.abc import Mapping
from typing import Any

import click

from mesh.cli.context import Command, Where, in_path, options, print_json
from mesh.cli.errors import DEGRADED, Failure
from mesh.cli.tables import age, print_table, size


def listing(function: Command) -> Command:
    """Give a list verb --filter, --sort and --limit."""
    decorators = [
        click.option("--limit", type=click.IntRange(min=1), help="Most entries; default: all."),
        click.option("--sort", help="Field to sort by, as state,-name."),
        click.option("--filter", help="What to list, as site:fra1 state:!active web."),
    ]
    for decorate in decorators:
        function = decorate(function)
    return function


@click.command()
@click.option("--wait", "wait_s", type=float, help="Wait up to so many seconds until healthy.")
@options
def status(where: Where, as_json: bool, wait_s: float | None) -> None:
    """Say how the hub or node fares; exit code 3 when something is wrong."""
    from mesh.cli.follow import until

    def healthy() -> Any:
        with where.client() as client:
            answer = client.get("/status")
        return answer if answer["item"]["healthy"] else None

    if wait_s is not None:
        answer = until(healthy, wait_s, "healthy")
    else:
        with where.client() as client:
            answer = client.get("/status")
    if as_json:
        print_json(answer)
    else:
        item = answer["item"]
        click.echo(item["sentence"])
        for problem in item["problems"]:
            click.echo(f"  problem: {problem}")
        rows = [
            (
                peer["name"],
                peer["role"],
                peer["site"],
                age(peer["since_ms"], answer["as_of_ms"]),
            )
            for peer in item["peers"]
        ]
        print_table(("PEER", "ROLE", "SITE", "CONNECTED"), rows, "no peer is connected")
    if not answer["item"]["healthy"]:
        raise Failure("not healthy", DEGRADED)


@click.command("list")
@listing
@options
def site_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the sites."""
    answer = every(where, "/sites", as_json, asked)
    rows = [
        (s["name"], f"{s['nodes_reachable']}/{s['nodes']}", s["servers"], s["jobs_running"],
         age(s["last_contact_ms"], answer["as_of_ms"]))
        for s in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("SITE", "NODES", "SERVERS", "JOBS", "LAST CONTACT")
        print_table(columns, rows, "there are no sites yet: rackmesh token create --site NAME")


@click.command("list")
@listing
@options
def node_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the members of the mesh."""
    answer = every(where, "/nodes", as_json, asked)
    rows = [
        (n["name"], n["site"], ",".join(_roles(n)), n["status"],
         {True: "reachable", False: "unreachable", None: "unknown"}[n["reachable"]],
         age(n["last_contact_ms"], answer["as_of_ms"]), n["id"])
        for n in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("NODE", "SITE", "ROLES", "STATUS", "SEEN AS", "LAST CONTACT", "ID")
        print_table(columns, rows, "no node has joined yet")


@click.command("list")
@listing
@options
def server_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the accepted servers."""
    answer = every(where, "/servers", as_json, asked)
    rows = [
        (s["name"], s["site"], s["state_text"], s["image"], s["hostname"], s["ip"],
         s["error"] or s["summary"])
        for s in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("SERVER", "SITE", "STATE", "IMAGE", "HOSTNAME", "ADDRESS", "NOTE")
        print_table(columns, rows, "no server was accepted yet: rackmesh server pending")


@click.command("show")
@click.argument("server")
@options
def server_show(where: Where, as_json: bool, server: str) -> None:
    """Show one server by name or id."""
    show(where, f"/servers/{in_path(server)}", as_json)


@click.command("pending")
@click.option("--rejected", is_flag=True, help="List those that were put aside instead.")
@listing
@options
def server_pending(where: Where, as_json: bool, rejected: bool, **asked: Any) -> None:
    """List machines that were seen and not accepted."""
    kept = f"rejected:{'yes' if rejected else 'no'} {asked['filter'] or ''}"
    answer = every(where, "/pending", as_json, {**asked, "filter": kept})
    rows = [
        (p["mac"], p["site"], p["ip"], p["where"], p["port"],
         age(p["last_ms"], answer["as_of_ms"]), p["conflict"] or p["summary"])
        for p in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = (
            "MACHINE", "SITE", "ADDRESS", "SEEN BY", "PORT", "LAST SEEN", "WHAT IT IS",
        )  # fmt: skip
        print_table(columns, rows, "no unknown machine has been seen")
        if not rejected:
            _bmcs_beside(where)


def _bmcs_beside(where: Where) -> None:
    """Print the BMCs that were found and belong to no server, below the pending machines."""
    from mesh.cli.bmcs import print_bmcs

    with where.client() as client:
        answer = client.every("/bmcs", filter="server:none")
    if answer["items"]:
        click.echo()
        print_bmcs(answer, "")


@click.command("list")
@listing
@options
def asset_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List assets with where they are and what they cost."""
    answer = every(where, "/assets", as_json, asked)
    rows = [
        (a["name"], a["kind"], size(a["size"]) if a["size"] else "",
         r["site"] if r else "", _residency(r),
         size(r["origin_bytes"]) if r else "", size(r["peer_bytes"]) if r else "")
        for a in answer["items"]
        for r in (a["sites"] or [None])
    ]  # fmt: skip
    if not as_json:
        columns = ("ASSET", "KIND", "SIZE", "SITE", "STATE", "FROM ORIGIN", "FROM PEERS")
        print_table(columns, rows, "there are no assets yet: rackmesh asset add NAME FILE|URL")


def _residency(where: dict[str, Any] | None) -> str:
    if where is None:
        return "on no site"
    if where["state"] == "fetching":
        return f"fetching {where['have']} of {where['of']}"
    state = "present" if where["state"] == "verified" else where["state"]
    trouble = where["error"] or (where["stale"] and f"stale, {where['stale']}")
    return f"{state}: {trouble}" if trouble else str(state)


@click.command("show")
@click.argument("name")
@options
def asset_show(where: Where, as_json: bool, name: str) -> None:
    """Show one asset by name."""
    show(where, f"/assets/{in_path(name)}", as_json)


@click.command("list")
@listing
@options
def token_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List join tokens (never their secrets)."""
    answer = every(where, "/tokens", as_json, asked)
    rows = [
        (t["id"], t["site"], ",".join(t["roles"]), t["state"], t["used_by"])
        for t in answer["items"]
    ]
    if not as_json:
        print_table(("TOKEN", "SITE", "ROLES", "STATE", "USED BY"), rows, "there are no tokens")


@click.command("list")
@listing
@options
def secret_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List secrets and how many nodes could ever read them (never their values)."""
    answer = every(where, "/secrets", as_json, asked)
    rows = [
        (s["id"], s["kind"], s["site"], s["version"], len(s["released"]),
         age(s["changed_ms"], answer["as_of_ms"]))
        for s in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = ("SECRET", "KIND", "SITE", "VERSION", "NODES", "CHANGED")
        print_table(columns, rows, "there are no secrets")


def every(where: Where, path: str, as_json: bool, asked: dict[str, Any]) -> dict[str, Any]:
    """Read a whole list, or as much as --limit says; print it for --json."""
    with where.client() as client:
        answer: dict[str, Any] = client.every(path, **asked)
    if as_json:
        print_json(answer)
    elif answer["next"] is not None:
        click.echo(f"there are more than these {len(answer['items'])}", err=True)
    return answer


def show(where: Where, path: str, as_json: bool) -> None:
    """Read one resource and print it."""
    with where.client() as client:
        answer = client.get(path)
    if as_json:
        print_json(answer)
        return
    for line in lines_of(answer["item"]):
        click.echo(line)


def lines_of(value: Any, indent: str = "") -> list[str]:
    """Return a value in lines for people, what is inside indented."""
    if isinstance(value, dict):
        lines: list[str] = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines += [f"{indent}{key}:", *lines_of(item, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {_plain(item)}")
        return lines
    if isinstance(value, list):
        lines = []
        for item in value:
            inner = lines_of(item, indent + "  ")
            lines += [f"{indent}- {inner[0].strip()}", *inner[1:]] if inner else []
        return lines
    return [f"{indent}{_plain(value)}"]


def _plain(value: Any) -> str:
    return "-" if value is None or value in ([], {}) else str(value)


def _roles(node: Mapping[str, Any]) -> list[str]:
    """Return the roles of a member; that hubs relay goes without saying."""
    relays = node["relays"] and "hub" not in node["roles"]
    return [*node["roles"], *(["relay"] if relays else [])]
