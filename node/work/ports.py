"""What work needs of others, as protocols, and what it may be told.

It knows no other room's insides; the composition root hands in what fits. Rule: everything that
can fail with a sentence raises ``mesh.errors.Refused`` or a ``drivers.errors.DriverError``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from drivers.api import Bmc
from mesh.proto.order import Order
from node.proto.caps import Caps
from node.proto.tenure import Times

T = TypeVar("T")


class Row(Protocol):
    """A row of the replicated state."""

    @property
    def author(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def body(self) -> dict[str, Any]: ...  # noqa: D102


class Tx(Protocol):
    """A store transaction."""

    @property
    def now_ms(self) -> int: ...  # noqa: D102
    def put(self, scope: str, table: str, key: str, body: Mapping[str, Any], /) -> Any:
        """Write our row."""
        ...

    def drop(self, scope: str, table: str, key: str, /) -> Any:
        """Take our row back."""
        ...

    def get(self, scope: str, table: str, key: str, /) -> Any:
        """Return the merged row, or None."""
        ...

    def rows(self, scope: str, table: str, /) -> Any:
        """Return the merged rows of a table."""
        ...

    def own(self, scope: str, table: str, key: str, /) -> Any:
        """Return our row, or None."""
        ...

    def execute(self, sql: str, args: Sequence[Any] = (), /) -> Any:
        """Run SQL on our local tables; return a cursor."""
        ...


class Store(Protocol):
    """The part of MeshStore that work uses."""

    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def full(self) -> bool:
        """Whether a commit found no room on the disk and there is none yet."""
        ...

    def get(self, scope: str, table: str, key: str, /) -> Any:
        """Return the merged row, or None."""
        ...

    def rows(self, scope: str, table: str, /) -> Any:
        """Return the merged rows of a table (a list of Row)."""
        ...

    def authored(self, scope: str, table: str, /) -> Any:
        """Return the rows of every author (a list of Row)."""
        ...

    def head(self, scope: str, /) -> Any:
        """Return (epoch, seq) of our own set."""
        ...

    def query(self, sql: str, args: Sequence[Any] = (), /) -> Any:
        """Read our local tables, as committed."""
        ...

    def local_schema(self, statements: Sequence[str], /) -> Any:
        """Register tables of our own."""
        ...

    async def write(self, fn: Callable[[Any], T], /) -> T:
        """Run ``fn(tx)``; what it wrote is durable on return."""
        ...

    async def wait_past(self, version: int, /) -> int:
        """Return when the store's version is above this one."""
        ...


class Receipts(Protocol):
    """Replication, as far as work asks it."""

    async def wait_receipt(
        self, scope: str, epoch: int, seq: int, timeout_s: float, /
    ) -> str | None:
        """Return another node of the site that has our set up to there durably, or None."""
        ...


class Members(Protocol):
    """Who belongs to the site (mesh/proto/register.py)."""

    def members(self) -> Any:
        """Return all members: node_id, site, roles, status."""
        ...

    def active(self, node_id: str, /) -> bool:
        """Whether a node is an active member."""
        ...


class Peers(Protocol):
    """Links to other members."""

    def connected(self) -> Mapping[str, Any]:
        """Return the node ids with a live link."""
        ...

    async def rpc(self, node_id: str, method: str, body: Any, timeout_s: float, /) -> Any:
        """Call another node; raises RemoteRefused or Unreachable."""
        ...


class Manifest(Protocol):
    """What an asset is."""

    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def sha256(self) -> str: ...  # noqa: D102


class AssetCache(Protocol):
    """The cache, as far as work looks into it."""

    def holds(self, asset: str, /) -> bool:
        """Whether an asset is here, whole and verified."""
        ...

    def manifest(self, asset: str, /) -> Manifest | None:
        """Return what an asset is, or None."""
        ...


class Assets(Protocol):
    """The node's asset service."""

    async def want(
        self, name: str, asset: str, progress: Callable[[int, int], Awaitable[None]], /
    ) -> None:
        """Return when the asset is whole here; ``progress(have, of)`` counts chunks."""
        ...

    def trouble(self, name: str, /) -> str | None:
        """Return why a name does not come forward, in one sentence."""
        ...

    def waits_for(self, name: str, /) -> str | None:
        """Return what a wanted name waits for before it is on its way here, if anything."""
        ...


class SiteSecrets(Protocol):
    """The site secrets that this node can open (mesh/site_secret.py)."""

    def current(self) -> tuple[int, bytes] | None:
        """Return (epoch, secret), or None while nobody has sealed one to this node."""
        ...

    def secret(self, epoch: int, /) -> bytes | None:
        """Return the secret of an accepted epoch, or None."""
        ...


OpenOrder = Callable[[bytes, int | None], Order]
"""``open_order(signed, now_ms)`` for this site; raises OrderRefused with one sentence; with
None an order that was admitted before is read again without asking for its time."""
OpenBmc = Callable[
    [str, Mapping[str, object], Callable[[], bool]], AbstractAsyncContextManager[Bmc]
]
"""``open_bmc(url, login, may_send)``; ``may_send`` is asked before each message."""
Holds = Callable[[Mapping[str, Any]], bool]
"""Whether this node may work on a job (its row) now; from any thread."""
Credentials = Callable[[str], Mapping[str, object]]
"""Secret id -> {"username", "password"}; raises Refused when it was not released to us."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much at once, and how long; seconds unless the name says otherwise."""

    jobs_max: int = 32
    """Jobs that this node runs at a time; others are queued."""
    destructive_max: int = 8
    """Of these, jobs that destroy data."""
    caps: Caps = field(default_factory=Caps)
    """Of the whole site."""
    bmc_calls_max: int = 16
    """Conversations with BMCs at a time."""
    fetches_max: int = 4
    """Images that are fetched at a time."""
    receipt_s: float = 5.0
    """How long a begin waits for another node before the step goes on solo."""
    settle_s: float = 30.0
    """How long an order waits for a job row of another node: when it is older than our start,
    or when its runner is out of reach (longer than any anti-entropy between live nodes)."""
    meet_s: float = 2.0
    """After a start or a standstill: how long all other nodes must be linked, so that their
    rows are here, before we go on with what nobody else is known to know of."""
    stall_s: float = 15.0
    """A process that looked at its work so long ago stood still; above ``rescan_s``."""
    rescan_s: float = 5.0
    """Longest pause between two looks at the orders."""
    coalesce_s: float = 0.2
    """Shortest pause between two looks at the orders."""
    read_back_s: float = 60.0
    """How long a BMC may take to say what we have set; below a step's limit."""
    read_back_poll_s: float = 1.0
    lost_s: float = 600.0
    """Silence after which a machine is power cycled; longer than a slow server's self-test."""
    forward_s: float = 10.0
    """An agent's call to another node of the site."""
    log_lines_max: int = 500
    """Lines that are kept per job."""

    tenure: Times = field(default_factory=Times)
    """Leases of jobs, and when they move to another node."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        assert self.jobs_max >= 1
        assert self.read_back_poll_s <= self.read_back_s
        assert self.coalesce_s <= self.rescan_s < self.stall_s


CAPABILITY_MS: Final = 3_600_000
"""Life of a boot capability: longer than the slowest boot."""
PHONE_CAPABILITY_MS: Final = 7 * 86_400_000
"""Life of a phone-in capability: a machine may be switched on days later."""
MEDIA_CAPABILITY_MS: Final = 7 * 86_400_000
"""Life of a media capability: an ISO may be read for as long as it runs."""
