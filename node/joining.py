"""Joining: a token becomes a membership, kept below the data folder.

It knows no cryptography of its own (mesh/proto/join.py judges hub and answer). Rules: nothing
is kept before the hub has proved that it is one of the token's; the register goes to disk
first, ``node.json`` last, so a folder with ``node.json`` has joined; doing it again is
harmless.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mesh.errors import MeshError, Refused
from mesh.host.clock import SystemClock
from mesh.host.files import make_private_folder, write_json
from mesh.identity import load_or_make_identity
from mesh.joining import join_by_token
from mesh.proto.ids import NAME_PATTERN, SITE_PATTERN
from mesh.proto.join import JoinResult
from mesh.proto.token import parse_token
from mesh.proto.trust import ROLE_HUB
from mesh.register_store import RegisterStore
from node.errors import NotJoined

JOINED: Final = "node.json"
REGISTER: Final = "register"
KEYS: Final = "keys"


@dataclass(frozen=True, slots=True)
class Joined:
    """What a node knows of its membership besides the register."""

    node: str
    site: str
    name: str


async def join_mesh(folder: Path, token_text: str, name: str) -> Joined:
    """Join with a token; raises Refused or Unreachable with one sentence for the terminal."""
    name = name.split(".", maxsplit=1)[0]
    if not NAME_PATTERN.match(name):
        raise Refused(f"{name!r} is no name for a node: letters, digits, dots, dashes")
    token = parse_token(token_text, SystemClock().now_ms())
    if ROLE_HUB in token.roles:
        raise Refused("this join token is for a hub: rackmesh hub join --token-file FILE")
    earlier = folder / JOINED
    if earlier.exists() and read_joined(folder).site != token.site:
        raise Refused(
            f"{folder} belongs to a node of site {read_joined(folder).site}, the token is for"
            f" {token.site}; use another data folder"
        )
    make_private_folder(folder)
    identity = load_or_make_identity(folder / KEYS, now_ms=SystemClock().now_ms())
    result = await join_by_token(token, identity, name)
    return _keep(folder, identity.node_id, name, result)


def _keep(folder: Path, node: str, name: str, result: JoinResult) -> Joined:
    store = RegisterStore.open(folder / REGISTER, result.root_fp)
    store.merge_all(result.records)
    if not store.register.active(node):
        raise MeshError("the hub's answer does not make this node a member; ask its operator")
    joined = Joined(node, result.site, name)
    write_json(folder / JOINED, asdict(joined))
    return joined


def read_joined(folder: Path) -> Joined:
    """Return what ``join_mesh`` kept; raises Refused with what to do."""
    path = folder / JOINED
    try:
        value = json.loads(path.read_text())
        joined = Joined(str(value["node"]), str(value["site"]), str(value["name"]))
    except FileNotFoundError:
        raise NotJoined(
            f"{folder} has not joined a mesh yet: rackmesh node join --token-file FILE"
            f" --data {folder}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise Refused(f"{path} cannot be read ({exc}); join again with a new token") from exc
    if not SITE_PATTERN.match(joined.site):
        raise Refused(f"{path} names an impossible site; join again with a new token")
    return joined
