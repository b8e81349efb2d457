"""The table of operations: everything that ``/api/v1`` can do stands here once.

Hub and node bind their handlers to it by id, the guard asks it who may, the OpenAPI document is
made from it, and the command line is compared with it. Rule: a route that is not in the table
cannot exist, and an operation without a route ends the program at its start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from mesh.rest import bmc_types as bmc
from mesh.rest import erase_types as erase
from mesh.rest import health_types as health
from mesh.rest import hook_types as hook
from mesh.rest import import_types as imports
from mesh.rest import mesh_types as mesh
from mesh.rest import requests as ask
from mesh.rest import shelf_types as shelf
from mesh.rest import template_types as template
from mesh.rest import trust_types as trust
from mesh.rest import types as show
from mesh.rest.roles import Role, covers

PREFIX: Final = "/api/v1"
SOCKET: Final = "this address is a WebSocket: ask for an upgrade"
"""What is wrong with a plain request for an operation of the form ``socket``."""
Server = Literal["hub", "node"]
BOTH: Final[tuple[Server, ...]] = ("hub", "node")
HUB: Final[tuple[Server, ...]] = ("hub",)
NODE: Final[tuple[Server, ...]] = ("node",)
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Form = Literal["list", "item", "lines", "events", "document", "bytes", "nothing", "socket"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the API."""

    id: str
    method: Method
    path: str
    """Below PREFIX; ``{name}`` is one part of the path."""
    summary: str
    role: Role | None
    """The least role that may; None: whoever reaches the daemon."""
    noun: str
    """Of the answer's schema, ``rackmesh/<noun>/1``."""
    answer: Any
    """Type of the item or, in a list, of each; of a whole document."""
    form: Form = "item"
    at: tuple[Server, ...] = BOTH
    """Who serves it."""
    query: type[ask.Closed] = ask.NoQuery
    body: type[ask.Closed] | None = None
    """None: no body. A body of bytes has its type in ``content``."""
    content: str | None = None
    status: int = 200
    secret: bool = False
    """The answer holds a secret: it is kept in memory only."""

    @property
    def repeats(self) -> bool:
        """Tell whether an Idempotency-Key is understood."""
        return self.method == "POST" and self.role is not None

    def allows(self, role: str) -> bool:
        """Tell whether somebody with this role may."""
        return self.role is None or covers(role, self.role)


def _list(noun: str, answer: Any, summary: str, **more: Any) -> Operation:
    more.setdefault("role", "viewer")
    words = "".join(word.capitalize() for word in noun.split("-"))
    return Operation(
        id=f"list{words}", method="GET", path=f"/{noun}", summary=summary,
        noun=noun, answer=answer, form="list", query=ask.ListQuery, **more,
    )  # fmt: skip


def _get(id_: str, path: str, noun: str, answer: Any, summary: str, **more: Any) -> Operation:
    more.setdefault("role", "viewer")
    return Operation(
        id=id_, method="GET", path=path, summary=summary, noun=noun, answer=answer, **more
    )


_READS: Final = (
    _get("getVersion", "/version", "version", show.Version, "Say which build answers."),
    _get("getOpenapi", "/openapi.json", "openapi", dict[str, Any],
         "Describe this API as an OpenAPI 3.1 document.", form="document"),
    _get("getStatus", "/status", "status", show.Status, "Say how the hub or node fares."),
    _get("getHoldings", "/holdings", "holdings", show.Holdings,
         "Show digests of all that is held, to compare members."),
    _list("sites", show.Site, "List the sites with their counts."),
    _list("nodes", show.Node, "List the members of the mesh."),
    _list("servers", show.Server, "List the accepted servers."),
    _get("getServer", "/servers/{server}", "server", show.Server,
         "Show a server by name or id."),
    _get("getInventory", "/servers/{server}/inventory", "inventory", show.Inventory,
         "Show what a server is made of, as its ramdisk found it."),
    _get("openConsole", "/servers/{server}/console", "console", None,
         "Watch a server's serial console and write to it, over a WebSocket (README).",
         form="socket", query=ask.ConsoleQuery, status=101),
    _list("pending", show.Pending, "List machines that were seen and not accepted."),
    _list("bmcs", bmc.FoundBmc, "List the BMCs that scans have found."),
    _list("jobs", show.Job, "List jobs, those in hand first."),
    _get("getJob", "/jobs/{job}", "job", show.Job, "Show a job with its steps."),
    _get("getJobLog", "/jobs/{job}/logs", "line", show.LogLine,
         "Read or follow a job's log: a JSON object a line, or server-sent events.",
         form="lines", query=ask.LogQuery),
    _list("groups", show.Group, "List orders that were given together, newest first."),
    _get("getGroup", "/groups/{group}", "group", show.Group, "Show how a group fares."),
    _list("assets", show.Asset, "List assets and where they are."),
    _get("getAsset", "/assets/{name}", "asset", show.Asset, "Show an asset by name."),
    _list("tokens", show.Token, "List join tokens, never their secrets.", at=HUB),
    _list("secrets", show.Secret, "List secrets, never their values.", at=HUB),
    _get("followEvents", "/events", "event", show.Event,
         "Follow what changes, as server-sent events.", form="events", query=ask.EventQuery,
         at=HUB),
)  # fmt: skip

