"""Verbs on the mesh itself: how it fares, who is linked, who sees whom, how far behind."""

from typing import Any

import click

from mesh.cli.context import Where, options, print_json
from mesh.cli.errors import DEGRADED, Failure
from mesh.cli.tables import age, print_table, size


@click.command("status")
@options
def mesh_status(where: Where, as_json: bool) -> None:
    """Say how the mesh looks from here; exit code 3 when a near member is away."""
    answer = _get(where, "/mesh")
    item, now_ms = answer["item"], answer["as_of_ms"]
    if as_json:
        print_json(answer)
    else:
        click.echo(item["sentence"])
        words = [f"{number} {status}" for status, number in sorted(item["members"].items())]
        click.echo(f"members: {', '.join(words)}; sets held: {item['sets']}")
        if item["gateways"]:
            click.echo(f"gateways of this site: {', '.join(_names(item))}")
        rows = [
            (one["name"], one["site"] or "-", one["role"], age(one["since_ms"], now_ms),
             "its site" if one["by"] == "site" else "no link from here")
            for one in item["away"]
        ]  # fmt: skip
        columns = ("OUT OF REACH", "SITE", "ROLE", "SINCE", "WHO SAYS SO")
        print_table(columns, rows, "nobody is out of reach")
    if not item["healthy"]:
        raise Failure("not healthy", DEGRADED)


@click.command("peers")
@options
def mesh_peers(where: Where, as_json: bool) -> None:
    """List the links of this hub or node."""
    answer = _get(where, "/mesh")
    if as_json:
        print_json(answer)
        return
    now_ms = answer["as_of_ms"]
    rows = [
        (one["name"], one["site"] or "-", one["role"], one["path"], one["address"],
         _round_trip(one["round_trip_ms"]), size(one["bytes_in"]), size(one["bytes_out"]),
         age(one["since_ms"], now_ms), age(one["synced_ms"], now_ms))
        for one in answer["item"]["links"]
    ]  # fmt: skip
    columns = (
        "PEER", "SITE", "ROLE", "PATH", "ADDRESS", "ROUND TRIP", "IN", "OUT", "UP", "COMPARED",
    )  # fmt: skip
    print_table(columns, rows, "there is no link to any member")


@click.command("topology")
@options
def mesh_topology(where: Where, as_json: bool) -> None:
    """Show who has links with whom; asks every linked member now (up to 3 seconds)."""
    answer = _get(where, "/mesh/topology")
    if as_json:
        print_json(answer)
        return
    item = answer["item"]
    named = {node["node"]: node for node in item["nodes"]}
    click.echo(f"{item['answered']} of {item['asked']} linked members said what they see")
    for part in item["parts"]:
        where_ = "this part" if part["here"] else "a part of its own"
        sites = ", ".join(part["sites"]) or "no site"
        click.echo(f"{where_}: {part['nodes']} members, {sites}")
    if item["unknown"]:
        click.echo(f"not seen: {', '.join(named[n]['name'] for n in item['unknown'])}")
    rows = [
        (_called(named[edge["a"]]), _called(named[edge["b"]]), edge["path"],
         _round_trip(edge["round_trip_ms"]), "both" if edge["said_by"] == 2 else "one")
        for edge in item["edges"]
    ]  # fmt: skip
    print_table(("MEMBER", "MEMBER", "PATH", "ROUND TRIP", "SAID BY"), rows, "no links")


@click.command("lag")
@options
def mesh_lag(where: Where, as_json: bool) -> None:
    """Show how fresh it is: comparisons with peers, and the newest change known of a site."""
    answer = _get(where, "/mesh")
    if as_json:
        print_json(answer)
        return
    item, now_ms = answer["item"], answer["as_of_ms"]
    rows = [
        (one["site"] or "(hubs)", one["members"], one["linked"], one["away"],
         age(one["newest_ms"], now_ms))
        for one in item["sites"]
    ]  # fmt: skip
    columns = ("SITE", "MEMBERS", "LINKED", "OUT OF REACH", "NEWEST CHANGE")
    print_table(columns, rows, "no member is known")
    pairs = sorted(item["links"], key=lambda one: one["synced_ms"] or 0)
    late = [(one["name"], one["site"] or "-", age(one["synced_ms"], now_ms)) for one in pairs]
    click.echo("")
    print_table(("PEER", "SITE", "COMPARED"), late, "there is no link to any member")


def _get(where: Where, path: str) -> Any:
    with where.client() as client:
        return client.get(path)


def _names(item: Any) -> list[str]:
    """Return the gateways by name where a link tells it."""
    known = {one["node"]: one["name"] for one in (*item["links"], *item["away"])}
    known[item["node"]] = item["name"]
    return [known.get(node, node[:8]) for node in item["gateways"]]


def _called(node: Any) -> str:
    where = f"@{node['site']}" if node["site"] else ""
    return f"{node['name']}{where}{'*' if node['gateway'] else ''}"


def _round_trip(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.1f} ms"
