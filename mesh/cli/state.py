"""Verbs that carry signed state by hand between sites without a network."""

import base64
import binascii
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

import click

from mesh.cli.context import Where, options, print_json
from mesh.cli.errors import FAILED, Failure

FILE = click.argument("file", type=click.Path(path_type=Path, allow_dash=True))


@click.command("export")
@FILE
@click.option("--site", help="Only what the nodes of this site hold.")
@options
def state_export(where: Where, as_json: bool, file: Path, site: str | None) -> None:
    """Write register and signed state to FILE (- is standard output).

    Whoever reads the file can read the inventory; passwords in it stay sealed to their nodes.
    """
    from mesh.proto.courier import file_end, file_head, file_piece

    if str(file) == "-" and as_json:
        raise Failure("--json and the state cannot both go to standard output", 2)
    count, size, sets = 0, 0, 0
    with where.client() as client, written(file) as out:
        root = client.get("/status")["item"]["root_fingerprint"]
        out.write(file_head(bytes.fromhex(root)))
        at: str | None = None
        while True:
            item = client.get("/state", site=site, at=at)["item"]
            piece = base64.b64decode(item["piece"])
            out.write(file_piece(piece))
            count, size, sets, at = count + 1, size + len(piece), item["of"], item["next"]
            progress(f"{item['done']} of {sets} sets, {size >> 10} KiB")
            if at is None:
                break
        out.write(file_end(count))
    progress("")
    result = {"file": str(file), "sets": sets, "pieces": count, "bytes": size}
    if as_json:
        print_json({"schema": "rackmesh/state-file/1", "item": result})
    else:
        click.echo(f"{sets} sets in {size >> 10} KiB written to {file}", err=True)


@click.command("import")
@FILE
@options
def state_import(where: Where, as_json: bool, file: Path) -> None:
    """Take over what stands in FILE (- is standard input), checked like from a peer."""
    from mesh.errors import CodecError
    from mesh.proto.courier import read_pieces

    total: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with where.client() as client, _opened(file) as source:
        root = client.get("/status")["item"]["root_fingerprint"]
        try:
            for number, piece in enumerate(read_pieces(source.read, bytes.fromhex(root)), 1):
                body = {"piece": base64.b64encode(piece).decode()}
                item = client.post("/state", body)["item"]
                refused.update(item.pop("refused"))
                total.update(item)
                progress(f"{number} pieces, {total['sets']} sets are new")
        except (CodecError, binascii.Error) as exc:
            progress("")
            raise Failure(f"{file}: {exc}", FAILED) from exc
    progress("")
    result = {name: total[name] for name in ("records", "sets", "known")}
    if as_json:
        item = {**result, "refused": dict(refused)}
        print_json({"schema": "rackmesh/state-taken/1", "item": item})
        return
    click.echo(
        f"{result['records']} register records and {result['sets']} sets are new,"
        f" {result['known']} sets were here already"
    )
    for reason, count in sorted(refused.items()):
        click.echo(f"{count} sets are not for this member or do not hold: {reason}", err=True)


@contextlib.contextmanager
def written(file: Path) -> Generator[BinaryIO]:
    """Open what is written; a file is there whole or not at all."""
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    except OSError as exc:
        raise Failure(f"{file} cannot be written: {exc.strerror or exc}") from exc
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: Path) -> Generator[Any]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as exc:
        raise Failure(f"{file} cannot be read: {exc.strerror or exc}", 2) from exc
    with source:
        yield source


def progress(text: str) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)
