"""``rackmesh support-bundle``: one file with what support needs, and no secret in it.

It asks the daemons that run here, the kernel and the service manager, with no network at all.
Rules: only what ``_gather`` names is taken, each text goes through the redactor, binary files
never; what cannot be had is written down with its reason, and the rest still comes.
"""

import io
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from mesh.cli.context import print_json
from mesh.cli.errors import CONFLICT, NOT_FOUND, Failure
from mesh.cli.tables import size
from mesh.host.build import BUILD
from mesh.host.config import default_data
from mesh.host.files import sync_folder
from mesh.proto.redact import Redactor

TEXT_BYTES_MAX = 4 << 20
"""Of a longer text the end is kept: that is where it went wrong."""
COMMAND_S = 30
SECRET_FILE_BYTES_MAX = 16 << 10
CHECKED_DATABASE_BYTES_MAX = 64 << 20
JOB_LOGS_MAX = 20
LISTED_FILES_MAX = 5000
NOUNS = (
    "status",
    "sites",
    "nodes",
    "servers",
    "pending",
    "jobs",
    "assets",
    "tokens",
    "secrets",
)
SECRET_PLACES = ("api-token", "admin-password", "keys", "bmc-credentials.json")
PRAGMAS = ("page_size", "page_count", "freelist_count", "journal_mode")
SYSTEM = {
    "addresses.txt": ("ip", "address"),
    "routes.txt": ("ip", "route"),
    "sockets.txt": ("ss", "-lntup"),
    "disks.txt": ("df", "-h"),
    "memory.txt": ("free", "-m"),
}


@dataclass
class Bundle:
    """The texts by name, and what could not be had."""

    redactor: Redactor
    texts: dict[str, str] = field(default_factory=dict[str, str])
    missing: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, name: str, make: Callable[..., str], *words: Any) -> None:
        """Add the text that ``make(*words)`` returns, or the reason why there is none."""
        from mesh.rest.client import ApiError

        failures = (OSError, ValueError, ApiError, sqlite3.Error, subprocess.SubprocessError)

        try:
            text = make(*words)
        except failures as exc:
            self.missing[name] = self.redactor.text(str(exc) or type(exc).__name__)
            return
        kept = text if len(text) <= TEXT_BYTES_MAX else text[-TEXT_BYTES_MAX:]
        self.texts[name] = self.redactor.text(kept)


@click.command("support-bundle")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data", "folders", type=click.Path(path_type=Path), multiple=True,
    help="Data folder of a hub or node; may be repeated. Default: the default places.",
)  # fmt: skip
@click.option(
    "--config", "configs", type=click.Path(path_type=Path), multiple=True,
    help="Configuration file to put in, without its secrets; may be repeated.",
)  # fmt: skip
@click.option(
    "--log", "logs", type=click.Path(path_type=Path), multiple=True,
    help="Log file to put in, where no journal keeps it; may be repeated.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what is inside as JSON.")
