"""What ``/api/v1`` takes in: queries and bodies as types with their limits.

``mesh/rest/calls.py`` checks what comes in against them and ``mesh/rest/openapi.py`` describes
them, so the two cannot differ. Rule: an unknown field is refused, and null is the same as
missing.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from mesh.proto import hook
from mesh.proto.cleanup import LEVELS, METHODS, SAMPLES_LEAST, SAMPLES_MOST
from mesh.proto.content import KINDS as KINDS_OF_ASSET
from mesh.proto.order import GROUPED, KINDS
from mesh.proto.references import CMDLINE_CHARS_MAX, MEMBERS_MAX
from mesh.proto.references import ROLES as MEMBER_ROLES
from mesh.proto.template_text import FORMATS, TEXT_BYTES_MAX, VAR_CHARS_MAX, VARS_MAX
from mesh.rest.roles import ROLES

LIMIT: Final = 1000
LIMIT_MAX: Final = 5000
CURSOR_CHARS_MAX: Final = 2000
TTL_S_MAX: Final = 30 * 24 * 3600
TTL_S: Final = 24 * 3600
TEXT_CHARS_MAX: Final = 4096
SECRET_CHARS_MAX: Final = 16 * 1024
KEY_CHARS_MAX: Final = 128
DOCUMENT_CHARS_MAX: Final = 90_000
"""A signed record of 64 KiB in base64."""
GROUP_MAX: Final = 1000
"""Most servers of one group."""
PASSWORD_CHARS_MIN: Final = 8
PASSWORD_BYTES_MAX: Final = 256
LISTS_MAX: Final = 8
"""Lists with one document: more do not fit a request of 1 MiB."""
PLACE_CHARS_MAX: Final = 600
PIECE_CHARS_MAX: Final = 700 << 10
"""Base64 of mesh.proto.courier.PIECE_BYTES_MAX."""
VALID_S_MAX: Final = 24 * 3600
API_TTL_S_MAX: Final = 10 * 366 * 24 * 3600

SiteName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?$",
        max_length=31,
        description="1 to 31 lower-case letters, digits and dashes",
    ),
]
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        max_length=63,
        description="1 to 63 letters, digits, dots, dashes, underscores",
    ),
]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=KEY_CHARS_MAX,
        pattern=r"^[!-~]+$",
        description="1 to 128 visible ASCII characters",
    ),
]
ValidS = Annotated[
    int,
    Meta(
        ge=1,
        le=VALID_S_MAX,
        description="seconds in which the site must begin it, else it runs out; default a day",
    ),
]
Word = Annotated[str, Meta(max_length=64)]
Methods = Annotated[list[Word], Meta(max_length=16, description="of " + ", ".join(METHODS))]
RoleName = Annotated[str, Meta(extra_json_schema={"enum": list(ROLES)})]
Password = Annotated[
    str,
    Meta(
        min_length=PASSWORD_CHARS_MIN,
        max_length=PASSWORD_BYTES_MAX,
        description=f"{PASSWORD_CHARS_MIN} characters to {PASSWORD_BYTES_MAX} bytes",
    ),
]

LastEvent = Annotated[str, Meta(max_length=100, description="id of the last event had")]


class Closed(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A request that has these fields and no others."""


class NoQuery(Closed):
    """No query."""


class ListQuery(Closed):
    """Which part of a list."""

    filter: Annotated[
        str, Meta(max_length=2000, description="as in site:fra1 state:!active text")
    ] | None = None  # fmt: skip
    sort: Annotated[
        str, Meta(max_length=200, description="fields, comma between, - before for descending")
    ] | None = None  # fmt: skip
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIMIT
    cursor: Annotated[
        str, Meta(max_length=CURSOR_CHARS_MAX, description="`next` of the page before")
    ] | None = None  # fmt: skip
    fields: Annotated[
        str, Meta(max_length=500, description="fields to show, comma between; default: all")
    ] | None = None  # fmt: skip


class LogQuery(Closed):
    """Which lines of a job's log."""

    after: Annotated[int, Meta(ge=0, le=1 << 53, description="number of the last line had")] = 0
    follow: bool = False
    """Go on until the job ends (hub only; a node answers with what there is)."""


class ConsoleQuery(Closed):
    """How somebody comes to a console."""

    write: bool = False
    """Write at once, if nobody else does; needs the role operator."""
    take: bool = False
    """Write, though somebody else does."""
    steal: bool = False
    """Take the console away from another client of the BMC."""


