"""The Python part of the ramdisk: interpreter, the modules that are used, the agent.

It knows an unpacked Debian Python 3.11 and the folder with blake3 and cryptography. Rule: the
interpreter that will run in the ramdisk compiles the code and says which modules it loads, so
nothing depends on the Python that runs this build.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from scripts.lib.elf import is_elf, needed
from scripts.lib.newc import Tree

LIBRARY = "usr/lib/python3.11"
SITE = "usr/lib/rackmesh"
LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
LIBRARY_FOLDERS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
WHEELS = ("blake3", "cryptography", "_cffi_backend", "cffi")
ALSO = (
    "encodings.idna", "encodings.utf_16_le", "encodings.latin_1", "encodings.ascii",
    "encodings.utf_8", "linecache", "tokenize", "traceback", "warnings", "inspect", "ast",
    "random", "select", "signal", "string", "textwrap", "__future__", "runpy", "pkgutil",
)  # fmt: skip
"""Modules that are imported late, when something goes wrong or somebody looks inside."""

PROBE = """
import importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import hashlib, mmap, socket, traceback, zlib
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from blake3 import blake3
key = X25519PrivateKey.generate()
suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
assert suite.decrypt(suite.encrypt(b"x", key.public_key(), info=b""), key, info=b"") == b"x"
Ed25519PrivateKey.generate().sign(b"x")
assert hashlib.sha256(blake3(b"x").digest()).digest()
socket.getaddrinfo("127.0.0.1", 80)
try:
    json.loads("{")
except ValueError:
    traceback.format_exc()
files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
print(json.dumps(sorted({os.path.realpath(file) for file in files if file})))
"""


class PythonTree:
    """Runs the unpacked interpreter where it stands and packs what it needs."""

    def __init__(self, unpacked: Path, site: Path, repository: Path) -> None:
        self._root = unpacked.resolve()
        self._site = site.resolve()
        self._repository = repository.resolve()

    def add(self, tree: Tree) -> None:
        """Put interpreter, modules, agent and libraries in the tree."""
        tree.file("usr/bin/python3.11", self._read("usr/bin/python3.11"), 0o755)
        self._pack(tree, self._loaded())
        tree.folder(f"{LIBRARY}/lib-dynload")
        self._libraries(tree)

    def _loaded(self) -> list[Path]:
        """Return the files of all modules that the agent loads, by asking the interpreter."""
        agent = sorted((self._repository / "node/ramdisk").glob("*.py"))
        names = [f"node.ramdisk.{path.stem}" for path in agent if path.stem != "__init__"]
        out = self._run(["-c", PROBE, *names, *ALSO])
        whole = (self._site / "cryptography").rglob("*.py")
        files = [Path(file) for file in json.loads(out)]
        files += [path for path in whole if "/x509/" not in str(path)]
        return sorted(set(files))

    def _run(self, argv: list[str]) -> str:
        folders = ":".join(str(self._root / folder) for folder in LIBRARY_FOLDERS)
        done = subprocess.run(
            [self._root / LOADER, "--library-path", folders, self._root / "usr/bin/python3.11",
             "-s", "-S", "-B", *argv],
            env={
                "PYTHONHOME": str(self._root / "usr"),
                "PYTHONPATH": f"{self._repository}:{self._site}",
                "PATH": os.environ.get("PATH", ""),
            },
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"the ramdisk's Python failed: {done.stderr[-2000:]}")
        return done.stdout

    def _pack(self, tree: Tree, files: Iterable[Path]) -> None:
        sources: dict[str, str] = {}
        for file in files:
            place = self._place(file)
            if file.suffix == ".py":
                sources[str(file)] = place.removesuffix(".py") + ".pyc"
                if place.startswith(f"{SITE}/node/"):
                    tree.file(place, file.read_bytes())  # so that tracebacks show lines
            else:
                tree.file(place, file.read_bytes())
        for place, code in self._compiled(sources).items():
            agent = place.startswith(f"{SITE}/node/")
            tree.file(_cached(place) if agent else place, code)

    def _compiled(self, sources: dict[str, str]) -> dict[str, bytes]:
        """Compile with the ramdisk's interpreter; the code names the file's place there."""
        script = (
            "import importlib._bootstrap_external as b, json, marshal, sys\n"
            "for source, place in json.load(open(sys.argv[1])).items():\n"
            "    data = open(source, 'rb').read()\n"
            "    name = '/' + place.removesuffix('c')\n"
            "    code = compile(data, name, 'exec', dont_inherit=True)\n"
            "    raw = b._code_to_hash_pyc(code, bytes(8), False)\n"
            "    print(raw.hex())\n"
        )
        listing = self._root.parent / "sources.json"
        listing.write_text(json.dumps(sources))
        lines = self._run(["-c", script, str(listing)]).split()
        return dict(zip(sources.values(), map(bytes.fromhex, lines), strict=True))

    def _place(self, file: Path) -> str:
        for base, place in (
            (self._root / LIBRARY, LIBRARY),
            (self._site, SITE),
            (self._repository, SITE),
        ):
            if file.is_relative_to(base):
                return f"{place}/{file.relative_to(base)}"
        raise RuntimeError(f"{file} was loaded from outside the ramdisk's tree")

    def _libraries(self, tree: Tree) -> None:
        """Add the shared libraries that anything in the tree asks for."""
        asked = [node.data for node in tree.nodes.values() if is_elf(node.data)]
        have: set[str] = set()
        while asked:
            for name in needed(asked.pop()):
                if name in have or name.startswith("ld-linux"):
                    continue
                have.add(name)
                data = self._library(name)
                tree.file(f"lib/x86_64-linux-gnu/{name}", data)
                asked.append(data)
        tree.file("lib64/ld-linux-x86-64.so.2", self._read(LOADER), 0o755)

    def _library(self, name: str) -> bytes:
        for folder in LIBRARY_FOLDERS:
            if (path := self._root / folder / name).exists():
                return path.read_bytes()
        raise RuntimeError(f"no package brings the library {name}")

    def _read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()


def _cached(place: str) -> str:
    folder, _, name = place.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.pyc')}.cpython-311.pyc"
