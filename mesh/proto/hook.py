"""Hooks: what else is done before and after a server is deployed or released.

It calls nobody: it reads what a hook says, and which hooks belong to an order. Rules: a hook
stands in a row of the fleet that only hubs write, and names its secret by id; an order carries
the hooks that were in force when it was given, whole and under its signature, so what a hook
becomes later changes no order; a hook reads only secrets whose ids begin with ``hook-``, so it
never sees a BMC's password.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.errors import CodecError
from mesh.proto import fields
from mesh.proto.ids import ASSET_PATTERN, NAME_PATTERN, SITE_PATTERN
from mesh.proto.urls import why_no_url

WEBHOOK: Final = "webhook"
SSH: Final = "ssh"
ANSIBLE: Final = "ansible"
KINDS: Final = (WEBHOOK, SSH, ANSIBLE)
BEFORE_DEPLOY: Final = "before-deploy"
AFTER_DEPLOY: Final = "after-deploy"
BEFORE_RELEASE: Final = "before-release"
AFTER_RELEASE: Final = "after-release"
POINTS: Final = (BEFORE_DEPLOY, AFTER_DEPLOY, BEFORE_RELEASE, AFTER_RELEASE)
ON_FAILURE: Final = ("fail", "continue")
CONNECTIONS: Final = ("ssh", "local")

HOOKS_MAX: Final = 8
"""Hooks of one order: each stands whole in it, and its evidence in the job's row."""
TIMEOUT_S: Final = 600
TIMEOUT_S_MAX: Final = 6 * 3600
TRIES_MAX: Final = 20
TRIES: Final[Mapping[str, int]] = {WEBHOOK: 5, SSH: 3, ANSIBLE: 1}
"""Tries in all; what may have run once and is not ``repeatable`` is not tried again."""
URL_CHARS_MAX: Final = 512
COMMAND_CHARS_MAX: Final = 2048
HOST_CHARS_MAX: Final = 253
HOST_KEY_CHARS_MAX: Final = 1024
SECRET_PATTERN: Final = re.compile(
    r"hook-(?=.{1,58}\Z)(?:[A-Za-z0-9._-]|\{site\})+\Z", re.ASCII
)
"""Ids of secrets; ``{site}`` stands for the order's site, since a secret belongs to one."""
PLAYBOOK_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.ya?ml\Z", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,252})\Z", re.ASCII)
_USER: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\Z", re.ASCII)
_PIN: Final = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_KEY_TYPE: Final = re.compile(r"ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """What a hook says."""

    name: str
    point: str
    kind: str
    site: str | None = None
    """Its site; None: every site of the fleet."""
    secret: str | None = None
    """Id of the key of the signature (webhook) or of the private key (ssh, ansible)."""
    url: str | None = None
    pin: str | None = None
    """SHA-256 of the certificate in hex; None: it is checked as browsers do."""
    command: str | None = None
    host: str | None = None
    """Name or address; None: the server itself, at the address it was heard from."""
    port: int = 22
    user: str = "root"
    host_key: str | None = None
    """``type base64``; None: what the installed system said when it phoned in."""
    playbook: str | None = None
    """A file in the folder ``hooks`` of the node's data."""
    asset: str | None = None
    """Name of an asset that is the playbook, instead of a file."""
    asset_id: str | None = None
    """Its content, in orders."""
    connection: str = "ssh"
    """How ansible works: "ssh" to the server, "local" on the node."""
    repeatable: bool = False
    """True: doing it twice is as good as once, so it is tried again when nobody knows."""
    on_failure: str = "fail"
    timeout_s: int = TIMEOUT_S
    tries: int = 1

    def body(self) -> dict[str, Any]:
        """Return it as it stands in rows and orders: what says nothing is left out."""
        return {
            name: value for name in self.__slots__ if (value := getattr(self, name)) is not None
        }

    @property
    def before(self) -> bool:
        """Whether it comes before the work."""
        return self.point.startswith("before-")

    @property
    def verb(self) -> str:
        """The kind of order that it belongs to: ``server.deploy`` or ``server.release``."""
        return f"server.{self.point.partition('-')[2]}"


def read_hook(body: Any) -> Hook:
    """Return what a body says; raises CodecError with the field that is wrong."""
    if not isinstance(body, Mapping):
        raise CodecError("a hook is not a map")
    kind = _one_of(body, "kind", KINDS)
    hook = Hook(
        name=_matched(body, "name", NAME_PATTERN, "a name of letters, digits, dots, dashes"),
        point=_one_of(body, "point", POINTS),
        kind=kind,
        site=_maybe(body, "site", SITE_PATTERN, "a site"),
        secret=_maybe(
            body,
            "secret",
            SECRET_PATTERN,
            "the id of a secret for hooks: hook- and letters, digits, dots, dashes or {site}",
        ),
        url=_url(body),
        pin=_pin(body),
        command=_command(body),
        host=_maybe(body, "host", _HOST, "a host name or address"),
        port=fields.integer(body, "port", least=1, most=65535, default=22),
        user=_maybe(body, "user", _USER, "a user name") or "root",
        host_key=_host_key(body),
        playbook=_maybe(body, "playbook", PLAYBOOK_PATTERN, "a file name that ends in .yml"),
        asset=_maybe(body, "asset", NAME_PATTERN, "the name of an asset"),
        asset_id=_maybe(body, "asset_id", ASSET_PATTERN, "an asset id (b3:...)"),
        connection=_one_of(body, "connection", CONNECTIONS, "ssh"),
        repeatable=fields.flag(body, "repeatable", default=False),
        on_failure=_one_of(body, "on_failure", ON_FAILURE, "fail"),
        timeout_s=fields.integer(
            body, "timeout_s", least=1, most=TIMEOUT_S_MAX, default=TIMEOUT_S
        ),
        tries=fields.integer(body, "tries", least=1, most=TRIES_MAX, default=TRIES[kind]),
    )
    _check_whole(hook)
    return hook


def read_hooks(params: Mapping[str, Any], verb: str) -> tuple[Hook, ...]:
    """Return the hooks of an order of this kind; raises CodecError."""
    found = [
        read_hook(body)
        for body in fields.items(params, "hooks", count_max=HOOKS_MAX, default=())
    ]
    for hook in found:
        if hook.verb != verb:
            raise CodecError(f"the hook {hook.name} belongs to {hook.verb}, not to {verb}")
        if hook.asset is not None and hook.asset_id is None:
            raise CodecError(f"the hook {hook.name} does not say what its playbook is")
        if hook.secret is not None and "{site}" in hook.secret:
            raise CodecError(f"the hook {hook.name} does not say whose secret it needs")
    return tuple(found)


def in_force(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, Hook]:
    """Return the hooks of HOOK rows that were not removed, by name in order."""
    found: dict[str, Hook] = {}
    for key, body in sorted(rows, key=lambda row: row[0]):
        if body.get("removed_ms"):
            continue
        try:
            hook = read_hook(body)
        except CodecError:
            continue
        if hook.name == key:
            found[key] = hook
    return found


def _check_whole(hook: Hook) -> None:
    """Raise CodecError unless the hook has what its kind needs and nothing of other kinds."""
    wants: dict[str, tuple[bool, tuple[str, ...]]] = {
        WEBHOOK: (hook.url is not None and hook.secret is not None, ("url", "secret")),
        SSH: (hook.command is not None and hook.secret is not None, ("command", "secret")),
        ANSIBLE: (
            (hook.playbook is None) != (hook.asset is None), ("either playbook or asset",)
        ),
    }  # fmt: skip
    whole, names = wants[hook.kind]
    if not whole:
        raise CodecError(f"a hook of kind {hook.kind} needs {' and '.join(names)}")
    foreign = {
        "url": WEBHOOK, "pin": WEBHOOK, "command": SSH, "host": SSH, "playbook": ANSIBLE,
        "asset": ANSIBLE, "asset_id": ANSIBLE,
    }  # fmt: skip
    for name, kind in foreign.items():
        if getattr(hook, name) is not None and hook.kind != kind:
            raise CodecError(f"field {name} is for hooks of kind {kind}, not {hook.kind}")
    if hook.kind == WEBHOOK and hook.host_key is not None:
        raise CodecError("field host_key is not for hooks of kind webhook")
    if hook.host is not None and hook.host_key is None:
        raise CodecError(f"field host_key must be there: nobody knows the key of {hook.host}")
    if hook.kind == ANSIBLE and hook.connection == "ssh" and hook.secret is None:
        raise CodecError("field secret must be there: ansible needs a key to the server")
    reaches = hook.kind == SSH or (hook.kind == ANSIBLE and hook.connection == "ssh")
    if reaches and hook.host is None and hook.point == BEFORE_DEPLOY:
        raise CodecError(
            f"the hook {hook.name} cannot reach the server before it is deployed: name a host"
        )
    if reaches and hook.host is None and hook.point == AFTER_RELEASE:
        raise CodecError(
            f"the hook {hook.name} cannot reach the server after it is released: name a host"
        )


def _one_of(
    body: Mapping[str, Any], key: str, known: tuple[str, ...], default: Any = fields.MISSING
) -> str:
    value = fields.text(body, key, chars_max=64, default=default)
    if value not in known:
        raise CodecError(f"field {key} must be one of {', '.join(known)}, not {value[:60]!r}")
    return value


def _matched(body: Mapping[str, Any], key: str, pattern: re.Pattern[str], what: str) -> str:
    value = fields.text(body, key)
    if not pattern.match(value):
        raise CodecError(f"field {key} is not {what}: {value[:60]!r}")
    return value


def _maybe(
    body: Mapping[str, Any], key: str, pattern: re.Pattern[str], what: str
) -> str | None:
    return None if body.get(key) is None else _matched(body, key, pattern, what)


def _url(body: Mapping[str, Any]) -> str | None:
    if body.get("url") is None:
        return None
    url = fields.text(body, "url", chars_max=URL_CHARS_MAX)
    if not url.startswith("https://"):
        raise CodecError(f"field url must be an https URL, not {url[:60]!r}")
    wrong = why_no_url(url, URL_CHARS_MAX)
    if wrong is not None or not url.isascii():
        raise CodecError(f"field url {wrong or 'must be of plain ASCII'}")
    return url


def _pin(body: Mapping[str, Any]) -> str | None:
    if body.get("pin") is None:
        return None
    pin = fields.text(body, "pin", chars_max=100).replace(":", "").lower()
    if not _PIN.match(pin):
        raise CodecError("field pin is not the SHA-256 of a certificate (64 hex digits)")
    return pin


def _command(body: Mapping[str, Any]) -> str | None:
    if body.get("command") is None:
        return None
    command = fields.text(body, "command", chars_max=COMMAND_CHARS_MAX)
    if not command.strip() or not command.isprintable():
        raise CodecError("field command is not one printable line")
    return command


def _host_key(body: Mapping[str, Any]) -> str | None:
    if body.get("host_key") is None:
        return None
    key = clean_host_key(fields.text(body, "host_key", chars_max=HOST_KEY_CHARS_MAX))
    if key is None:
        raise CodecError("field host_key is not a public key of a host, as in ssh-ed25519 AAAA")
    return key


def clean_host_key(text: str) -> str | None:
    """Return ``type base64`` of a public key in OpenSSH's form, None when it is none.

    The inner name of the type must be the outer one (RFC 4253 section 6.6).
    """
    words = text.split()
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    name = words[0].encode()
    if len(words[1]) > HOST_KEY_CHARS_MAX:
        return None
    if not blob.startswith(len(name).to_bytes(4, "big") + name):
        return None
    return f"{words[0]} {words[1]}"