class StateQuery(Closed):
    """Which piece of the state."""

    site: SiteName | None = None
    at: Annotated[str, Meta(max_length=PLACE_CHARS_MAX)] | None = None
    """``next`` of the piece before; without it, the first."""


class StateRequest(Closed):
    """A piece of state that was carried here, in base64."""

    piece: Annotated[str, Meta(min_length=1, max_length=PIECE_CHARS_MAX)]


class SealRequest(Closed):
    """The contents of a bundle, to be signed."""

    index: Annotated[
        str, Meta(pattern=r"^[0-9a-f]{64}$", description="64 lower-case hexadecimal digits")
    ]


class BundleRequest(Closed):
    """A bundle on the node's own machine, and where to go on."""

    file: Text
    at: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None


class EventQuery(Closed):
    """Where a stream of events begins."""

    since: LastEvent | None = None


class OrderRequest(Closed):
    """The one way to ask for work.

    ``server`` is a name or id, ``machine`` a MAC (accept), ``job`` a job id (cancel, retry);
    ``site`` may be left out where it follows from those. ``params`` by kind: accept {name, bmc:
    {url, secret, boot_by}}, deploy {image, hostname, ssh_keys, user_data, no_hooks}, release
    {no_hooks}, power {on}, boot-by {by}, secret.release (whose ``node`` is a name or id)
    {secrets: [ids], all if missing}.
    """

    kind: Annotated[str, Meta(extra_json_schema={"enum": sorted(KINDS)})]
    site: SiteName | None = None
    server: Word | None = None
    machine: Word | None = None
    job: Word | None = None
    node: Word | None = None
    params: dict[str, Any] | None = None
    valid_s: ValidS | None = None
    idempotency_key: Key | None = None


class GroupRequest(Closed):
    """The same order for many servers: those named, or all that pass a filter.

    ``params`` as in an order. With ``expect`` nothing is done unless so many servers are meant.
    """

    kind: Annotated[str, Meta(extra_json_schema={"enum": sorted(GROUPED)})]
    servers: Annotated[list[Word], Meta(min_length=1, max_length=GROUP_MAX)] | None = None
    filter: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    params: dict[str, Any] | None = None
    expect: Annotated[int, Meta(ge=0)] | None = None
    valid_s: ValidS | None = None


class VerdictRequest(Closed):
    """Which machine is meant where several sites have seen the same address."""

    site: SiteName | None = None


class TokenRequest(Closed):
    """A join token to make, for a day without ``ttl_s``; one for a hub has no site."""

    site: SiteName | None = None
    roles: Annotated[list[Word], Meta(max_length=8)] | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=TTL_S_MAX)] | None = None


class TrustRequest(Closed):
    """The next trust document, signed by the root."""

    document: Annotated[str, Meta(min_length=1, max_length=DOCUMENT_CHARS_MAX)]
    lists: Annotated[
        list[Annotated[str, Meta(max_length=DOCUMENT_CHARS_MAX)]], Meta(max_length=LISTS_MAX)
    ] | None = None  # fmt: skip
    """Signed lists of what stands of the keys that it voids."""


class AddressQuery(Closed):
    """Which BMC."""

    url: Annotated[str, Meta(min_length=1, max_length=512, description="https://HOST[:PORT]")]


class SecretRequest(Closed):
    """A secret to seal; ``kind`` bmc wants {"username", "password"} as JSON text."""

    site: SiteName
    kind: Annotated[str, Meta(extra_json_schema={"enum": ["bmc", "opaque"]})]
    value: Annotated[str, Meta(min_length=1, max_length=SECRET_CHARS_MAX)]


class MemberRequest(Closed):
    """A file of a live system: a reference of kind file."""

    role: Annotated[str, Meta(max_length=16, extra_json_schema={"enum": list(MEMBER_ROLES)})]
    name: Name


class AssetRequest(Closed):
    """A reference to content, to make or change; a live system has members instead."""

    name: Name
    url: Text | None = None
    sha256: Text | None = None
    kind: Annotated[
        str, Meta(max_length=16, extra_json_schema={"enum": list(KINDS_OF_ASSET)})
    ] | None = None  # fmt: skip
    members: Annotated[list[MemberRequest], Meta(max_length=MEMBERS_MAX)] | None = None
    cmdline: Annotated[str, Meta(max_length=CMDLINE_CHARS_MAX)] | None = None
    want: Annotated[list[SiteName], Meta(max_length=100)] | None = None
    revalidate_s: Annotated[int, Meta(ge=0, le=31_536_000)] | None = None
    """How often a site asks the origin for other content: 0 never, else 3600 or more."""


