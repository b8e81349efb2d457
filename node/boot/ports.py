"""What the boot services need from others, as protocols: decisions and assets.

It knows nothing of jobs, of the cache's files or of how rows travel. Rule: boot services hold
no state about a machine; they ask these ports and answer, so that any node of the site can
serve the next request of the same machine.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Refusal:
    """No boot script for this machine, and the one sentence that its console shows."""

    sentence: str
    status: int = 403


class BootDecisions(Protocol):
    """What a machine shall do next: decided by the jobs of this site."""

    async def script_for(self, mac: str, client_ip: str) -> str | Refusal:
        """Return the whole iPXE script for a machine (node/proto/boot_script.py makes them).

        The caller has checked that ``client_ip`` is the address bound to ``mac``.
        """
        ...

    async def agent(
        self, path: str, body: bytes, headers: Mapping[str, str], client_ip: str
    ) -> tuple[int, dict[str, Any]]:
        """Answer one POST under /agent/v1/; header names are lower case."""
        ...

    async def media(
        self, capability: str, name: str, asked_bytes: int, client_ip: str
    ) -> str | Refusal | None:
        """Return the asset that may be read under a capability of a machine's own boot.

        ``name`` as it stood in the path; None: it was only told that the machine boots.
        """
        ...

    async def disc(self, capability: str, client_ip: str) -> str | Refusal:
        """Return what the loader on a server's boot disc is told, under its capability."""
        ...

    async def answers(self, capability: str, name: str, client_ip: str) -> str | Refusal:
        """Return the text of a file that an installer reads about its machine."""
        ...

    async def phone_in(
        self, capability: str, fields: Mapping[str, str], client_ip: str
    ) -> tuple[int, dict[str, Any]]:
        """Answer the phone-in of an installed operating system."""
        ...


class AssetReader(Protocol):
    """One asset open for reading, complete or still arriving."""

    @property
    def fd(self) -> int:
        """An open descriptor; whoever sends from it makes its own duplicate first."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole asset."""
        ...

    async def wait(self, offset: int, length: int) -> None:
        """Return when these bytes are there and verified; raise when they never will be."""
        ...


class AssetManifest(Protocol):
    """A manifest as the cache knows it."""

    @property
    def core(self) -> bytes:
        """Canonical bytes of the core; their BLAKE3 is the asset id."""
        ...

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the whole content."""
        ...


class AssetSource(Protocol):
    """The part of the cache that is served to machines."""

    def manifest(self, asset: str) -> AssetManifest | None:
        """Return the manifest of an asset, or None."""
        ...

    def reader(self, asset: str) -> AssetReader | None:
        """Return a reader, or None for an asset that is neither here nor arriving."""
        ...


class AssetSummoner(Protocol):
    """Whoever can have an asset brought here that somebody asks for."""

    async def summon(self, asset: str) -> Callable[[], None] | None:
        """Return once the asset is here or arriving, None if it will not be for now.

        It is kept on its way until what is returned is called.
        """
        ...


WaitRange = Callable[[int, int], Awaitable[None]]
"""``wait(offset, length)``: returns when these bytes may be sent."""