_MESH: Final = (
    _get("getMesh", "/mesh", "mesh", mesh.Mesh,
         "Show the mesh as this member sees it: links, who is away, how fresh."),
    _get("getTopology", "/mesh/topology", "topology", mesh.Topology,
         "Show who has links with whom, asking every linked member now."),
)  # fmt: skip

_BMC: Final = (
    _get("getServerSensors", "/servers/{server}/sensors", "server-sensors",
         health.ServerSensors, "Read a server's sensors through its BMC, now."),
    _get("getServerEvents", "/servers/{server}/events", "server-events", health.ServerEvents,
         "Read the newest entries of the event log of a server's BMC, now."),
    _get("getServerFirmware", "/servers/{server}/firmware", "server-firmware",
         health.ServerFirmware, "Read the firmware versions that a server's BMC names, now."),
    _get("getServerBios", "/servers/{server}/bios", "server-bios", health.ServerBios,
         "Read the firmware settings of a server through its BMC, now."),
    _get("getBmcCertificate", "/sites/{site}/bmc-certificate", "bmc-certificate",
         health.BmcCertificate, "Look at the certificate that a BMC's address shows to a site.",
         role="operator", query=ask.AddressQuery),
)  # fmt: skip

_WRITES: Final = (
    Operation(
        id="createOrder", method="POST", path="/orders", role="operator", noun="order",
        summary="Ask for work: accept, deploy, release, power, cancel, retry.",
        body=ask.OrderRequest, answer=show.OrderAccepted, status=202,
    ),
    Operation(
        id="createGroup", method="POST", path="/groups", role="operator", noun="group",
        summary="Ask for the same work on many servers at once.", body=ask.GroupRequest,
        answer=show.GroupAccepted, status=202,
    ),
    Operation(
        id="importServers", method="POST", path="/imports", role="operator", noun="import",
        summary="Make servers of all rows of a file, or of none; says all that is wrong.",
        body=imports.ImportRequest, answer=imports.Imported,
    ),
    Operation(
        id="cancelGroup", method="POST", path="/groups/{group}/cancel", role="operator",
        noun="group", summary="Cancel all jobs of a group that have not ended.",
        answer=show.GroupVerb, status=202,
    ),
    Operation(
        id="retryGroup", method="POST", path="/groups/{group}/retry", role="operator",
        noun="group", summary="Retry a group's jobs that failed, parked or were cancelled.",
        answer=show.GroupVerb, status=202,
    ),
    Operation(
        id="rejectMachine", method="POST", path="/pending/{machine}/reject", role="operator",
        noun="pending", summary="Put a machine aside that was seen; it is not touched.",
        body=ask.VerdictRequest, answer=show.Pending,
    ),
    Operation(
        id="restoreMachine", method="POST", path="/pending/{machine}/restore", role="operator",
        noun="pending", summary="Take back that a machine was put aside.",
        body=ask.VerdictRequest, answer=show.Pending,
    ),
    Operation(
        id="createToken", method="POST", path="/tokens", role="operator", noun="token", at=HUB,
        summary="Make a join token; its text is shown once.", body=ask.TokenRequest,
        answer=show.NewToken, status=201, secret=True,
    ),
    Operation(
        id="revokeToken", method="DELETE", path="/tokens/{token}", role="operator",
        noun="token", summary="Make a join token worthless.", answer=show.Token, at=HUB,
    ),
    Operation(
        id="setSecret", method="PUT", path="/secrets/{secret}", role="operator", noun="secret",
        summary="Seal a secret to every node of a site.", body=ask.SecretRequest,
        answer=show.Secret, at=HUB,
    ),
    Operation(
        id="declareAsset", method="POST", path="/assets", role="operator", noun="asset",
        summary="Make or change a reference to content.", body=ask.AssetRequest,
        answer=show.AssetDeclared, status=201, at=HUB,
    ),
    Operation(
        id="wantAsset", method="POST", path="/assets/{name}/want", role="operator",
        noun="asset", summary="Make a site hold an asset.", body=ask.WantRequest,
        answer=show.AssetWanted, at=HUB,
    ),
    Operation(
        id="unwantAsset", method="DELETE", path="/assets/{name}/want/{site}", role="operator",
        noun="asset", summary="Let a site drop an asset when it needs the room.",
        answer=show.AssetWanted, at=HUB,
    ),
    Operation(
        id="pinAsset", method="PUT", path="/assets/{name}/pin/{site}", role="operator",
        noun="asset-pinned", answer=shelf.AssetPinned, at=HUB,
        summary="Let what a site holds of an asset stay there, whether it wants it or not.",
    ),
    Operation(
        id="unpinAsset", method="DELETE", path="/assets/{name}/pin/{site}", role="operator",
        noun="asset-pinned", summary="Take a pin away again.", answer=shelf.AssetPinned,
        at=HUB,
    ),
    Operation(
        id="cloneAsset", method="POST", path="/assets/{name}/clone", role="operator",
        noun="asset", summary="Make another name for the same content.",
        body=ask.CloneRequest, answer=show.AssetNamed, status=201, at=HUB,
    ),
    Operation(
        id="removeAsset", method="DELETE", path="/assets/{name}", role="operator",
        noun="asset", summary="Take a name away that nothing rests on.",
        answer=show.AssetNamed, at=HUB,
    ),
    Operation(
        id="verifyAsset", method="POST", path="/assets/{name}/verify", role="operator",
        noun="asset-checked", query=ask.CheckQuery, answer=shelf.AssetChecked,
        summary="Read a piece of an asset again from the disk of who is asked.",
    ),
    Operation(
        id="collectAssets", method="POST", path="/cache/gc", role="operator",
        noun="assets-freed", body=ask.CollectRequest, answer=shelf.AssetsFreed,
        summary="Let content go, here, that no site, job or machine wants.",
    ),
    Operation(
        id="exportAsset", method="GET", path="/assets/{name}/content", role="viewer",
        noun="asset", summary="Read an asset's content, verified on its way; takes a Range.",
        answer=None, form="bytes",
    ),
    Operation(
        id="uploadAsset", method="PUT", path="/assets/{name}/content", role="operator",
        noun="asset", summary="Upload an asset's content.",
        content="application/octet-stream", answer=show.AssetNamed, status=201, at=HUB,
    ),
)  # fmt: skip

