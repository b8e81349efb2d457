"""What a rack remembers: power, boot override and identity of its servers, and their disks.

Knows no network. Rule: every change is durable before anyone is told of it, and one process
holds a rack's folder, so a rack that is killed comes back as it was.
"""

import fcntl
import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import trio

from mesh.errors import Refused
from mesh.host.files import make_private_folder, write_json
from node.rack.config import RackConfig

VERSION: Final = 1
USERNAME: Final = "admin"
CONSOLE_BYTES_MAX: Final = 256 << 10
CONSOLE_READ_BYTES: Final = 64 << 10
FILE_BYTES_MAX: Final = 4 << 20


@dataclass(slots=True)
class ServerRecord:
    """What is known of one server; ``revision`` counts its changes."""

    name: str
    mac: str
    uuid: str
    serial: str
    disk_bytes: int
    disk_kind: str = "block"
    power: bool = False
    target: str = "None"
    enabled: str = "Disabled"
    image: str = ""
    revision: int = 1
    events: list[list[Any]] = field(default_factory=list)
    """Number, Unix ms, severity, text; the newest last, at most EVENTS_MAX."""
    bios: dict[str, str] = field(default_factory=dict)
    bios_pending: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may speak to the virtual BMCs."""

    username: str
    password: str


class RackState:
    """The folder of a rack, held by this process."""

    def __init__(self, folder: Path, lock: int, config: RackConfig) -> None:
        self.folder = folder
        self._lock = lock
        self._write = trio.Lock()
        self._others: dict[str, dict[str, Any]] = {}
        self.credentials = _credentials(folder)
        kept = _read(folder / "rack.json")
        self._prefix = kept.get("name_prefix", config.name_prefix)
        chosen = secrets.randbits(32) if config.seed is None else config.seed
        self.seed: int = kept.get("seed", chosen)
        if config.seed not in (None, self.seed) or self._prefix != config.name_prefix:
            raise Refused(
                f"the rack in {folder} has the seed {self.seed} and the name prefix"
                f" {self._prefix!r}; another rack needs another data folder"
            )
        self.bmc_port: int = config.bmc_port or kept.get("bmc_port", 0)
        known: dict[str, dict[str, Any]] = kept.get("servers", {})
        self.servers = [
            self._server(known.pop(f"{self._prefix}-{n}", None), n, config)
            for n in range(1, config.servers + 1)
        ]
        self._others = known  # of a larger rack once: kept for when it grows again
        for server in self.servers:
            _make_disk(self.disk(server), server.disk_bytes)
        self.save_now()

    @classmethod
    def open(cls, config: RackConfig) -> "RackState":
        """Take the folder; Refused when another process has it or it cannot be used."""
        try:
            folder = make_private_folder(config.data)
            for name in ("disks", "console"):
                make_private_folder(folder / name)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise Refused(f"{config.data} cannot be used: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(folder, lock, config)
        except BlockingIOError:
            os.close(lock)
            raise Refused(f"another process already runs the rack in {folder}") from None
        except OSError as exc:
            os.close(lock)
            raise Refused(f"{folder} cannot be used: {exc.strerror}") from exc
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    @property
    def credentials_file(self) -> Path:
        """Where the BMCs' user and password stand, for its owner only."""
        return self.folder / "bmc-credentials.json"

    def keep_credentials(self, credentials: Credentials) -> None:
        """Make another login durable, blocking."""
        write_json(self.credentials_file, asdict(credentials))
        self.credentials = credentials

    def disk(self, server: ServerRecord) -> Path:
        """Return the file that is the server's disk."""
        return self.folder / "disks" / f"{server.name}.img"

    async def save(self) -> None:
        """Make all changes durable."""
        async with self._write:
            await trio.to_thread.run_sync(self.save_now)

    def save_now(self) -> None:
        """Make all changes durable, blocking."""
        servers = {server.name: asdict(server) for server in self.servers}
        value = {
            "version": VERSION,
            "seed": self.seed,
            "name_prefix": self._prefix,
            "bmc_port": self.bmc_port,
            "servers": {**self._others, **servers},
        }
        write_json(self.folder / "rack.json", value)

    def console(self, server: ServerRecord, line: str) -> None:
        """Add one line to a server's console; the file and one older one are kept."""
        path = self.folder / "console" / f"{server.name}.log"
        try:
            if path.exists() and path.stat().st_size > CONSOLE_BYTES_MAX:
                path.replace(path.with_suffix(".old"))
            with path.open("a", encoding="utf-8") as file:
                file.write(line.rstrip("\n") + "\n")
        except OSError:
            pass  # a full disk must not stop a server: it has its own way to notice

    def console_text(self, server: ServerRecord) -> bytes:
        """Return the end of what stands in a server's console file."""
        try:
            with (self.folder / "console" / f"{server.name}.log").open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - CONSOLE_READ_BYTES, 0))
                return file.read(CONSOLE_READ_BYTES)
        except OSError:
            return b""

    def _server(self, kept: Any, number: int, config: RackConfig) -> ServerRecord:
        if isinstance(kept, dict):
            names = {one.name for one in fields(ServerRecord)}
            return ServerRecord(**{k: v for k, v in kept.items() if k in names})
        raw = hashlib.blake2b(f"rackmesh sim/{self.seed}/{number}".encode()).digest()
        uuid = bytearray(raw[8:24])
        uuid[6] = uuid[6] & 0x0F | 0x40
        uuid[8] = uuid[8] & 0x3F | 0x80
        text = uuid.hex()
        return ServerRecord(
            name=f"{self._prefix}-{number}",
            mac=(b"\x02" + raw[:5]).hex(":"),
            uuid=f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
            serial=f"SIM{raw[24:29].hex().upper()}",
            disk_bytes=config.disk_bytes,
            disk_kind=config.disk_kind,
            power=config.power_on,
        )


def _credentials(folder: Path) -> Credentials:
    path = folder / "bmc-credentials.json"
    kept = _read(path)
    username, password = kept.get("username"), kept.get("password")
    if not isinstance(username, str) or not isinstance(password, str):
        username, password = USERNAME, secrets.token_urlsafe(18)
        write_json(path, {"username": username, "password": password})
    return Credentials(username, password)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(FILE_BYTES_MAX))
    except FileNotFoundError:
        return {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{path} is damaged; remove the rack's folder to make a new rack")
    return value


def _make_disk(path: Path, size: int) -> None:
    """Make a blank disk: a sparse file; one that exists is left as it is."""
    if path.exists():
        return
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)
    beside.replace(path)
