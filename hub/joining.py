"""Joining an organisation as one of its hubs, kept below the data folder.

It knows no cryptography of its own. Rules: nothing is kept before another hub has proved that
it is one of the token's; the ring of own role keys is put in place last, so a folder with keys
has joined (or founded) an organisation; doing it again with the same token is harmless; the new
keys are worth nothing before the root names them.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mesh.errors import MeshError, Refused
from mesh.host.clock import SystemClock
from mesh.host.files import make_private_folder, write_json
from mesh.hub_keys import RING_FILE, load_or_make_hub_keys, make_joined_keys
from mesh.identity import IDENTITY_FILE, load_or_make_identity
from mesh.joining import join_by_token
from mesh.proto.ids import NAME_PATTERN, SITE_PATTERN
from mesh.proto.token import Token, parse_token
from mesh.proto.trust import ROLE_HUB, TRUST
from mesh.register_store import RegisterStore

SETTINGS_FILE: Final = "hub.json"
"""What was said at the join; counts at ``hub up`` where nothing else is given."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a hub is after it joined."""

    hub: str
    name: str
    region: str
    root_fingerprint: str


async def join_as_hub(
    data: Path, token_text: str, name: str, region: str, advertise: tuple[str, ...]
) -> Joined:
    """Join with a token; raises Refused or Unreachable with one sentence for the terminal.

    The caller holds the folder's lock.
    """
    if not NAME_PATTERN.match(name):
        raise Refused(f"{name!r} is no name for a hub: letters, digits, dots, dashes")
    if not SITE_PATTERN.match(region):
        raise Refused(f"{region!r} is no region; use small letters, digits and dashes")
    token = parse_token(token_text, SystemClock().now_ms())
    if token.roles != frozenset({ROLE_HUB}):
        raise Refused(
            f"this join token is for a node of site {token.site}; a hub's is made by"
            " rackmesh token create --role hub"
        )
    _check_folder(data, token)
    folder = make_private_folder(data / "identity")
    identity = load_or_make_identity(folder, now_ms=SystemClock().now_ms())
    result = await join_by_token(token, identity, name)
    register = RegisterStore.open(data / "register", result.root_fp)
    register.merge_all(result.records)
    trust = register.register.record(TRUST, "")
    if trust is None or not register.register.active(identity.node_id):
        raise MeshError("the hub's answer does not make this hub a member; ask its operator")
    write_json(data / SETTINGS_FILE, {"name": name, "advertise": list(advertise)})
    keys = make_joined_keys(data / "keys", region, result.root_fp, trust)
    return Joined(identity.node_id, name, keys.region, keys.root_fp.hex())


def shown(joined: Joined) -> dict[str, Any]:
    """Return what the command says with --json."""
    return asdict(joined)


def kept_settings(data: Path) -> dict[str, Any]:
    """Return what was said at the join; nothing for a hub that founded its organisation."""
    path = data / SETTINGS_FILE
    try:
        value = json.loads(path.read_text())
        return {"name": str(value["name"]), "advertise": [str(h) for h in value["advertise"]]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Refused(f"{path} cannot be read ({exc}); delete it and give the flags") from exc


def check_finished(data: Path) -> None:
    """Raise Refused for a folder whose join did not end: it must not become an organisation."""
    begun = (data / "identity" / IDENTITY_FILE).exists()
    if begun and not (data / "keys" / RING_FILE).exists():
        raise Refused(
            f"{data} holds a hub's identity and no keys: a join did not end (do it again with"
            " rackmesh hub join), or the keys were lost (rackmesh hub restore)"
        )


def _check_folder(data: Path, token: Token) -> None:
    if (data / "node.json").exists():
        raise Refused(f"{data} is the data folder of a node; use another one for the hub")
    if not (data / "keys" / RING_FILE).exists():
        return
    own = load_or_make_hub_keys(data / "keys", "")
    if own.root_fp == token.root_fp and not own.founded:
        return
    raise Refused(
        f"{data} holds a hub of organisation {own.root_fp.hex()[:8]} already; use another data"
        " folder"
    )