_TEMPLATES: Final = (
    _list("templates", template.Template, "List the boot templates.", at=HUB),
    _get("getTemplate", "/templates/{template}", "template", template.TemplateText,
         "Show a boot template with its text.", at=HUB),
    Operation(
        id="setTemplate", method="PUT", path="/templates/{template}", role="operator",
        noun="template", summary="Make or change a boot template.", at=HUB,
        body=ask.TemplateRequest, answer=template.Template,
    ),
    Operation(
        id="removeTemplate", method="DELETE", path="/templates/{template}", role="operator",
        noun="template", summary="Take a boot template away.", answer=template.Template,
        at=HUB,
    ),
    Operation(
        id="renderTemplate", method="POST", path="/templates/{template}/render",
        role="operator", noun="rendered", at=HUB, body=ask.RenderRequest,
        answer=template.Rendered,
        summary="Show what a server would get, *** in place of secrets.",
    ),
)  # fmt: skip

_ERASES: Final = (
    _list("erase-records", erase.EraseRecord, "List disks that were erased."),
    _get("getEraseRecord", "/erase-records/{record}", "erase-record", erase.EraseRecordFile,
         "Show an erase record with the file that proves it offline."),
    _get("getCleanupPolicy", "/sites/{site}/cleanup-policy", "cleanup-policy",
         erase.CleanupPolicy, "Show how a site erases disks."),
    Operation(
        id="setCleanupPolicy", method="PUT", path="/sites/{site}/cleanup-policy",
        role="admin", noun="cleanup-policy", summary="Say how a site erases disks.",
        body=ask.CleanupRequest, answer=erase.CleanupPolicy,
    ),
    _get("getServerCleanupPolicy", "/servers/{server}/cleanup-policy", "cleanup-policy",
         erase.CleanupPolicy, "Show how a server's disks are erased."),
    Operation(
        id="setServerCleanupPolicy", method="PUT", path="/servers/{server}/cleanup-policy",
        role="admin", noun="cleanup-policy", body=ask.CleanupRequest,
        summary="Say how a server's disks are erased, or that it goes by its site's.",
        answer=erase.CleanupPolicy,
    ),
)  # fmt: skip

