"""What a hub finds or makes on its disk before it serves: keys, register, databases, secrets.

Everything that touches the data folder at a start stands here. Rule: whatever is there is kept,
whatever is missing is made, in an order in which a start that died can be started again; what a
person must see once (the first password, the first token) is returned and never logged.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache.api import Cache
from hub.accounts import Accounts
from hub.api_tokens import ApiTokens
from hub.backup import remove_drafts
from hub.config import HubConfig
from hub.desk import Desk
from hub.joining import check_finished
from hub.passwords import Passwords
from hub.restore import finish
from hub.restored import REPORT_FILE
from hub.store import ReportStore
from hub.tls import Tls, load_or_make_tls
from mesh import answers
from mesh.errors import Refused
from mesh.host.clock import SteadyClock
from mesh.host.files import make_private_folder, write_file, write_json
from mesh.hub_keys import HubKeys, load_or_make_hub_keys
from mesh.identity import Identity, load_or_make_identity
from mesh.membership import found
from mesh.proto.sets import HEAD_KIND, HEAD_N
from mesh.register_store import RegisterStore
from mesh.store import MeshStore, mark_restored
from mesh.store_file import FileLock

ANY: Final = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, never bound
ADMIN: Final = "admin"
AUTHORED: Final = "identity/authored"
"""There since this hub has first written."""
PASSWORD_BYTES: Final = 12
API_TOKEN_BYTES: Final = 32
PASSWORD_FILE: Final = "admin-password"
API_TOKEN_FILE: Final = "api-token"
JOIN_TOKEN_FILE: Final = "join-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Everything opened; ``close`` lets go of it."""

    config: HubConfig
    clock: SteadyClock
    keys: HubKeys
    identity: Identity
    register: RegisterStore
    store: MeshStore
    reports: ReportStore
    accounts: Accounts
    api_tokens: ApiTokens
    desk: Desk
    cache: Cache
    tls: Tls
    urls: tuple[str, ...]
    port: int
    first: bool

    def close(self) -> None:
        """Close the databases and the cache, in reverse."""
        self.cache.close()
        self.desk.close()
        self.reports.close()
        self.store.close()

    def __repr__(self) -> str:
        """Never show the token."""
        return f"Ground({self.config.data})"


def lock_folder(data: Path) -> FileLock:
    """Make the data folder and keep other processes out; Refused when one is in."""
    try:
        make_private_folder(data)
        make_private_folder(data / "run")
        lock = FileLock(data / "hub.lock")
        try:
            finish(data)  # a restore that a power cut has stopped
            remove_drafts(data)
        except BaseException:
            lock.release()
            raise
    except OSError as exc:
        raise Refused(f"the data folder {data} cannot be used: {exc.strerror}") from exc
    return lock


def open_ground(
    config: HubConfig, port: int, clock: SteadyClock, passphrase: str | None = None
) -> Ground:
    """Open or make everything in the data folder; the port is bound already."""
    data, now_ms = config.data, clock.now_ms()
    check_finished(data)
    first, lost = _state_of(data)
    hosts = advertised(config)
    urls = tuple(f"https://{_in_url(host)}:{port}" for host in hosts)
    keys = load_or_make_hub_keys(data / "keys", config.region, passphrase)
    folder = make_private_folder(data / "identity")
    identity = load_or_make_identity(folder, now_ms=now_ms)
    clock.begin_with_key(identity.kem_made_ms)
    tls = load_or_make_tls(make_private_folder(data / "tls"), [*hosts, "localhost"], now_ms)
    register = RegisterStore.open(data / "register", keys.root_fp)
    found(keys, identity, register, urls=urls, tls_sha256=tls.sha256, name=config.name)
    api_token = _api_token(data / API_TOKEN_FILE)
    if lost:  # members still hold what we signed: it counts as a restore without a backup
        mark_restored(data / "state.db", identity.node_id)
        write_json(data / REPORT_FILE, {"backup_ms": None, "restored_ms": now_ms})
    store = MeshStore.open(
        data / "state.db",
        author=identity.node_id,
        sign_head=lambda body: identity.sign(HEAD_KIND, HEAD_N, keys.root_fp, body),
        clock=clock,
    )
    store.local_schema(answers.SCHEMA)
    if not (data / AUTHORED).exists():
        write_file(data / AUTHORED, b"")
    accounts = Accounts(store, Passwords(), clock)
    desk = Desk.open(data / "hub.db", accounts)
    return Ground(
        config=config,
        clock=clock,
        keys=keys,
        identity=identity,
        register=register,
        store=store,
        reports=ReportStore.open(data / "report.db"),
        accounts=accounts,
        api_tokens=ApiTokens(store, desk, api_token, clock),
        desk=desk,
        cache=Cache.open(data / "cache", config.cache_gib << 30, clock),
        tls=tls,
        urls=urls,
        port=port,
        first=first,
    )


def _state_of(data: Path) -> tuple[bool, bool]:
    """Return whether this is a first start, and whether earlier ones' database is lost."""
    found, written_before = (data / "state.db").exists(), (data / AUTHORED).exists()
    return not found and not written_before, written_before and not found


async def make_admin(ground: Ground, on_terminal: bool) -> str | None:
    """Make the account ``admin`` if nobody has one; return the password for the terminal.

    Without a terminal it is written to a file (0600) first and None is returned. A hub beside
    other hubs makes none: theirs are on the way. Accounts of an older hub.db move first.
    """
    if await ground.desk.move_accounts() or ground.accounts.list():
        return None
    if not ground.keys.founded or len(ground.register.register.hubs()) > 1:
        return None
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    if not on_terminal:
        write_file(ground.config.data / PASSWORD_FILE, password + "\n", 0o600)
    await ground.accounts.create(ADMIN, "admin", password)
    return password if on_terminal else None


def advertised(config: HubConfig) -> tuple[str, ...]:
    """Return the host names and addresses under which nodes can dial this hub."""
    if config.advertise:
        return config.advertise
    if config.listen not in ANY:
        return (config.listen,)
    return (socket.gethostname(), "127.0.0.1")


def write_ports(data: Path, port: int, udp: int) -> None:
    """Tell other programs where we listen."""
    write_json(data / "run" / "ports.json", {"https": port, "mesh_udp": udp}, 0o644)


def remove_run_files(data: Path) -> None:
    """Take back what says that we run."""
    for name in ("ports.json", "api.sock"):
        (data / "run" / name).unlink(missing_ok=True)


def _api_token(path: Path) -> str:
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        found = secrets.token_urlsafe(API_TOKEN_BYTES)
        write_file(path, found + "\n", 0o600)
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"the API token in {path} cannot be read: {exc}") from exc
    if len(found) < API_TOKEN_BYTES:
        raise Refused(f"the API token in {path} is too short; delete the file for a new one")
    if path.stat().st_mode & 0o077:
        os.chmod(path, 0o600)
    return found


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
