"""Where hooks go in a test: an HTTPS service that does as told, and a real sshd."""

import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h11
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.link_mesh import make_certificate

SSHD = "/usr/sbin/sshd"
START_S = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken"
Answer = Callable[[trio.abc.Stream], Awaitable[None]] | bytes


@dataclass
class Asked:
    """One request that came."""

    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookHost:
    """An HTTPS service; ``answers`` are given in turn, the last one for good."""

    url: str
    pin: str
    certificate: Path
    answers: list[Answer] = field(default_factory=lambda: [OK])
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self.connections += 1
        try:
            async with stream:
                await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # it went away

    async def _answer(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        connection, body, request = h11.Connection(h11.SERVER), b"", None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                return
            else:
                break
        assert request is not None
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.asked.append(Asked(request.target.decode(), headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, bytes):
            await stream.send_all(answer)
        else:
            await answer(stream)


@asynccontextmanager
async def webhook_host(folder: Path) -> AsyncGenerator[WebhookHost]:
    """Run one on loopback."""
    pem, key, fingerprint = make_certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, key)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    host = WebhookHost(f"https://127.0.0.1:{port}/hook", fingerprint.hex(), pem)
    secured = trio.SSLListener(listener, context, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, host.serve, [secured])
        yield host
        nursery.cancel_scope.cancel()


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    """Return an answer with a status and a body."""
    lines = [f"HTTP/1.1 {code} X", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def new_key() -> tuple[bytes, str]:
    """Return a private key in OpenSSH's form and its public line."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return private, public.decode()


@dataclass(frozen=True)
class SshHost:
    """A running sshd."""

    port: int
    user: str
    key: bytes
    """A private key that it admits."""
    host_key: str


@contextmanager
def hook_folders(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Let hooks make their folders in one of this test's own, whose path is short."""
    with tempfile.TemporaryDirectory(prefix="rmh-") as name:
        os.chmod(name, 0o711)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def need_sshd() -> None:
    """Skip the test where it is not installed."""
    if not os.path.exists(SSHD) or not shutil.which("ssh"):
        pytest.skip("sshd is missing: apt-get install openssh-server openssh-client")


@asynccontextmanager
async def ssh_host(folder: Path) -> AsyncGenerator[SshHost]:
    """Run OpenSSH's sshd on loopback; it admits one key."""
    process, host = start_sshd(folder)
    try:
        with trio.fail_after(START_S):
            while not _listens(host.port):
                assert process.poll() is None, (folder / "sshd.log").read_text()
                await trio.sleep(0.02)
        yield host
    finally:
        process.terminate()
        process.wait()


def start_sshd(folder: Path) -> tuple[subprocess.Popen[bytes], SshHost]:
    """Start an sshd; who calls stops it."""
    folder.mkdir(exist_ok=True)
    host_private, host_public = new_key()
    private, public = new_key()
    (folder / "host_key").write_bytes(host_private)
    (folder / "host_key").chmod(0o600)
    (folder / "admitted").write_text(f"{public}\n")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = (
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host_key",
        f"AuthorizedKeysFile {folder}/admitted", "StrictModes no", "UsePAM no",
        "PidFile none", "PermitRootLogin prohibit-password", "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
    )  # fmt: skip
    (folder / "sshd.conf").write_text("\n".join(options) + "\n")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        argv = [SSHD, "-D", "-e", "-f", str(folder / "sshd.conf")]
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    user = pwd.getpwuid(os.geteuid()).pw_name
    return process, SshHost(port, user, private, host_public)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
