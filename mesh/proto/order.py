"""Orders: what an operator wants done at a site, signed so that the site can check it alone.

It knows no job and no device. Rules: the signer is a region's orders key named in the trust
document, or a node with the role ``site-operator`` for its own site; a node refuses orders for
another site, of an epoch below the trust document's, past their time, or of another class than
it computes itself from the body; an order is known by its UUIDv7, so carrying it twice is
harmless. Every refusal is one sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mesh.errors import CodecError, Refused
from mesh.proto import fields
from mesh.proto.codec import pack
from mesh.proto.enrol import BOOT_WAYS, OOB, check_enrol
from mesh.proto.hook import read_hooks
from mesh.proto.ids import (
    ASSET_PATTERN,
    NAME_PATTERN,
    NODE_ID_PATTERN,
    SITE_PATTERN,
    UUID_PATTERN,
    node_id,
)
from mesh.proto.net_boot import read_net_boot, writes_disks
from mesh.proto.register import Register
from mesh.proto.scan_range import (
    NETWORKS_MAX,
    PORTS_MAX,
    TEXT_CHARS_MAX,
    read_networks,
)
from mesh.proto.sign import Signer, open_record, sign_record
from mesh.proto.trust import ROLE_SITE_OPERATOR

ORDER: Final = "order"
PARAMS_BYTES_MAX: Final = 40 << 10
"""Parameters stand in the order's row and in the job's, and a row ends at 64 KiB."""
USER_DATA_CHARS_MAX: Final = 16 << 10
SSH_KEYS_MAX: Final = 32
SSH_KEY_CHARS_MAX: Final = 1024
AUTHOR_CHARS_MAX: Final = 128

ACCEPT: Final = "server.accept"
ADOPT: Final = "server.adopt"
"""Know a running server without ever touching it: it is monitored."""
PROMOTE: Final = "server.promote"
BOOT_BY: Final = "server.boot-by"
"""Manage a monitored server from now on; it goes on as it runs."""
SCAN: Final = "bmc.scan"
"""Look for BMCs in networks of a site."""
DEPLOY: Final = "server.deploy"
RELEASE: Final = "server.release"
POWER: Final = "server.power"
PASSWORD: Final = "server.password"
"""Give a server's BMC a new random password, known to the active nodes of its site alone."""
CANCEL: Final = "job.cancel"
RETRY: Final = "job.retry"
SKIP: Final = "job.skip"
"""Let a step that failed or is parked count as skipped; ``reason``, and ``step`` by its id."""
KILL: Final = "job.kill"
"""End a job at once, even when its step hangs."""
HOLD: Final = "job.hold"
"""Begin no next step until ``job.unhold``."""
UNHOLD: Final = "job.unhold"
CONFIRM: Final = "job.confirm"
"""Say whether a parked one-shot step was ``done``, with the ``reason`` to know it."""
ARCHIVE: Final = "job.archive"
"""Put a job that has ended out of the lists."""
HAND_ON: Final = "secret.release"
"""Let a node of the site seal secrets that it can open to another one."""
JOB_VERBS: Final = frozenset({CANCEL, RETRY, SKIP, KILL, HOLD, UNHOLD, CONFIRM, ARCHIVE})
"""Kinds that say something about a job; their parameter ``job`` is its id."""
KINDS: Final = JOB_VERBS | {
    ACCEPT, ADOPT, PROMOTE, SCAN, DEPLOY, RELEASE, POWER, PASSWORD, HAND_ON,
    BOOT_BY,
}  # fmt: skip
REASON_CHARS_MAX: Final = 200
SECRETS_MAX: Final = 500
"""Most secrets that one order names."""
GROUPED: Final = frozenset({DEPLOY, RELEASE, POWER, PASSWORD, PROMOTE, BOOT_BY})
"""Kinds that can be given for many servers at once."""

OrderClass = Literal["normal", "destructive"]
NORMAL: Final = "normal"
DESTRUCTIVE: Final = "destructive"


class OrderRefused(Refused):
    """This order is not carried out here; ``str(error)`` is one sentence. Nothing changed.

    ``order`` is what was asked when its signer may give orders for this site, so that who gave
    it can be told; None for what anybody could have sent.
    """

    def __init__(self, sentence: str, order: "Order | None" = None) -> None:
        super().__init__(sentence)
        self.order = order


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an order says. ``region`` is empty when a site's own operator signs it."""

    id: str  # UUIDv7
    region: str
    region_epoch: int
    site: str
    kind: str
    params: Mapping[str, Any]
    author: str  # "name@hub" or, signed by a site operator, "uid@<node id>"
    not_after_ms: int
    order_class: OrderClass
    group: str | None = None
    """UUIDv7 that the orders have in common which were given together."""


