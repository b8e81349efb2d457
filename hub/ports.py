"""What the API and the pages need from the rest of the hub, as Protocols and small values."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hub.accounts import Accounts
from hub.api_tokens import ApiTokens
from hub.consoles import ConsoleDesk
from hub.desk import Desk
from hub.limits import Limits
from hub.live import EventBus, Live
from hub.store import ReportStore
from mesh.answers import Answers
from mesh.host.clock import Clock
from mesh.rest.calls import Call, Keep
from mesh.rest.hook_types import Hook
from mesh.rest.import_types import Imported, ImportRequest
from mesh.rest.mesh_types import Mesh, Topology
from mesh.rest.roles import Role
from mesh.rest.template_types import Rendered, Template, TemplateText
from mesh.rest.types import (
    GroupAccepted,
    GroupVerb,
    Hub,
    OrderAccepted,
    Pending,
    RestoreReport,
    Secret,
    Status,
    Token,
    Trust,
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a signed-in person, a client with an API token, or a local user."""

    name: str
    via: Literal["session", "token", "socket"]
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an operator says of a name; None leaves open, or as it was."""

    name: str
    url: str | None = None
    sha256: str | None = None
    kind: str | None = None
    want: Sequence[str] = ()
    members: Sequence[Mapping[str, str]] = ()
    """Of a live system: {"role": "kernel" or "initrd", "name": a reference}."""
    cmdline: str | None = None
    revalidate_s: int | None = None
    """How often a site asks the origin whether it has other content; 0: never."""


class Orders(Protocol):
    """The one way to ask for work."""

    async def submit(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> OrderAccepted:
        """Resolve names, sign the order and make it durable; raises Refused.

        ``keep`` remembers the answer in the transaction that does so.
        """
        ...

    async def submit_group(
        self, asked: Mapping[str, Any], author: str, keep: Keep | None = None
    ) -> GroupAccepted:
        """Give the same order for many servers."""
        ...

    async def submit_import(
        self, asked: ImportRequest, author: str, keep: Keep | None = None
    ) -> Imported:
        """Make servers of a file: of all its rows, or of none."""
        ...

    async def tell_group(
        self, group: str, kind: str, author: str, keep: Keep | None = None
    ) -> GroupVerb:
        """Cancel or retry the jobs of a group; NotFound when there is none."""
        ...


class Verdicts(Protocol):
    """What operators decide about machines that are not accepted."""

    async def give(self, machine: str, site: str | None, rejected: bool, by: str) -> Pending:
        """Put a pending machine aside or back, by its MAC; raises RequestProblem."""
        ...


class Tokens(Protocol):
    """Join tokens."""

    async def create(self, site: str, roles: list[str], ttl_s: int) -> tuple[Token, str]:
        """Make a token; return what it is and its text, which is shown once."""
        ...

    def list(self) -> list[Token]:
        """Return all tokens, newest first."""
        ...

    async def revoke(self, token_id: str) -> Token:
        """Make a token worthless; NotFound when there is none."""
        ...


class Secrets(Protocol):
    """Secrets, sealed the moment they arrive."""

    async def set(self, secret_id: str, site: str, kind: str, value: str) -> Secret:
        """Seal a value to every node of a site; the plaintext is kept nowhere."""
        ...

    def list(self) -> list[Secret]:
        """Return what is known of all secrets, never their values."""
        ...


class Assets(Protocol):
    """References to content, and content uploaded here."""

    async def declare(self, asked: Declaration) -> None:
        """Make or change a reference."""
        ...

    async def want(self, name: str, site: str) -> None:
        """Make a site hold the asset."""
        ...

    async def unwant(self, name: str, site: str) -> None:
        """Let a site give the asset up."""
        ...

    async def pin(self, name: str, site: str) -> None:
        """Let what a site holds of the asset stay there."""
        ...

    async def unpin(self, name: str, site: str) -> None:
        """Take a pin away again."""
        ...

    async def clone(self, old: str, new: str, want: list[str], cmdline: str | None) -> None:
        """Make another name for the same content."""
        ...

    async def remove(self, name: str) -> None:
        """Take a name away; Conflict while something rests on it."""
        ...

    async def upload(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep uploaded content in the hub's cache and sign its name."""
        ...


