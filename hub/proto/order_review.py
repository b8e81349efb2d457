"""What an order on chosen servers would hit, before anybody gives it.

It says in the same words as the API what is legal (``mesh/proto/lifecycle.py``) and what loses
data (``mesh/proto/order.py``); the site has the last word when the order comes. It knows no
store. Rule: nothing is left out of the review: every chosen server is either hit, or left out
with a sentence.
"""

import hashlib
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.proto.lifecycle import refuse
from mesh.proto.order import DEPLOY, DESTRUCTIVE, POWER, PROMOTE, RELEASE, order_class

Body = Mapping[str, Any]

KINDS: Final = (DEPLOY, RELEASE, POWER, PROMOTE)


@dataclass(frozen=True, slots=True)
class Hit:
    """One chosen server: why it is left out (None: it is hit), and what happens to it."""

    server: Body
    refusal: str | None
    loses: bool
    waits: bool
    """A job has it: the order waits, and its state then counts."""


@dataclass(frozen=True, slots=True)
class Review:
    """Everything about an order that is to be confirmed."""

    hits: list[Hit]
    left_out: list[Hit]

    @property
    def losing(self) -> list[Hit]:
        """Return those whose disks are overwritten."""
        return [hit for hit in self.hits if hit.loses]

    @property
    def digest(self) -> str:
        """Return what tells this review from another one: whom it hits, and what is lost."""
        told = [[hit.server["id"], hit.loses] for hit in self.hits]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()

    @property
    def sites(self) -> dict[str, int]:
        """Return how many servers are hit at each site."""
        found: dict[str, int] = {}
        for hit in self.hits:
            found[hit.server["site"]] = found.get(hit.server["site"], 0) + 1
        return dict(sorted(found.items()))


def review(kind: str, params: Body, servers: Iterable[Body], busy: Collection[str]) -> Review:
    """Return what an order of this kind does to the servers; ``busy`` are ids with a job."""
    assert kind in KINDS
    hits: list[Hit] = []
    left_out: list[Hit] = []
    for server in servers:
        waits = bool(server.get("job")) or server["id"] in busy
        refusal = None if waits else refuse(kind, params, server)
        loses = order_class(kind, params, server.get("cleaned") is True) == DESTRUCTIVE
        hit = Hit(server, refusal, loses, waits)
        (hits if refusal is None else left_out).append(hit)
    return Review(hits, left_out)


def as_body(kind: str, params: Body, servers: Sequence[Body]) -> dict[str, Any]:
    """Return the body of ``POST /orders``, or of ``POST /groups`` for any other number."""
    ids = [server["id"] for server in servers]
    target: dict[str, Any] = {"server": ids[0]} if len(ids) == 1 else {"servers": ids}
    return {"kind": kind, **target, "params": dict(params)}


def as_command(
    kind: str, params: Body, servers: Sequence[Body], kept: str | None = None
) -> str:
    """Return the command that gives the same order; ``kept``: the filter that chose them."""
    words = ["rackmesh", "server", kind.partition(".")[2]]
    words += [server["name"] for server in servers] if kept is None else ["--filter", kept]
    if kind == POWER:
        words.append("on" if params.get("on") else "off")
    if kind == DEPLOY:
        words += ["--image", str(params.get("image"))]
        if params.get("hostname"):
            words += ["--hostname", str(params["hostname"])]
        for key in params.get("ssh_keys") or ():
            words += ["--ssh-key", str(key)]
    if kind == DEPLOY and params.get("user_data"):
        words += ["--user-data", "FILE"]
    return shlex.join(words)
