"""Static files of the console, out of the package, gzipped once, cached for good by their hash.

Rule: only names found in the package at start are served, so a path from outside is a key of a
table and never part of a file name.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from quart import Blueprint, Response, request

from hub.errors import NotFound

TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
BUNDLES: Final = {"page.css": ("base.css", "frame.css", "content.css", "work.css")}
"""Files that go out as one: a page within the frame asks once for all its looks."""
FILE_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is served."""

    content: bytes
    gzipped: bytes
    content_type: str
    digest: str


def load() -> dict[str, StaticFile]:
    """Return all files of known types under hub/static by their path."""
    found: dict[str, StaticFile] = {}
    _collect(resources.files("hub") / "static", "", found)
    for name, parts in BUNDLES.items():
        found[name] = _file(b"".join(found[part].content for part in parts), TYPES["css"])
    return found


def _file(content: bytes, kind: str) -> StaticFile:
    digest = hashlib.sha256(content).hexdigest()[:16]
    return StaticFile(content, gzip.compress(content, 9, mtime=0), kind, digest)


def _collect(folder: Traversable, prefix: str, found: dict[str, StaticFile]) -> None:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = prefix + entry.name
        kind = TYPES.get(name.rpartition(".")[2])
        if entry.is_dir():
            _collect(entry, name + "/", found)
        elif kind is not None:
            content = entry.read_bytes()
            assert len(content) <= FILE_BYTES_MAX, name
            found[name] = _file(content, kind)


FILES: Final = load()


def address(name: str) -> str:
    """Return the address of a file, which changes with its content."""
    return f"/static/{name}?v={FILES[name].digest}"


def routes() -> Blueprint:
    """Return the routes of static files."""
    blueprint = Blueprint("static_files", __name__)

    def serve(name: str) -> Response:
        file = FILES.get(name)
        if file is None:
            raise NotFound("there is nothing at this address")
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        body = file.gzipped if packed else file.content
        response = Response(body, content_type=file.content_type)
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable"
            if request.args.get("v") == file.digest
            else "no-cache"
        )
        return response

    @blueprint.get("/static/<path:name>")
    async def static_file(name: str) -> Response:
        return serve(name)

    @blueprint.get("/favicon.ico")
    async def favicon() -> Response:
        return serve("favicon.svg")

    return blueprint