_HOOKS: Final = (
    _list("hooks", hook.Hook, "List the hooks before and after deploy and release.", at=HUB),
    _get("getHook", "/hooks/{hook}", "hook", hook.Hook, "Show a hook.", at=HUB),
    Operation(
        id="setHook", method="PUT", path="/hooks/{hook}", role="admin", noun="hook", at=HUB,
        summary="Make or change a hook; orders given before keep what it was.",
        body=ask.HookRequest, answer=hook.Hook,
    ),
    Operation(
        id="removeHook", method="DELETE", path="/hooks/{hook}", role="admin", noun="hook",
        summary="Take a hook away; orders given before keep it.", answer=hook.Hook, at=HUB,
    ),
)  # fmt: skip

_PEOPLE: Final = (
    _list("accounts", show.Account, "List who may sign in.", at=HUB, role="admin"),
    _get("getAccount", "/accounts/{account}", "account", show.Account,
         "Show an account.", at=HUB, role="admin"),
    Operation(
        id="createAccount", method="POST", path="/accounts", role="admin", noun="account",
        summary="Make an account.", body=ask.AccountRequest, answer=show.Account, status=201,
        at=HUB, secret=True,
    ),
    Operation(
        id="changeAccount", method="PATCH", path="/accounts/{account}", role="admin",
        noun="account", summary="Change an account's role, disable or enable it.",
        body=ask.AccountChange, answer=show.Account, at=HUB,
    ),
    Operation(
        id="setPassword", method="PUT", path="/accounts/{account}/password", role="admin",
        noun="account", summary="Give an account a new password; ends its sessions.",
        body=ask.PasswordRequest, answer=show.Account, at=HUB,
    ),
    Operation(
        id="removeAccount", method="DELETE", path="/accounts/{account}", role="admin",
        noun="account", summary="Delete an account.", answer=show.Account, at=HUB,
    ),
    _list("api-tokens", show.ApiToken, "List API tokens, never their secrets.", at=HUB,
          role="admin"),
    Operation(
        id="createApiToken", method="POST", path="/api-tokens", role="admin",
        noun="api-token", summary="Make an API token; its text is shown once.",
        body=ask.ApiTokenRequest, answer=show.NewApiToken, status=201, at=HUB, secret=True,
    ),
    Operation(
        id="revokeApiToken", method="DELETE", path="/api-tokens/{token}", role="admin",
        noun="api-token", summary="Make an API token worthless.", answer=show.ApiToken, at=HUB,
    ),
)  # fmt: skip

_UPKEEP: Final = (
    _get("getTrust", "/trust", "trust", show.Trust,
         "Show the trust document: which keys play which role.", at=HUB),
    _list("hubs", show.Hub, "List the hubs and whether the root names their keys.", at=HUB),
    Operation(
        id="replaceTrust", method="PUT", path="/trust", role="admin", noun="trust",
        summary="Take the next trust document, which the root key has signed.",
        body=ask.TrustRequest, answer=show.Trust, at=HUB,
    ),
    Operation(
        id="makeBackup", method="GET", path="/backup", role="admin", noun="backup",
        summary="Give out a copy of all that only this hub has, over its local socket alone.",
        answer=None, form="bytes", at=HUB, secret=True,
    ),
    _get("getRestoreReport", "/restore-report", "restore-report", show.RestoreReport,
         "Show what a restore brought back, and what is missing.", at=HUB),
    Operation(
        id="dismissRestoreReport", method="DELETE", path="/restore-report", role="admin",
        noun="restore-report", summary="Forget the report of a restore: somebody has read it.",
        answer=show.RestoreReport, at=HUB,
    ),
)  # fmt: skip