class CloneRequest(Closed):
    """Another name for the same content."""

    name: Name
    cmdline: Annotated[str, Meta(max_length=CMDLINE_CHARS_MAX)] | None = None
    want: Annotated[list[SiteName], Meta(max_length=100)] | None = None


class WantRequest(Closed):
    """A site that shall hold an asset."""

    site: SiteName


class CheckQuery(Closed):
    """Where to go on reading an asset."""

    first: Annotated[int, Meta(ge=0, le=1 << 32)] = 0


class CollectRequest(Closed):
    """Whether content goes, or is only named."""

    dry_run: bool | None = None


class AccountRequest(Closed):
    """An account to make."""

    name: Name
    role: RoleName
    password: Password


class AccountChange(Closed):
    """What shall change of an account; what is missing stays."""

    role: RoleName | None = None
    disabled: bool | None = None


class PasswordRequest(Closed):
    """A new password."""

    password: Password


class OwnPasswordRequest(Closed):
    """A new password of who is signed in, and the present one."""

    current: Text
    password: Password


class ApiTokenRequest(Closed):
    """An API token to make; without ``ttl_s`` it does not end."""

    name: Name
    role: RoleName
    ttl_s: Annotated[int, Meta(ge=1, le=API_TTL_S_MAX)] | None = None


class SignInRequest(Closed):
    """Who signs in."""

    account: Text
    password: Text


class TemplateRequest(Closed):
    """A boot template: Jinja2, see README."""

    format: Annotated[str, Meta(extra_json_schema={"enum": list(FORMATS)})]
    text: Annotated[str, Meta(min_length=1, max_length=TEXT_BYTES_MAX)]


class CleanupRequest(Closed):
    """How disks are erased; what is not given stays as it is."""

    level: Annotated[str, Meta(extra_json_schema={"enum": list(LEVELS)})] | None = None
    methods: Methods | None = None
    fallback: Methods | None = None
    samples: Annotated[int, Meta(ge=SAMPLES_LEAST, le=SAMPLES_MOST)] | None = None
    inherit: bool | None = None
    """Of a server: go by its site's again."""


class HookRequest(Closed):
    """A hook; which fields go with which kind stands in README."""

    point: Annotated[str, Meta(extra_json_schema={"enum": list(hook.POINTS)})]
    kind: Annotated[str, Meta(extra_json_schema={"enum": list(hook.KINDS)})]
    site: SiteName | None = None
    secret: Word | None = None
    """Id of a secret that begins with hook-; {site} in it stands for the order's site."""
    url: Annotated[str, Meta(max_length=hook.URL_CHARS_MAX)] | None = None
    pin: Annotated[str, Meta(max_length=100)] | None = None
    command: Annotated[str, Meta(max_length=hook.COMMAND_CHARS_MAX)] | None = None
    host: Annotated[str, Meta(max_length=hook.HOST_CHARS_MAX)] | None = None
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    user: Word | None = None
    host_key: Annotated[str, Meta(max_length=hook.HOST_KEY_CHARS_MAX)] | None = None
    playbook: Annotated[str, Meta(max_length=110)] | None = None
    asset: Name | None = None
    connection: (
        Annotated[str, Meta(extra_json_schema={"enum": list(hook.CONNECTIONS)})] | None
    ) = None
    repeatable: bool | None = None
    on_failure: (
        Annotated[str, Meta(extra_json_schema={"enum": list(hook.ON_FAILURE)})] | None
    ) = None
    timeout_s: Annotated[int, Meta(ge=1, le=hook.TIMEOUT_S_MAX)] | None = None
    tries: Annotated[int, Meta(ge=1, le=hook.TRIES_MAX)] | None = None


class RenderRequest(Closed):
    """For which server, with which variables of one's own."""

    server: Text
    vars: (
        Annotated[
            dict[str, Annotated[str, Meta(max_length=VAR_CHARS_MAX)]],
            Meta(max_length=VARS_MAX),
        ]
        | None
    ) = None
