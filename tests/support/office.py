"""A founded hub with its join desk, for tests of joining."""

from pathlib import Path
from typing import Any

from mesh.host.clock import FixedClock
from mesh.hub_keys import load_or_make_hub_keys
from mesh.join_desk import JoinDesk
from mesh.membership import found
from mesh.proto.join import JoinClient, JoinResult
from mesh.proto.token import parse_token
from mesh.register_store import RegisterStore
from tests.support.rows import RowStore, World
from tests.support.trust import identity

HASH = bytes(64)
HUB = identity("hub")


class Office:
    """A founded hub with its desk."""

    def __init__(
        self, path: Path, store: Any = None, url: str = "https://hub.example:8443"
    ) -> None:
        self.path = path
        self.keys = load_or_make_hub_keys(path / "keys", "eu")
        self.register = RegisterStore.open(path / "register", self.keys.root_fp)
        found(self.keys, HUB, self.register, urls=[url])
        self.store = store or RowStore(World(), HUB.node_id)
        self.clock = FixedClock()
        self.desk = JoinDesk(self.store, self.register, self.keys, HUB, self.clock)

    async def join(self, text: str, label: str = "n1", handshake: bytes = HASH) -> JoinResult:
        """Go through the exchange as the carrier does; return the node's result."""
        node = identity(label)
        client = JoinClient(parse_token(text), node, node.key_record, label)
        client.accept_hub(self.desk.server_payload(), HUB.kem_public)
        request = client.request(HASH)
        return client.finish(await self.desk.answer(request, handshake, node.kem_public))
