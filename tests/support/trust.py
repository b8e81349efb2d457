"""A small organisation for tests: root, role keys, hubs and nodes from fixed seeds."""

import hashlib
from dataclasses import dataclass, field

from mesh.identity import Identity, make_identity
from mesh.proto.ids import root_fingerprint
from mesh.proto.register import Merged, Register
from mesh.proto.sign import KeySigner
from mesh.proto.token import Token, make_token, parse_token
from mesh.proto.trust import (
    MEMBER,
    OrderKeys,
    RosterRecord,
    Status,
    make_hub_record,
    make_roster_record,
    make_trust_document,
)


def seed(label: str) -> bytes:
    return hashlib.blake2b(label.encode(), digest_size=32).digest()


def identity(label: str) -> Identity:
    return make_identity(seed(f"{label}/id"), seed(f"{label}/kem"))


@dataclass
class Org:
    """An organisation whose keys follow from its label."""

    label: str = "acme"
    region: str = "eu"
    register: Register = field(init=False)

    def __post_init__(self) -> None:
        self.root = KeySigner(seed(f"{self.label}/root"))
        self.membership = KeySigner(seed(f"{self.label}/membership"))
        self.orders = KeySigner(seed(f"{self.label}/orders"))
        self.assets = KeySigner(seed(f"{self.label}/assets"))
        self.root_fp = root_fingerprint(self.root.public)
        self.trust = self.trust_document(1)
        self.register = Register(self.root_fp)
        assert isinstance(self.register.merge(self.trust), Merged)

    def trust_document(self, version: int, epoch: int = 1) -> bytes:
        return make_trust_document(
            self.root,
            version=version,
            membership=[self.membership.public],
            assets=[self.assets.public],
            orders={self.region: OrderKeys(epoch, (self.orders.public,))},
        )

    def roster(
        self,
        who: Identity,
        site: str = "lab",
        roles: tuple[str, ...] = ("node",),
        status: Status = MEMBER,
        version: int = 1,
        trust_version: int = 1,
        name: str = "",
        capabilities: tuple[str, ...] = (),
    ) -> bytes:
        record = RosterRecord(
            capabilities=frozenset(capabilities),
            identity_public=who.public,
            trust_version=trust_version,
            version=version,
            site=site,
            roles=frozenset(roles),
            status=status,
            name=name,
        )
        return make_roster_record(self.membership, self.root_fp, record)

    def admit(
        self, label: str, site: str = "lab", roles: tuple[str, ...] = ("node",)
    ) -> Identity:
        who = identity(label)
        assert isinstance(self.register.merge(self.roster(who, site, roles)), Merged)
        self.register.merge(who.key_record)
        return who

    def admit_hub(self, label: str = "hub") -> Identity:
        who = self.admit(label, "", ("hub",))
        urls = [f"https://{label}.example:8443"]
        self.register.merge(make_hub_record(who, self.root_fp, version=1, urls=urls))
        return who

    def token(self, hub: Identity, **changes: object) -> Token:
        return parse_token(self.token_text(hub, **changes))

    def token_text(self, hub: Identity, **changes: object) -> str:
        values: dict[str, object] = {
            "urls": ["https://hub.example:8443"],
            "hub_ids": [hub.node_id],
            "root_fp": self.root_fp,
            "trust_version": 1,
            "token_id": "t-0001",
            "site": "lab",
            "roles": frozenset({"node"}),
            "expires_ms": 2_000_000_000_000,
            "secret": seed("token")[:16],
        }
        return make_token(**{**values, **changes})  # type: ignore[arg-type]
