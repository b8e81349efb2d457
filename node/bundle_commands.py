"""``rackmesh bundle``: one file with assets and the names that they have, carried by people.

Rules: what is created comes through the API of a hub or node and is checked on its way; what is
inspected needs no daemon; what is imported the node itself reads and checks, piece by piece.
"""

import base64
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import Where, in_path, options, print_json
from mesh.cli.errors import CONFLICT, FAILED, Failure
from mesh.cli.state import progress, written
from mesh.cli.tables import print_table, size
from mesh.proto.content import LIVE
from mesh.proto.sync_wire import Deltas
from mesh.proto.tables import FLEET

FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
PROGRESS_CHUNKS = 16


@click.command("create")
@FILE
@click.option(
    "--asset", "names", multiple=True, required=True,
    help="Asset to put in, with the parts of a live system; may be repeated.",
)  # fmt: skip
@click.option("--installer", is_flag=True, help="Also put in this program's own files.")
@click.option("--force", is_flag=True, help="Overwrite FILE when it exists.")
@options
def bundle_create(
    where: Where, as_json: bool, file: Path, names: tuple[str, ...], installer: bool,
    force: bool,
) -> None:  # fmt: skip
    """Write FILE with assets that the hub or node holds, to be carried to a site.

    The names come along as the hubs signed them. FILE is signed by the hub or node that is
    asked; it is not sealed.
    """
    from cache.api import BundleWriter, CacheError
    from mesh.errors import CodecError
    from mesh.host.build import BUILD

    if file.exists() and not force:
        raise Failure(f"{file} exists; --force overwrites it", CONFLICT)
    with where.client() as client:
        items = _asked(client, names)
        root_fp = bytes.fromhex(client.get("/status")["item"]["root_fingerprint"])
        with written(file) as out:
            try:
                writer = BundleWriter(out, root_fp, BUILD)
                writer.add_state(_fleet_state(client))
                for asset, named in items.items():
                    path = f"/assets/{in_path(named[0]['name'])}/content"
                    content = _counted(named[0], client.pieces(path))
                    writer.add_asset(asset, [one["name"] for one in named], content)
                if installer:
                    from node.own_files import archive

                    writer.add_installer(archive())

                def seal(digest: bytes) -> bytes:
                    item = client.post("/bundle/seal", {"index": digest.hex()})["item"]
                    return base64.b64decode(item["seal"])

                index = writer.finish(seal)
            except (CacheError, CodecError) as exc:
                raise Failure(f"{file} is not written: {exc}") from exc
        progress("")
    told: dict[str, Any] = {
        "file": str(file), "bytes": file.stat().st_size, "assets": _shown(index),
        "installer": index.installer.build if index.installer else None,
    }  # fmt: skip
    if as_json:
        print_json({"schema": "rackmesh/bundle-created/1", "item": told})
    else:
        count = sum(len(named) for named in items.values())
        click.echo(f"{count} assets in {size(told['bytes'])} written to {file}", err=True)


