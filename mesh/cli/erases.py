"""Verbs for erased disks: what was erased, the file that proves it, and the policy."""

from html import escape
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import Failure
from mesh.cli.nouns import every, listing, show
from mesh.cli.tables import age, print_table, size
from mesh.proto.cleanup import LEVELS, METHODS, SAMPLES_LEAST, SAMPLES_MOST

REFUSED = 1
STYLE = (
    "body{font:11pt serif;max-width:46em;margin:2em auto}h1{font-size:16pt}"
    "th{text-align:left;padding-right:1em;vertical-align:top}td{word-break:break-all}"
)


@click.command("list")
@listing
@options
def erase_list(where: Where, as_json: bool, **asked: Any) -> None:
    """List the disks that were erased, the last one first."""
    answer = every(where, "/erase-records", as_json, asked)
    rows = [
        (e["id"], e["site"], e["server_name"], e["serial"], size(e["disk"]["bytes"]),
         e["method"], e["level"], said(e), age(e["ended_ms"], answer["as_of_ms"]))
        for e in answer["items"]
    ]  # fmt: skip
    if not as_json:
        columns = (
            "RECORD", "SITE", "SERVER", "SERIAL", "SIZE", "METHOD", "LEVEL", "PROOF", "AGE",
        )  # fmt: skip
        print_table(columns, rows, "no disk was erased yet: rackmesh server release NAME")


@click.command("show")
@click.argument("record")
@options
def erase_show(where: Where, as_json: bool, record: str) -> None:
    """Show all that the record RECORD says, as its node signed it."""
    with where.client() as client:
        answer = client.get(f"/erase-records/{in_path(record)}")
    if as_json:
        print_json(answer)
        return
    for line in _lines(answer["item"]["signed"]):
        click.echo(line)


@click.command("export")
@click.argument("record")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--html", is_flag=True, help="A page to read and print; it proves the same.")
@options
def erase_export(where: Where, as_json: bool, record: str, file: Path, html: bool) -> None:
    """Write to FILE what proves RECORD to anybody who knows the root's fingerprint."""
    with where.client() as client:
        item = client.get(f"/erase-records/{in_path(record)}")["item"]
    text = as_html(item["signed"], item["file"]) if html else item["file"] + "\n"
    try:
        file.write_text(text)
    except OSError as exc:
        raise Failure(f"{file} cannot be written: {exc.strerror}") from exc
    made = {"record": item["id"], "file": str(file), "bytes": len(text.encode())}
    if as_json:
        print_json({"schema": "rackmesh/erase-exported/1", "item": made})
    else:
        click.echo(f"{file}: check it anywhere with rackmesh erase verify {file} --root HEX")


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--root", required=True, help="The root's fingerprint, 40 hex digits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def erase_verify(file: Path, root: str, as_json: bool) -> None:
    """Check the FILE of an erase record, offline; exit code 1: it proves nothing.

    The fingerprint stands in rackmesh status --json; get it from whom you trust, not with FILE.
    """
    from mesh.errors import CodecError
    from mesh.proto.erase_record import FILE_BYTES_MAX, plain, verify_file
    from mesh.proto.ids import ROOT_FINGERPRINT_BYTES

    try:
        root_fp = bytes.fromhex(root.replace(":", ""))
    except ValueError:
        root_fp = b""
    if len(root_fp) != ROOT_FINGERPRINT_BYTES:
        raise Failure(
            f"--root is {2 * ROOT_FINGERPRINT_BYTES} hex digits, not {root[:60]!r}", 2
        )
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise Failure(f"{file} cannot be read: {exc.strerror}", 2) from exc
    try:
        verdict = verify_file(data, root_fp)
    except CodecError as exc:
        raise Failure(f"{file} proves nothing: {exc}", REFUSED) from exc
    body = plain(verdict.record)
    if as_json:
        item = {"holds": True, "node_status": verdict.node_status, "record": body}
        print_json({"schema": "rackmesh/erase-verified/1", "item": item})
        return
    disk = body["disk"]
    click.echo(
        f"the record holds: disk {disk['serial']} ({disk['model']}, {disk['bytes']} bytes) of"
        f" {body['server_name']}, by {body['method']}, level {body['level']}: {said(body)}"
    )
    click.echo(
        f"signed by node {body['node']} of site {body['site']}, {verdict.node_status} when the"
        " file was made"
    )


