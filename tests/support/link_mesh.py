"""Peers on loopback for tests: members of one organisation, their links, a hub's TLS door.

The register is the real one; only its file is left out (``Roster``).
"""

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mesh.identity import Identity
from mesh.link.join import JoinService
from mesh.link.level import Level
from mesh.link.link import Link
from mesh.link.peers import Peers
from mesh.link.split import is_mesh_request, read_head
from mesh.link.tls import server_context
from mesh.link.ws import serve_websocket
from mesh.proto.register import Merged, Register
from mesh.proto.trust import make_hub_record
from tests.support.trust import Org, identity

WAIT_S = 10.0


class Roster:
    """A register store without a file."""

    def __init__(self, org: Org) -> None:
        self.register = Register(org.root_fp)
        self._level = Level()
        for record in org.register.records():
            self.register.merge(record)

    @property
    def version(self) -> int:
        return self._level.version

    def merge(self, record: bytes) -> bool:
        merged = isinstance(self.register.merge(record), Merged)
        if merged:
            self._level.bump()
        return merged

    async def wait_past(self, version: int) -> int:
        return await self._level.wait_past(version)


class StepClock:
    def now_ms(self) -> int:
        return 1_800_000_000_000


class Place:
    """One member with its Peers; the addresses are a plain dict that tests change."""

    def __init__(
        self,
        org: Org,
        label: str,
        *,
        listen: bool = True,
        hub_link: bool = False,
        services: Mapping[str, Callable[[Link], Awaitable[None]]] | None = None,
        rpc: Mapping[str, Callable[[str, Any], Awaitable[Any]]] | None = None,
        streams: Mapping[str, Callable[[str, Any, Any], Awaitable[None]]] | None = None,
        who: Identity | None = None,
        **more: Any,
    ) -> None:
        self.identity: Identity = who or identity(label)
        self.id = self.identity.node_id
        self.roster = Roster(org)
        self.addresses: dict[str, list[tuple[str, int]]] = {}
        self.peers = Peers(
            self.identity,
            self.roster,
            listen=("127.0.0.1", 0) if listen else None,
            hub_link=hub_link,
            services=services or {},
            rpc=rpc or {},
            streams=streams,
            addresses=lambda: self.addresses,
            clock=StepClock(),
            **more,
        )

    def knows(self, other: "Place") -> None:
        self.addresses[other.id] = [("127.0.0.1", other.peers.port)]
        self.peers.look_again()


async def until(peers: Peers, check: Callable[[], bool]) -> None:
    """Wait until a state of the links holds."""
    with trio.fail_after(WAIT_S):
        while True:
            version = peers.version
            if check():
                return
            await peers.wait_past(version)


async def eventually(check: Callable[[], bool]) -> None:
    """Wait for a state that has no level to wait for."""
    with trio.fail_after(WAIT_S):
        while not check():
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def running(*places: Place) -> AsyncIterator[trio.Nursery]:
    """Run the links of some members; everything ends with the block."""
    async with trio.open_nursery() as nursery:
        with trio.fail_after(4 * WAIT_S):
            for place in places:
                await nursery.start(place.peers.run)
            yield nursery
        nursery.cancel_scope.cancel()


def make_certificate(folder: Path) -> tuple[Path, Path, bytes]:
    """Make a self-signed certificate; return its file, its key's file and its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub.test")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "hub.pem", folder / "hub.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private, certificate.fingerprint(hashes.SHA256())


class HubDoor:
    """A hub's TLS port: members' WebSocket for ``peers``, anything else gets a plain answer."""

    def __init__(self, folder: Path) -> None:
        pem, key, self.fingerprint = make_certificate(folder)
        self.context = server_context(pem, key)
        self.port = 0
        self.peers: Peers | None = None
        self.join: JoinService | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def announce(self, org: Org, who: Identity, version: int = 2) -> bytes:
        return make_hub_record(who, org.root_fp, version=version, urls=[self.url])

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)
        try:
            await secured.do_handshake()
            head, whole = await read_head(secured)
            if is_mesh_request(head):
                assert self.peers is not None
                await serve_websocket(whole, self.peers, self.join)
            else:
                await whole.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb")
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            await trio.aclose_forcefully(stream)