_TRUST: Final = (
    Operation(
        id="revokeNode", method="POST", path="/nodes/{node}/revoke", role="admin",
        noun="member", summary="End a member for good; says which secrets it could read.",
        answer=trust.MemberChanged,
    ),
    Operation(
        id="suspendNode", method="POST", path="/nodes/{node}/suspend", role="admin",
        noun="member", summary="Keep a member out until it is resumed.",
        answer=trust.MemberChanged,
    ),
    Operation(
        id="resumeNode", method="POST", path="/nodes/{node}/resume", role="admin",
        noun="member", summary="Let a suspended member in again.", answer=trust.MemberChanged,
    ),
    Operation(
        id="allowRelay", method="PUT", path="/nodes/{node}/relay", role="admin",
        noun="member", summary="Let a member relay links of others that reach no one else.",
        answer=trust.MemberChanged,
    ),
    Operation(
        id="denyRelay", method="DELETE", path="/nodes/{node}/relay", role="admin",
        noun="member", summary="Let a member relay no more.", answer=trust.MemberChanged,
    ),
    Operation(
        id="rotateKey", method="POST", path="/rotate-key", role="admin", noun="key",
        summary="Replace the X25519 key of the hub or node that is asked.",
        answer=trust.KeyRotated,
    ),
    _get("exportState", "/state", "state-piece", trust.StatePiece,
         "Read the signed state piece by piece, to carry it by hand.", role="admin",
         query=ask.StateQuery),
    Operation(
        id="importState", method="POST", path="/state", role="admin", noun="state-taken",
        summary="Take over a piece of state that was carried here, checked like a peer's.",
        body=ask.StateRequest, answer=trust.StateTaken,
    ),
    Operation(
        id="sealBundle", method="POST", path="/bundle/seal", role="admin", noun="bundle-sealed",
        summary="Sign the contents of a bundle as the hub or node that is asked.",
        body=ask.SealRequest, answer=shelf.BundleSealed,
    ),
    Operation(
        id="importBundle", method="POST", path="/bundle", role="admin", noun="bundle-taken",
        summary="Take in a piece of a bundle that lies on the node's machine.",
        body=ask.BundleRequest, answer=shelf.BundleTaken, at=NODE,
    ),
)  # fmt: skip

_SESSION: Final = (
    Operation(
        id="changePassword", method="PUT", path="/session/password", role="viewer",
        noun="session", summary="Change the own password; begins a new session.",
        body=ask.OwnPasswordRequest, answer=show.SignedIn, at=HUB, secret=True,
    ),
    Operation(
        id="signIn", method="POST", path="/session", role=None, noun="session", at=HUB,
        summary="Sign in; the answer sets the session's cookie.", body=ask.SignInRequest,
        answer=show.SignedIn, status=201, secret=True,
    ),
    Operation(
        id="getSession", method="GET", path="/session", role=None, noun="session", at=HUB,
        summary="Say who asks.", answer=show.Session,
    ),
    Operation(
        id="signOut", method="DELETE", path="/session", role=None, noun="session", at=HUB,
        summary="End the session.", answer=None, form="nothing",
    ),
)  # fmt: skip

OPERATIONS: Final[Mapping[str, Operation]] = {
    operation.id: operation
    for operation in (
        *_READS,
        *_MESH,
        *_BMC,
        *_WRITES,
        *_TEMPLATES,
        *_ERASES,
        *_HOOKS,
        *_PEOPLE,
        *_UPKEEP,
        *_TRUST,
        *_SESSION,
    )
}


def find(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """Return the operation of a method and a path below PREFIX, with the parts of the path.

    The path is decoded, or a route's pattern (``{name}`` then stands for itself).
    """
    parts = path.split("/")
    for operation in OPERATIONS.values():
        if operation.method == method:
            found = _match(operation.path.split("/"), parts)
            if found is not None:
                return operation, found
    return None


def methods(path: str, server: Server) -> list[str]:
    """Return the methods that a hub or a node takes at a path below PREFIX."""
    found = ((method, find(method, path)) for method in get_args(Method))
    return sorted(method for method, one in found if one is not None and server in one[0].at)


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    found: dict[str, str] = {}
    for want, have in zip(pattern, parts, strict=True):
        if want.startswith("{"):
            if not have:
                return None
            found[want[1:-1]] = have
        elif want != have:
            return None
    return found
