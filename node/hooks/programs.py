"""Foreign programs for hooks: a private folder, an ssh agent in it, and the child shell.

It knows no job. Rules: a private key is in our memory and behind the agent's socket, never in a
file, an argument or the environment; the folder is gone when the program is; the program runs
fenced in (``mesh/host/child.py``) with the host's network.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from mesh.host.child import ChildLimits, Told, nobody, run_told
from node.hooks.outcome import HookFailed
from node.proto.ssh_agent import MESSAGE_BYTES_MAX, KeyRefused, SshAgent

PREFIX: Final = "rackmesh-hook-"
AGENT: Final = "agent"
KNOWN_HOSTS: Final = "known_hosts"
ALIAS: Final = "rackmesh-hook"
"""Name of the one host in known_hosts, whatever its address and port are."""
LEFT_S: Final = 60.0
"""A folder that is younger may not be locked yet."""
OUTPUT_BYTES: Final = 64 << 10
MEMORY_BYTES: Final = 2 << 30
FILE_BYTES: Final = 256 << 20
OPEN_FILES: Final = 256
CONNECTIONS_MAX: Final = 16
PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@asynccontextmanager
async def work_folder() -> AsyncGenerator[Path]:
    """Make a folder that the child may work in, and remove it with all that it left there.

    It is under the system's temporary folder, since a socket's path has at most 107 bytes and
    user nobody enters no data folder. While it lives it is locked; what a killed node left is
    removed on the way.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _locked(folder)
    try:
        await trio.to_thread.run_sync(_remove_left, folder)
        user = nobody()
        if user is not None:
            os.chown(folder, *user)
        yield folder
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder; return the descriptor that holds it, None when somebody else does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left(made: Path) -> None:
    """Remove folders of nodes that are gone: ours, unlocked, and not made just now, as ours."""
    owners, now = {os.geteuid(), *(nobody() or ())[:1]}, made.stat().st_mtime
    for folder in made.parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            old = now - about.st_mtime > LEFT_S
            if not stat.S_ISDIR(about.st_mode) or about.st_uid not in owners or not old:
                continue
            lock = _locked(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def put(folder: Path, name: str, data: bytes) -> None:
    """Write a file that the child may read."""
    path = folder / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        user = nobody()
        if user is not None:
            os.fchown(file.fileno(), *user)


def put_known_hosts(folder: Path, keys: Sequence[str]) -> None:
    """Write which host keys are the right ones."""
    put(folder, KNOWN_HOSTS, "".join(f"{ALIAS} {key}\n" for key in keys).encode())


def ssh_options(folder: Path) -> list[str]:
    """Return ``-o`` words for ssh: this agent, these host keys and nothing of this host's."""
    options = {
        "BatchMode": "yes", "StrictHostKeyChecking": "yes", "HostKeyAlias": ALIAS,
        "UserKnownHostsFile": str(folder / KNOWN_HOSTS), "GlobalKnownHostsFile": "/dev/null",
        "UpdateHostKeys": "no", "PreferredAuthentications": "publickey",
        "IdentityAgent": str(folder / AGENT), "IdentityFile": "none", "ControlMaster": "no",
        "ControlPath": "none", "ForwardAgent": "no", "ForwardX11": "no",
        "ConnectTimeout": "20", "ServerAliveInterval": "15", "ServerAliveCountMax": "4",
        "LogLevel": "ERROR", "EscapeChar": "none",
    }  # fmt: skip
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


@asynccontextmanager
async def key_agent(folder: Path, key: bytes | None, secret: str) -> AsyncGenerator[None]:
    """Answer as an ssh agent in the folder while the context lasts; without a key, nobody."""
    if key is None:
        yield
        return
    try:
        agent = SshAgent(key)
    except KeyRefused as exc:
        raise HookFailed(f"the secret {secret} cannot be used: {exc}", False) from exc
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with listener:
        path = folder / AGENT
        await listener.bind(str(path))
        user = nobody()
        if user is not None:
            os.chown(path, *user)
        path.chmod(0o600)
        listener.listen(CONNECTIONS_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, trio.SocketListener(listener), agent)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


async def run(argv: Sequence[str], folder: Path, time_s: float, env: dict[str, str]) -> Told:
    """Run a program in the folder; tell how it ended."""
    limits = ChildLimits(
        memory_bytes=MEMORY_BYTES, cpu_s=max(int(time_s), 1), file_bytes=FILE_BYTES,
        open_files=OPEN_FILES, time_s=time_s, output_bytes=OUTPUT_BYTES,
    )  # fmt: skip
    base = {"PATH": PATH, "HOME": str(folder), "SHELL": "/bin/sh", "LC_ALL": "C.UTF-8"}
    return await run_told(argv, folder, limits, {**base, **env})


def found(program: str) -> str | None:
    """Return the path of a program, None when this host does not have it."""
    path = shutil.which(program, path=PATH)
    return None if path is None else os.path.realpath(path)


async def _serve(listener: trio.SocketListener, agent: SshAgent) -> None:
    limit = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def connection(stream: trio.SocketStream) -> None:
        try:
            async with stream, limit:
                while (message := await _message(stream)) is not None:
                    answer = await trio.to_thread.run_sync(agent.answer, message)
                    await stream.send_all(len(answer).to_bytes(4, "big") + answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went away

    await trio.serve_listeners(connection, [listener])


async def _message(stream: trio.SocketStream) -> bytes | None:
    head = await _exactly(stream, 4)
    size = int.from_bytes(head, "big")
    if len(head) < 4 or size > MESSAGE_BYTES_MAX:
        return None
    body = await _exactly(stream, size)
    return body if len(body) == size else None


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            break
        data += piece
    return data