@click.command("inspect")
@FILE
@click.option(
    "--installer", type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the program's files that are in FILE to this tar archive.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print a document.")
def bundle_inspect(file: Path, installer: Path | None, as_json: bool) -> None:
    """List what is in FILE, who signed it, and check every hash. No daemon is needed.

    Whether who signed it is a member, and whether the names are right, only a node can say: it
    does so at `bundle import`.
    """
    from cache.api import BundleReader, BundleRefused

    try:
        bundle = BundleReader.open(file)
        with contextlib.closing(bundle):
            pieces = sum(1 for _ in bundle.state())
            for part in bundle.index.parts:
                reader = bundle.asset(part)
                for number, chunk in enumerate(reader.stored):
                    reader.chunk(chunk)
                    if number % PROGRESS_CHUNKS == 0:
                        progress(f"{part.names[0]}: {number} chunks are right")
            _write_installer(bundle, installer)
            progress("")
    except BundleRefused as exc:
        progress("")
        raise Failure(str(exc)) from exc
    index, seal = bundle.index, bundle.seal
    if as_json:
        tar = index.installer
        item = {
            "file": str(file), "organisation": bundle.root_fp.hex(), "signed_by": seal.node,
            "made_ms": seal.made_ms, "build": index.build, "state_pieces": pieces,
            "assets": _shown(index),
            "installer": {"build": tar.build, "bytes": tar.size} if tar else None,
        }  # fmt: skip
        print_json({"schema": "rackmesh/bundle/1", "item": item})
        return
    rows = [(", ".join(p.names), size(p.size), size(p.stored), p.asset) for p in index.parts]
    print_table(("NAMES", "SIZE", "IN FILE", "ASSET"), rows, "no asset is in it")
    if index.installer:
        click.echo(
            f"installer of rackmesh {index.installer.build}, {size(index.installer.size)}"
        )
    click.echo(
        f"every hash is right; signed by {seal.node} of organisation {bundle.root_fp.hex()[:8]}"
        f" on {_day(seal.made_ms)}, rackmesh {index.build}"
    )


@click.command("import")
@FILE
@options
def bundle_import(where: Where, as_json: bool, file: Path) -> None:
    """Let the node take in FILE, which lies on its own machine.

    Names count as the organisation's keys signed them, whoever brings the file. It can be
    stopped and repeated: what is here already is not written again. Nothing is written when
    the disk is short.
    """
    at: int | None = 0
    item: dict[str, Any] = {}
    with where.client() as client:
        while at is not None:
            body = {"file": str(file.absolute()), "at": at}
            item = client.post("/bundle", body)["item"]
            at = item["next"]
            click.echo(f"{item['done']} of {item['of']} chunks are here", err=True)
    if as_json:
        print_json({"schema": "rackmesh/bundle-taken/1", "item": item})
    else:
        click.echo(f"{', '.join(item['names'])}: here and verified")


def _asked(client: Any, names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Return the named assets by content, with the parts of live systems."""
    found: dict[str, list[dict[str, Any]]] = {}
    left, seen = list(names), set[str]()
    while left:
        name = left.pop(0)
        if name in seen:
            continue
        seen.add(name)
        item = client.get(f"/assets/{in_path(name)}")["item"]
        if item["kind"] == LIVE:
            left += [member["name"] for member in item["members"]]
        elif item["asset"] is None:
            raise Failure(f"the content of {name} is not known yet")
        else:
            found.setdefault(item["asset"], []).append(item)
    return found


def _fleet_state(client: Any) -> Iterator[bytes]:
    """Yield the register and what the whole fleet may know, names among it; no site's rows."""
    from mesh.proto.courier import make_piece, open_piece

    at: str | None = None
    while True:
        item = client.get("/state", at=at)["item"]
        piece, at = base64.b64decode(item["piece"]), item["next"]
        message = open_piece(piece)
        if isinstance(message, Deltas):
            parts = tuple(part for part in message.parts if part.id.scope == FLEET)
            if message.parts and not parts:
                return  # scopes come in their order
            piece = make_piece(Deltas(0, parts)) if parts else b""
        if piece:
            yield piece
        if at is None:
            return


def _counted(item: dict[str, Any], pieces: Iterator[bytes]) -> Iterator[bytes]:
    have = 0
    for piece in pieces:
        have += len(piece)
        progress(f"{item['name']}: {size(have)} of {size(item['size'])}")
        yield piece


def _write_installer(bundle: Any, target: Path | None) -> None:
    if target is None:
        for _ in bundle.installer():
            pass
        return
    if bundle.index.installer is None:
        raise Failure(f"{bundle.path} holds no installer", FAILED)
    if target.exists():
        raise Failure(f"{target} exists; give a name that is free", CONFLICT)
    with written(target) as out:
        for data in bundle.installer():
            out.write(data)


def _shown(index: Any) -> list[dict[str, Any]]:
    return [
        {"asset": p.asset, "names": list(p.names), "size": p.size, "stored": p.stored}
        for p in index.parts
    ]


def _day(made_ms: int) -> str:
    try:
        return datetime.fromtimestamp(made_ms / 1000, UTC).isoformat(" ", "minutes")
    except (ValueError, OverflowError, OSError):
        return "a day that is none"