class Templates(Protocol):
    """Boot templates."""

    def list(self) -> list[Template]:
        """Return what is there, without the texts."""
        ...

    def get(self, name: str) -> TemplateText:
        """Return one with its text; NotFound when there is none."""
        ...

    async def set(self, name: str, form: str, text: str, by: str) -> Template:
        """Make or change one; BadRequest with the line when it is none."""
        ...

    async def remove(self, name: str) -> Template:
        """Take one away; NotFound when there is none."""
        ...

    async def render(self, name: str, server: str, given: Mapping[str, str]) -> Rendered:
        """Return what a server would get, without its secrets."""
        ...


class Hooks(Protocol):
    """Hooks before and after deploy and release."""

    def list(self) -> list[Hook]:
        """Return what is in force."""
        ...

    def get(self, name: str) -> Hook:
        """Return one; NotFound when there is none."""
        ...

    async def set(self, name: str, asked: Mapping[str, Any], by: str) -> Hook:
        """Make or change one; BadRequest when it is none."""
        ...

    async def remove(self, name: str) -> Hook:
        """Take one away; NotFound when there is none."""
        ...


class Backups(Protocol):
    """Copies of the running hub."""

    async def stream(self) -> AsyncGenerator[bytes]:
        """Make a consistent copy and return its bytes; raises Conflict, StoreFull."""
        ...


class Restored(Protocol):
    """What became of the last restore."""

    def report(self) -> RestoreReport:
        """Return the report; NotFound when there is none."""
        ...

    def dismiss(self) -> None:
        """Forget it; NotFound when there is none."""
        ...


class TrustSource(Protocol):
    """The trust document."""

    def describe(self) -> Trust:
        """Return it."""
        ...

    def hubs(self) -> list[Hub]:
        """Return the hubs and what their keys are worth."""
        ...

    async def replace(self, document: str, lists: Sequence[str] = ()) -> Trust:
        """Take the next one, with the lists that it names; raises BadRequest or Conflict."""
        ...

    def read_only(self) -> str | None:
        """Say why this hub only reads, None when its keys are named."""
        ...


class StatusSource(Protocol):
    """How the hub fares."""

    def status(self) -> Status:
        """Return the status resource."""
        ...


class MeshSource(Protocol):
    """The mesh as this hub sees it."""

    def mesh(self) -> Mesh:
        """Return links, who is away, how fresh."""
        ...

    async def gather(self) -> Topology:
        """Ask every linked member for its links now."""
        ...

    def looked(self) -> tuple[int, Topology] | None:
        """Return what was gathered last and when (Unix ms), and keep it fresh a while."""
        ...


class Exports(Protocol):
    """Content that goes out."""

    async def open(self, name: str) -> Any:
        """Return what a name stands for, with its ``manifest``; raises HubError."""
        ...

    def read(self, export: Any, offset: int) -> AsyncGenerator[bytes]:
        """Yield its bytes from an offset on, verified."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that the HTTP side is given."""

    store: ReportStore
    live: Live
    bus: EventBus
    desk: Desk
    accounts: Accounts
    api_tokens: ApiTokens
    limits: Limits
    clock: Clock
    orders: Orders
    answers: Answers
    tokens: Tokens
    verdicts: Verdicts
    secrets: Secrets
    assets: Assets
    templates: Templates
    hooks: Hooks
    exports: Exports
    backups: Backups
    restored: Restored
    trust: TrustSource
    alike: Mapping[str, Callable[[Call], Awaitable[Any]]]
    """Handlers of what hub and node do alike (mesh/rest/alike.py)."""
    status: StatusSource
    mesh: MeshSource
    consoles: ConsoleDesk
    settle: Callable[[], Awaitable[None]]
    """Returns when the reporting store holds every write before it."""
    not_ready: Callable[[], str | None]
    """Says why no order can be taken now, None when it can."""
    hub_name: str
    region: str
    node_id: str
    build: str

    def __repr__(self) -> str:
        """Never show the token."""
        return f"Services({self.hub_name})"
