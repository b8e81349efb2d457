"""Verbs for assets: register, clone, want, take away, export.

What a local file is, is told by its first bytes before anything is sent; of a URL only its name
is known here, and the node that reads it looks at the bytes (mesh/proto/content.py).
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import Failure
from mesh.cli.follow import until
from mesh.cli.orders import give, repeatable
from mesh.cli.tables import size
from mesh.proto.content import (
    FILE,
    HEAD_BYTES,
    IMAGE,
    KINDS,
    LIVE,
    guess,
    guess_by_name,
    why_no_kernel,
    why_not,
)
from mesh.proto.references import PERIOD_MS_MAX, PERIOD_MS_MIN

READ_BYTES: Final = 1 << 20
URLS: Final = ("http://", "https://")
BY_NAME: Final = "asset:"


def period(_context: object, _option: object, text: str | None) -> int | None:
    """Return the seconds of a period in hours or days, 0 for never; None: not given."""
    if text is None or text == "never":
        return None if text is None else 0
    match = re.fullmatch(r"([0-9]{1,4})([hd])", text)
    seconds = int(match[1]) * (3600 if match[2] == "h" else 86_400) if match else 0
    if not PERIOD_MS_MIN <= seconds * 1000 <= PERIOD_MS_MAX:
        raise Failure(f"--revalidate takes 1h to 365d, or never, not {text[:40]!r}", 2)
    return seconds


@click.command("add")
@click.argument("name")
@click.argument("source", metavar="[FILE|URL]", required=False)
@click.option(
    "--kind", type=click.Choice([*KINDS, "raw"]),
    help="What it is; default: what its first bytes say, of a URL its name. raw is image.",
)  # fmt: skip
@click.option("--sha256", help="What the content as published must hash to.")
@click.option("--kernel", help="Of a live system: FILE, URL or asset:NAME.")
@click.option("--initrd", "initrds", multiple=True,
              help="Of a live system: FILE, URL or asset:NAME; may be repeated.")  # fmt: skip
@click.option("--cmdline", help="Kernel command line of a live system.")
@click.option("--want", "want", multiple=True, help="Site that shall hold it; may be repeated.")
@click.option("--revalidate", metavar="24h|never", callback=period,
              help="How often sites ask the URL for other content; default: 24h.")  # fmt: skip
@options
def asset_add(
    where: Where, as_json: bool, name: str, source: str | None, kind: str | None,
    sha256: str | None, kernel: str | None, initrds: tuple[str, ...], cmdline: str | None,
    want: tuple[str, ...], revalidate: int | None,
) -> None:  # fmt: skip
    """Register a raw or qcow2 disk image, an ISO, a live system or a file.

    By URL, or by uploading FILE to the hub. A live system has --kernel and --initrd instead of
    a FILE or URL.
    """
    kind = IMAGE if kind == "raw" else kind
    live = kind == LIVE or kernel is not None
    body: dict[str, Any] = {"name": name, "sha256": sha256, "want": list(want)}
    if revalidate is not None:
        if live or source is None or not source.startswith(URLS):
            raise Failure("--revalidate goes with a URL; a live system's parts are files", 2)
        body["revalidate_s"] = revalidate
    if live and (source or sha256 or kind not in (None, LIVE) or kernel is None):
        raise Failure("a live system takes --kernel and --initrd, no FILE, URL or --sha256", 2)
    if not live and (source is None or initrds or cmdline is not None):
        raise Failure("give a FILE or URL; --initrd and --cmdline go with --kernel", 2)
    with where.client() as client:
        if kernel is not None:
            parts = [("kernel", f"{name}.kernel", kernel)]
            parts += [
                ("initrd", f"{name}.initrd{number or ''}", given)
                for number, given in enumerate(initrds)
            ]
            answer = _add_live(client, body, parts, cmdline)
        else:
            assert source is not None
            answer = _add(client, body, source, kind)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"asset {name} registered")


def _add_live(
    client: Any, body: dict[str, Any], parts: list[tuple[str, str, str]], cmdline: str | None
) -> Any:
    members: list[dict[str, str]] = []
    for role, name, given in parts:
        if given.startswith(BY_NAME):
            name = given.removeprefix(BY_NAME)
        else:
            _add(client, {"name": name}, given, FILE, role)
        members.append({"role": role, "name": name})
    declared = {**body, "kind": LIVE, "members": members, "cmdline": cmdline}
    return client.post("/assets", declared)


def _add(
    client: Any, body: dict[str, Any], source: str, kind: str | None, role: str = ""
) -> Any:
    if source.startswith(URLS):
        return client.post(
            "/assets", {**body, "url": source, "kind": kind or guess_by_name(source)}
        )
    path = Path(source)
    try:
        total = path.stat().st_size
        file = path.open("rb")
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {exc.strerror}", 2) from exc
    with file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        kind = kind or guess(head)
        wrong = why_no_kernel(head) if role == "kernel" else why_not(kind, head)
        if wrong is not None:
            raise Failure(f"{path} {wrong}", 2)
        click.echo(f"uploading {path.name} as {kind}, {size(total)}", err=True)
        client.post("/assets", {**body, "url": None, "kind": kind})
        return client.put(f"/assets/{in_path(body['name'])}/content", _pieces(file), total)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(READ_BYTES):
        yield piece


@click.command("clone")
@click.argument("old")
@click.argument("new")
@click.option("--cmdline", help="Another kernel command line, of a live system.")
@click.option("--want", "want", multiple=True, help="Site that shall hold it; may be repeated.")
@repeatable
@options
def asset_clone(
    where: Where, as_json: bool, old: str, new: str, cmdline: str | None,
    want: tuple[str, ...], key: str | None,
) -> None:  # fmt: skip
    """Make NEW another name for the content of OLD; no byte is copied."""
    body = {"name": new, "cmdline": cmdline, "want": list(want)}
    answer = give(where, f"/assets/{in_path(old)}/clone", body, key)
    print_json(answer) if as_json else click.echo(f"{new} has the content of {old}")


@click.command("want")
@click.argument("name")
@click.argument("site")
@repeatable
@options
def asset_want(where: Where, as_json: bool, name: str, site: str, key: str | None) -> None:
    """Make SITE hold the asset NAME."""
    answer = give(where, f"/assets/{in_path(name)}/want", {"site": site}, key)
    print_json(answer) if as_json else click.echo(f"{site} will fetch {name}")


@click.command("unwant")
@click.argument("name")
@click.argument("site")
@options
def asset_unwant(where: Where, as_json: bool, name: str, site: str) -> None:
    """Let SITE drop the asset NAME when it needs the room."""
    with where.client() as client:
        answer = client.delete(f"/assets/{in_path(name)}/want/{in_path(site)}")
    print_json(answer) if as_json else click.echo(f"{site} may drop {name}")


@click.command("pin")
@click.argument("name")
@click.argument("site")
@options
def asset_pin(where: Where, as_json: bool, name: str, site: str) -> None:
    """Let what SITE holds of the asset NAME stay there, whether it wants it or not.

    Nothing is fetched: `asset seed` does that.
    """
    with where.client() as client:
        answer = client.put_json(f"/assets/{in_path(name)}/pin/{in_path(site)}", {})
    print_json(answer) if as_json else click.echo(f"{name} stays at {site}")


@click.command("unpin")
@click.argument("name")
@click.argument("site")
@options
def asset_unpin(where: Where, as_json: bool, name: str, site: str) -> None:
    """Take the pin of the asset NAME at SITE away."""
    with where.client() as client:
        answer = client.delete(f"/assets/{in_path(name)}/pin/{in_path(site)}")
    print_json(answer) if as_json else click.echo(f"{name} is not pinned at {site} any more")


@click.command("seed")
@click.argument("name")
@click.option("--site", "sites", multiple=True, required=True, help="Site; may be repeated.")
@click.option("--wait", "wait_s", type=float, help="Seconds to wait at most; default: no end.")
@options
def asset_seed(
    where: Where, as_json: bool, name: str, sites: tuple[str, ...], wait_s: float | None
) -> None:
    """Make sites hold the asset NAME, and wait until they do.

    Exit code 8: it took longer than --wait says; the sites go on.
    """
    with where.client() as client:
        for site in sites:
            client.post(f"/assets/{in_path(name)}/want", {"site": site})
        said = ""

        def there() -> Any:
            nonlocal said
            answer = client.get(f"/assets/{in_path(name)}")
            here = [r for r in answer["item"]["sites"] if r["site"] in sites]
            line = "; ".join(_seeding(r) for r in here)
            if line != said:
                click.echo(line, err=True)
                said = line
            return answer if all(r["state"] == "verified" for r in here) else None

        answer = until(there, math.inf if wait_s is None else wait_s, f"{name} at its sites")
    print_json(answer) if as_json else click.echo(f"{name} is at {', '.join(sites)}")


def _seeding(where: dict[str, Any]) -> str:
    of = f", {where['have']} of {where['of']} chunks" if where["of"] else ""
    error = f" ({where['error']})" if where["error"] else ""
    return f"{where['site']}: {where['state']}{of}{error}"


@click.command("remove")
@click.argument("name")
@options
def asset_remove(where: Where, as_json: bool, name: str) -> None:
    """Take the name NAME away, unless something rests on it.

    Sites drop the content when they need the room. The name stays bound to its content: it can
    be registered again for the same.
    """
    with where.client() as client:
        answer = client.delete(f"/assets/{in_path(name)}")
    print_json(answer) if as_json else click.echo(f"asset {name} removed")


@click.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite FILE when it exists.")
@options
def asset_export(where: Where, as_json: bool, name: str, file: Path, force: bool) -> None:
    """Write the content of NAME into FILE and print its SHA-256.

    It is checked while it comes. What a broken transfer left in FILE.part is checked and gone
    on with the next time.
    """
    if file.exists() and not force:
        raise Failure(f"{file} exists; --force overwrites it", 2)
    with where.client() as client:
        item = client.get(f"/assets/{in_path(name)}")["item"]
        if item["kind"] == LIVE:
            parts = ", ".join(member["name"] for member in item["members"])
            raise Failure(f"{name} is a live system: export its members, {parts}")
        if item["sha256"] is None:
            raise Failure(f"the content of {name} is not known yet")
        sha256 = _export(client, item, file)
    told = {"name": name, "file": str(file), "bytes": item["size"], "sha256": sha256}
    if as_json:
        print_json({"schema": "rackmesh/export/1", "item": {**told, "asset": item["asset"]}})
    else:
        click.echo(f"{sha256}  {file}")


def _export(client: Any, item: dict[str, Any], file: Path) -> str:
    part = file.with_name(f"{file.name}.{item['sha256'][:12]}.part")
    try:
        with part.open("a+b") as out:
            digest = hashlib.sha256()
            out.seek(0)
            while piece := out.read(READ_BYTES):
                digest.update(piece)
            have, size = out.tell(), item["size"]
            if have:
                click.echo(f"{part} has {have} of {size} bytes; going on there", err=True)
            if have < size:
                for piece in client.pieces(f"/assets/{in_path(item['name'])}/content", have):
                    digest.update(piece)
                    out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != item["sha256"]:
            part.unlink()
            raise Failure(
                f"what came of {item['name']} hashes to {digest.hexdigest()}, not to"
                f" {item['sha256']}; nothing of it is kept"
            )
        part.replace(file)
    except OSError as exc:
        raise Failure(f"{file} cannot be written: {exc.strerror}") from exc
    return digest.hexdigest()