def order_class(
    kind: str, params: Mapping[str, Any], server_cleaned: bool | None
) -> OrderClass:
    """Return the class of an order: what loses somebody's data is destructive.

    Releasing wipes; deploying onto a server that was never cleaned overwrites what may be data;
    onto a cleaned one it does not, nor does what boots off the network, unless it installs.
    ``server_cleaned`` None stands for "not known": destructive.
    """
    boot = params.get("boot")
    writes = kind == DEPLOY and (boot is None or writes_disks(boot))
    if kind == RELEASE or (writes and not server_cleaned):
        return DESTRUCTIVE
    return NORMAL


def sign_order(order: Order, signer: Signer, root_fp: bytes) -> bytes:
    """Return the wire form of an order; raise OrderRefused when its parameters are wrong."""
    check_params(order.kind, order.params)
    if len(order.author) > AUTHOR_CHARS_MAX:
        raise OrderRefused(f"the author's name is longer than {AUTHOR_CHARS_MAX} characters")
    body = {
        "kind": ORDER,
        "id": order.id,
        "region": order.region,
        "epoch": order.region_epoch,
        "site": order.site,
        "do": order.kind,
        "params": dict(order.params),
        "author": order.author,
        "not_after_ms": order.not_after_ms,
        "class": order.order_class,
    }
    if order.group is not None:
        body["group"] = order.group
    assert UUID_PATTERN.match(order.id)
    assert SITE_PATTERN.match(order.site)
    return sign_record(signer, ORDER, 1, root_fp, body)


def open_order(
    data: bytes,
    register: Register,
    now_ms: int | None,
    *,
    site: str | None = None,
    server_cleaned: bool | None = None,
) -> Order:
    """Return an order that may be carried out, or raise OrderRefused.

    ``now_ms`` None reads an order that was admitted before: its time and its region's epoch are
    not asked again. ``site`` is the reader's own (None at a hub). ``server_cleaned`` None
    leaves the class of a deploy for ``check_class``.
    """
    try:
        body, signer, _ = open_record(data, ORDER, 1, register.root_fp)
        order = _read(body)
    except CodecError as exc:
        raise OrderRefused(f"this is not an order of this organisation: {exc}") from exc
    epoch = _check_signer(order, signer, register)
    if site is not None and order.site != site:
        raise OrderRefused(f"order {order.id} is for site {order.site}, this is {site}")
    try:
        check_params(order.kind, order.params)
        if now_ms is not None:
            _check_fresh(order, epoch, now_ms)
        if order.kind != DEPLOY or server_cleaned is not None:
            check_class(order, server_cleaned)
    except OrderRefused as exc:
        raise OrderRefused(str(exc), order) from exc
    return order


def check_class(order: Order, server_cleaned: bool | None) -> None:
    """Raise OrderRefused unless the order's class is what its body and the server's state say.

    An order may call itself destructive without need (the server was cleaned meanwhile); it may
    not call itself normal when it destroys.
    """
    computed = order_class(order.kind, order.params, server_cleaned)
    if computed == DESTRUCTIVE and order.order_class != DESTRUCTIVE:
        raise OrderRefused(
            f"order {order.id} would destroy data ({order.kind}) and does not say so;"
            " give it again with the confirmation"
        )
    if computed == NORMAL and order.order_class == DESTRUCTIVE and order.kind != DEPLOY:
        raise OrderRefused(f"order {order.id} calls itself destructive but {order.kind} is not")


def check_params(kind: str, params: Mapping[str, Any]) -> None:
    """Raise OrderRefused with one sentence unless the parameters fit the kind."""
    if kind not in KINDS:
        raise OrderRefused(f"unknown kind of order {kind!r}; known: {', '.join(sorted(KINDS))}")
    try:
        fields.check_plain(params)
        size = len(pack(dict(params)))
        if size > PARAMS_BYTES_MAX:
            raise CodecError(f"it has {size} bytes, at most {PARAMS_BYTES_MAX} fit")
        if kind in JOB_VERBS:
            _check_word(kind, params)
            return
        if kind == HAND_ON:
            _check_hand_on(params)
            return
        if kind == SCAN:
            _check_scan(params)
            return
        _uuid(params, "server")
        if kind == ACCEPT:
            by_bmc = params.get("inspect") == OOB and params.get("machine") is None
            if not by_bmc:
                fields.text(params, "machine", chars_max=64)
            check_enrol(params, named=not by_bmc)
        elif kind == ADOPT:
            check_enrol(params, named=False)
        elif kind == BOOT_BY:
            if params.get("by") not in BOOT_WAYS:
                raise CodecError(f"field by is none of {', '.join(BOOT_WAYS)}")
        elif kind == POWER:
            fields.flag(params, "on")
        elif kind == DEPLOY:
            _check_deploy(params)
        if params.get("hooks") is not None:
            read_hooks(params, kind)
    except CodecError as exc:
        raise OrderRefused(f"the order {kind} cannot be carried out: {exc}") from exc