def support_bundle(
    file: Path | None, folders: tuple[Path, ...], configs: tuple[Path, ...],
    logs: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Collect what support needs in FILE (a .tar.gz), with every secret taken out."""
    target = file or Path(time.strftime("rackmesh-support-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    if target.exists():
        raise Failure(f"{target} exists: name another file", CONFLICT)
    found = folders or tuple(
        folder for role in ("hub", "node")
        if (folder := default_data(role, os.environ)).is_dir()
    )  # fmt: skip
    absent = [folder for folder in found if not folder.is_dir()]
    if absent or not found:
        where = absent[0] if absent else "the default places"
        raise Failure(f"no hub or node keeps its data in {where}; give --data", NOT_FOUND)
    bundle = Bundle(Redactor(secret for folder in found for secret in _secrets(folder)))
    for number, folder in enumerate(found, 1):
        click.echo(f"collecting from {folder}", err=True)
        _of_folder(bundle, f"{number}-{folder.name}", folder)
    _of_machine(bundle)
    for kind, paths in (("config", configs), ("log", logs)):
        for number, path in enumerate(paths, 1):
            bundle.take(f"{kind}-{number}-{path.name}", _tail, path)
    manifest = _manifest(bundle, found)
    try:
        count = _write(target, bundle, manifest)
    except OSError as exc:
        raise Failure(f"{target} cannot be written: {exc.strerror or exc}") from exc
    if as_json:
        print_json({"schema": "rackmesh/support-bundle/1", "item": manifest})
        return
    click.echo(f"{target}: {len(bundle.texts)} texts, {size(count)},"
               f" {bundle.redactor.taken} secrets taken out")  # fmt: skip
    click.echo(f"look before you send it: tar -tzf {target}", err=True)


def _secrets(folder: Path) -> Iterator[bytes]:
    """Yield the contents of the small files that hold secrets, to know them anywhere."""
    for name in SECRET_PLACES:
        place = folder / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            try:
                if path.is_file() and 0 < path.stat().st_size <= SECRET_FILE_BYTES_MAX:
                    yield path.read_bytes()
            except OSError:
                continue


def _of_folder(bundle: Bundle, name: str, folder: Path) -> None:
    from mesh.rest.client import ApiClient, Target

    bundle.take(f"{name}/files.txt", _listing, folder)
    bundle.take(f"{name}/ports.json", (folder / "run/ports.json").read_text)
    for path in sorted(folder.glob("**/*.db")):
        where = path.relative_to(folder).as_posix().replace("/", "-")
        bundle.take(f"{name}/database-{where}.txt", _database, path)
    socket = folder / "run" / "api.sock"
    if not socket.exists():
        bundle.missing[f"{name}/api"] = "no daemon runs on this folder"
        return
    client = ApiClient(Target(socket=socket))
    try:
        for noun in NOUNS:
            bundle.take(f"{name}/{noun}.json", _get, client, f"/{noun}")
        _job_logs(bundle, name, client)
    finally:
        client.close()
    if (folder / "node.json").exists():
        doctor = (sys.executable, "-m", "rackmesh", "node", "doctor", "--json", "--no-probe",
                  "--data", str(folder))  # fmt: skip
        bundle.take(f"{name}/doctor.json", _output, doctor)


def _job_logs(bundle: Bundle, name: str, client: Any) -> None:
    try:
        jobs = json.loads(bundle.texts.get(f"{name}/jobs.json", "{}")).get("items", [])
    except ValueError:
        return
    wanted = [job["id"] for job in jobs if job.get("state") not in ("succeeded", "queued")]
    for job in wanted[:JOB_LOGS_MAX]:
        bundle.take(f"{name}/job-{job}.log", _job_log, client, job)


def _job_log(client: Any, job: str) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in client.lines(f"/jobs/{job}/logs"))


def _get(client: Any, path: str) -> str:
    return _pretty(client.get(path))


def _of_machine(bundle: Bundle) -> None:
    bundle.take("machine.json", lambda: _pretty({
        "build": BUILD, "python": sys.version, "sqlite": sqlite3.sqlite_version,
        "kernel": " ".join(platform.uname()), "system": platform.freedesktop_os_release(),
        "cores": os.cpu_count(), "uptime_s": float(Path("/proc/uptime").read_text().split()[0]),
        "time_ms": time.time_ns() // 1_000_000,
    }))  # fmt: skip
    for name, argv in SYSTEM.items():
        if shutil.which(argv[0]):
            bundle.take(f"machine/{name}", _output, argv)
        else:
            bundle.missing[f"machine/{name}"] = f"{argv[0]} is not installed"
    for role in ("hub", "node"):
        unit = f"rackmesh-{role}.service"
        if Path("/run/systemd/system").is_dir():
            journal = ("journalctl", "-u", unit, "-n", "5000", "--no-pager", "-o", "short-iso")
            bundle.take(f"journal-{role}.txt", _output, journal)
            bundle.take(f"unit-{role}.txt",
                        _output, ("systemctl", "show", unit))  # fmt: skip


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _output(argv: tuple[str, ...]) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", timeout=COMMAND_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout or done.stderr


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - TEXT_BYTES_MAX))
        return file.read(TEXT_BYTES_MAX).decode(errors="replace")


def _listing(folder: Path) -> str:
    """Return mode, size, age and name of every file; no content."""
    lines: list[str] = []
    now = time.time_ns()
    for path in sorted(folder.rglob("*")):
        try:
            state = path.lstat()
        except OSError:
            continue  # gone meanwhile
        age_s = (now - state.st_mtime_ns) // 1_000_000_000
        lines.append(f"{state.st_mode:06o} {state.st_uid} {state.st_size:>14} {age_s:>9} s "
                     f"{path.relative_to(folder)}")  # fmt: skip
        if len(lines) == LISTED_FILES_MAX:
            lines.append("and more")
            break
    return "\n".join(lines) + "\n"


def _database(path: Path) -> str:
    """Return sizes, row counts and a quick check of a database; it is opened read-only."""
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as base:
        lines = [f"{name} {base.execute(f'PRAGMA {name}').fetchone()[0]}" for name in PRAGMAS]
        tables = base.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in sorted(tables):
            quoted = table.replace('"', '""')
            rows = base.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0]  # noqa: S608
            lines.append(f"rows of {table} {rows}")
        if path.stat().st_size <= CHECKED_DATABASE_BYTES_MAX:
            lines.append(f"quick_check {base.execute('PRAGMA quick_check').fetchone()[0]}")
    base.close()
    return "\n".join(lines) + "\n"


def _manifest(bundle: Bundle, folders: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "build": BUILD,
        "folders": [str(folder) for folder in folders],
        "texts": {name: len(text) for name, text in sorted(bundle.texts.items())},
        "missing": dict(sorted(bundle.missing.items())),
        "secrets_taken_out": bundle.redactor.taken,
    }


def _write(target: Path, bundle: Bundle, manifest: dict[str, Any]) -> int:
    """Write the archive, readable by its owner alone; return its size."""
    beside = target.with_name(f".{target.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    root = target.name.removesuffix(".gz").removesuffix(".tar")
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in [("manifest.json", _pretty(manifest)), *bundle.texts.items()]:
                data = text.encode(errors="replace")
                entry = tarfile.TarInfo(f"{root}/{name}")
                entry.size, entry.mtime, entry.mode = (
                    len(data),
                    int(time.time_ns() / 1e9),
                    0o600,
                )
                archive.addfile(entry, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, target)
    sync_folder(target.parent)
    return target.stat().st_size