def said(record: dict[str, Any]) -> str:
    """Return the word for what a record proves."""
    word = "proved" if record["proved"] else "not proved"
    return f"{word} (method not proven on hardware)" if record["on_hardware"] else word


def as_html(record: dict[str, Any], file: str) -> str:
    """Return a page with a record in plain words, and the file that proves it inside."""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in record.items()
    )
    disk = record.get("disk") or {}
    inside = file.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Erase record {escape(str(record['id']))}</title><style>{STYLE}</style>"
        f"<h1>Disk {escape(str(disk.get('serial')))} was erased</h1>"
        f"<p>{escape(str(record['method']))}, NIST SP 800-88 level"
        f" {escape(str(record['level']))}: {escape(said(record))}.</p><table>{rows}</table>"
        "<p>This page proves itself: <code>rackmesh erase verify FILE --root"
        " FINGERPRINT</code>. What you read here is not what is checked.</p>"
        f'<script type="application/json">{inside}</script></html>\n'
    )


def _lines(record: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in record.items():
        if isinstance(value, dict):
            found += [f"{name}.{inner}: {item}" for inner, item in value.items()]
        else:
            found.append(f"{name}: {value}")
    return found


def _target(site: str | None, server: str | None) -> str:
    if (site is None) == (server is None):
        raise Failure("say --site SITE or --server SERVER", 2)
    if server is not None:
        return f"/servers/{in_path(server)}/cleanup-policy"
    return f"/sites/{in_path(str(site))}/cleanup-policy"


@click.command("show")
@click.option("--site", help="Show how this site erases disks.")
@click.option("--server", help="Show how this server's disks are erased.")
@options
def policy_show(where: Where, as_json: bool, site: str | None, server: str | None) -> None:
    """Show how disks are erased when a server is released."""
    show(where, _target(site, server), as_json)


@click.command("set")
@click.option("--site", help="Of this site.")
@click.option("--server", help="Of this server alone.")
@click.option("--level", type=click.Choice(LEVELS), help="What must be reached.")
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS),
              help="May be used; again for more, best first.")  # fmt: skip
@click.option("--fallback", multiple=True, type=click.Choice(METHODS),
              help="May run though it is below the level; again for more.")  # fmt: skip
@click.option("--no-fallback", is_flag=True, help="Hold a server that cannot reach the level.")
@click.option("--samples", type=click.IntRange(SAMPLES_LEAST, SAMPLES_MOST),
              help="Places that are looked at after the erase.")  # fmt: skip
@click.option("--inherit", is_flag=True, help="Let a server go by its site's again.")
@options
def policy_set(
    where: Where, as_json: bool, site: str | None, server: str | None, level: str | None,
    methods: tuple[str, ...], fallback: tuple[str, ...], no_fallback: bool,
    samples: int | None, inherit: bool,
) -> None:  # fmt: skip
    """Say how disks are erased when a server is released; what is not given stays as it is."""
    body: dict[str, Any] = {"level": level, "samples": samples}
    body |= {"methods": list(methods) or None, "inherit": inherit or None}
    body["fallback"] = [] if no_fallback else list(fallback) or None
    given = {name: value for name, value in body.items() if value is not None}
    if not given:
        raise Failure("nothing to set: give --level, --method, --fallback or --samples", 2)
    with where.client() as client:
        answer = client.put_json(_target(site, server), given)
    item = answer["item"]
    if as_json:
        print_json(answer)
    else:
        lower = ", ".join(item["fallback"]) or "none: such a server is held"
        click.echo(f"level {item['level']}, fallback {lower}")