def _check_scan(params: Mapping[str, Any]) -> None:
    networks = fields.texts(
        params, "networks", count_max=NETWORKS_MAX, chars_max=TEXT_CHARS_MAX
    )
    try:
        read_networks(networks)
    except ValueError as exc:
        raise CodecError(f"field networks: {exc}") from None
    ports = fields.items(params, "ports", count_max=PORTS_MAX, default=())
    for port in [*ports, params.get("rmcp_port", 1)]:
        fields.integer({"port": port}, "port", least=1, most=65535)


def _check_word(kind: str, params: Mapping[str, Any]) -> None:
    _uuid(params, "job")
    if kind == CONFIRM:
        fields.flag(params, "done")
    if kind in (SKIP, CONFIRM) or params.get("reason") is not None:
        reason = fields.text(params, "reason", chars_max=REASON_CHARS_MAX)
        if not reason.strip() or not reason.isprintable():
            raise CodecError("field reason is no line of text")
    if kind == SKIP and params.get("step") is not None:
        fields.text(params, "step", chars_max=64)


def _check_hand_on(params: Mapping[str, Any]) -> None:
    if not NODE_ID_PATTERN.match(fields.text(params, "node", chars_max=64)):
        raise CodecError("field node is not the id of a node")
    _name(params, "name")
    secrets = fields.texts(params, "secrets", count_max=SECRETS_MAX, chars_max=64, default=())
    if any(not NAME_PATTERN.match(secret) for secret in secrets):
        raise CodecError("field secrets holds what is no id of a secret")


def _check_deploy(params: Mapping[str, Any]) -> None:
    _name(params, "image")
    _name(params, "hostname")
    if params.get("boot") is not None:  # no asset: what cannot read this must write no disk
        if params.get("asset") is not None:
            raise CodecError("fields asset and boot exclude each other")
        read_net_boot(params["boot"])
    elif not ASSET_PATTERN.match(fields.text(params, "asset")):
        raise CodecError("field asset is not an asset id (b3:...)")
    keys = fields.texts(
        params, "ssh_keys", count_max=SSH_KEYS_MAX, chars_max=SSH_KEY_CHARS_MAX, default=()
    )
    if any("\n" in key for key in keys):
        raise CodecError("field ssh_keys holds a line break")
    if params.get("user_data") is not None:
        fields.text(params, "user_data", chars_max=USER_DATA_CHARS_MAX)


def _check_fresh(order: Order, epoch: int, now_ms: int) -> None:
    if order.region_epoch < epoch:
        raise OrderRefused(
            f"order {order.id} is of epoch {order.region_epoch} of region {order.region},"
            f" which is in epoch {epoch} now; give it again on the active hub"
        )
    if now_ms > order.not_after_ms:
        late_s = (now_ms - order.not_after_ms) // 1000
        raise OrderRefused(f"order {order.id} ran out of time {late_s} s ago; give it again")


def _check_signer(order: Order, signer: bytes, register: Register) -> int:
    """Return the least region epoch of today; raise OrderRefused for a stranger's order."""
    keys = register.order_keys(order.region) if order.region else None
    if keys is not None and signer in keys.keys:
        return keys.epoch
    author_node = node_id(signer)
    member = register.member(author_node)
    if (
        member is None
        or not register.active(author_node)
        or ROLE_SITE_OPERATOR not in member.roles
        or member.site != order.site
    ):
        raise OrderRefused(
            f"order {order.id} is signed by a key that gives no orders for site {order.site}"
        )
    if not order.author.endswith(f"@{author_node}"):
        raise OrderRefused(f"order {order.id} names an author that its signer is not")
    return 0


def _read(body: Mapping[str, Any]) -> Order:
    order = Order(
        id=fields.text(body, "id"),
        region=fields.text(body, "region", chars_max=31),
        region_epoch=fields.integer(body, "epoch"),
        site=fields.text(body, "site", chars_max=31),
        kind=fields.text(body, "do", chars_max=64),
        params=fields.mapping(body, "params", count_max=64),
        author=fields.text(body, "author", chars_max=AUTHOR_CHARS_MAX),
        not_after_ms=fields.integer(body, "not_after_ms"),
        order_class=_class(fields.text(body, "class")),
        group=fields.text(body, "group", chars_max=64) if "group" in body else None,
    )
    if order.group is not None and not UUID_PATTERN.match(order.group):
        raise CodecError("the order's group is no id of ours (UUIDv7)")
    if not UUID_PATTERN.match(order.id) or not SITE_PATTERN.match(order.site):
        raise CodecError("the order's id or site is impossible")
    return order


def _class(text: str) -> OrderClass:
    match text:
        case "normal" | "destructive":
            return text
        case _:
            raise CodecError("the order's class is unknown")


def _uuid(params: Mapping[str, Any], key: str) -> None:
    if not UUID_PATTERN.match(fields.text(params, key)):
        raise CodecError(f"field {key} is not an id of ours (UUIDv7)")


def _name(params: Mapping[str, Any], key: str) -> None:
    if not NAME_PATTERN.match(fields.text(params, key)):
        raise CodecError(f"field {key} is not a name of letters, digits, dots and dashes")
