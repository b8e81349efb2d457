"""Verbs on BMCs: look for them in a site's networks, and list what was found."""

from typing import Any

import click

from mesh.cli.context import Where, options
from mesh.cli.nouns import every, listing
from mesh.cli.orders import one, repeatable, waiting
from mesh.cli.tables import age, print_table

FINGERPRINT_CHARS = 16


@click.command("scan")
@click.argument("networks", nargs=-1, metavar="[NETWORK ...]")
@click.option("--site", help="Site whose nodes look; a node's own by default.")
@click.option(
    "--port", "ports", type=click.IntRange(1, 65535), multiple=True,
    help="TCP port of Redfish; may repeat. Default: 443 by TLS, then 80.",
)  # fmt: skip
@click.option("--rmcp-port", type=click.IntRange(1, 65535), help="UDP port of IPMI: 623.")
@waiting
@repeatable
@options
def bmc_scan(
    where: Where, as_json: bool, networks: tuple[str, ...], site: str | None,
    ports: tuple[int, ...], rmcp_port: int | None, **more: Any,
) -> None:  # fmt: skip
    """Let a node of a site look for BMCs in NETWORKs, as 10.9.0.0/24.

    Without any it takes [interfaces] oob_networks of the node; at most 4,096 addresses. It
    reads the Redfish service root and pings by IPMI; nobody is logged in. What it finds stands
    in: rackmesh bmc list.
    """
    params: dict[str, Any] = {"networks": list(networks)}
    if ports:
        params["ports"] = list(ports)
    if rmcp_port:
        params["rmcp_port"] = rmcp_port
    about = {"site": site} if site else {}
    one(where, as_json, more, kind="bmc.scan", params=params, **about)


@click.command("list")
@listing
@options
def bmc_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the BMCs that scans have found, with the servers that have them."""
    answer = every(where, "/bmcs", as_json, asked)
    if not as_json:
        print_bmcs(answer, "no BMC was found yet: rackmesh bmc scan --site SITE NETWORK")


def print_bmcs(answer: dict[str, Any], nothing: str) -> None:
    """Print a table of them."""
    rows = [
        (b["url"], b["site"], ", ".join(b["servers"]), what(b), b["uuid"],
         (b["tls_sha256"] or "")[:FINGERPRINT_CHARS], age(b["last_ms"], answer["as_of_ms"]))
        for b in answer["items"]
    ]  # fmt: skip
    columns = ("BMC", "SITE", "SERVER", "WHAT IT IS", "UUID", "CERTIFICATE", "LAST SEEN")
    print_table(columns, rows, nothing)


def what(bmc: dict[str, Any]) -> str:
    """Return maker, product and protocols of a BMC in a few words."""
    words = [bmc["vendor"] or "", bmc["product"] or ""]
    if bmc["redfish"]:
        words.append(f"Redfish {bmc['version'] or ''}".strip())
    if bmc["ipmi"]:
        words.append(f"IPMI {bmc['ipmi_version'] or ''}".strip())
    return " ".join(word for word in words if word)
