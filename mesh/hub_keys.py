"""The hub's key ring on disk: the role keys that work every day, and the root that should not.

It knows no store and no link. Rules: the first start makes everything in a draft folder and
puts it in place by one rename, so that there is never a root without its trust document; a
later start finds what is there and makes nothing; the root stands in a file of its own, wrapped
by a passphrase when one is given, and can be taken away (``export_root``): a hub works without
it until role keys or region epochs change. A hub that joined has a ring of its own and never
the root; what its keys are worth the trust document says (``mesh/proto/role_keys.py``).
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.errors import CodecError, Refused
from mesh.host.files import make_private_folder, sync_folder, write_file
from mesh.keyfile import KeyFileDamaged, parse_lines, read_private, render_lines, write_new
from mesh.proto.ids import root_fingerprint
from mesh.proto.role_keys import RoleKeys
from mesh.proto.sign import SEED_BYTES, KeySigner
from mesh.proto.trust import OrderKeys, make_trust_document, open_trust_document
from mesh.proto.wrap import WrapCost, unwrap_seed, wrap_seed

RING_FILE: Final = "ring.key"
ROOT_FILE: Final = "root.key"
RING_KIND: Final = "rackmesh-hub-ring 1"
ROOT_KIND_PLAIN: Final = "rackmesh-root-plain 1"
ROOT_KIND_WRAPPED: Final = "rackmesh-root-wrapped 1"
ROLE_NAMES: Final = ("membership", "orders", "assets")


@dataclass(frozen=True, slots=True)
class HubKeys:
    """The keys that a hub signs with. ``repr`` shows public halves only."""

    folder: Path
    root_fp: bytes
    region: str
    membership: KeySigner
    orders: KeySigner
    assets: KeySigner
    trust_document: bytes = field(repr=False)
    """The document that came with the keys; a later one may stand in the register."""

    @property
    def founded(self) -> bool:
        """Tell whether this hub made the organisation; otherwise it joined one."""
        trust = open_trust_document(self.trust_document, self.root_fp)
        return self.membership.public in trust.membership

    def role_keys(self, hub_id: str) -> RoleKeys:
        """Return the public halves, as those of this hub."""
        public = (self.membership.public, self.orders.public, self.assets.public)
        return RoleKeys(hub_id, self.region, *public)

    @property
    def root_state(self) -> str:
        """Where the root is: ``wrapped``, ``plain`` (the console warns) or ``offline``."""
        data = read_private(self.folder / ROOT_FILE)
        if data is None:
            return "offline"
        return "wrapped" if data.startswith(ROOT_KIND_WRAPPED.encode()) else "plain"

    def root(self, passphrase: str | None = None) -> KeySigner:
        """Return the root key; raise Refused when it is away or the passphrase is wrong.

        Takes a third of a second when wrapped: call it from a worker thread.
        """
        signer = read_root(self.folder / ROOT_FILE, passphrase)
        if root_fingerprint(signer.public) != self.root_fp:
            raise Refused(f"{self.folder / ROOT_FILE} is the root of another organisation")
        return signer

    def export_root(self, target: Path) -> None:
        """Move the root file away, for example to a USB stick; durable there before it goes."""
        source = self.folder / ROOT_FILE
        data = read_private(source)
        if data is None:
            raise Refused("the root key is already offline")
        if not write_new(target, data):
            raise Refused(f"{target} already exists; give a name that is free")
        source.unlink()
        sync_folder(self.folder)


def load_or_make_hub_keys(
    folder: Path,
    region: str,
    passphrase: str | None = None,
    *,
    entropy: Callable[[int], bytes] = os.urandom,
    cost: WrapCost | None = None,
) -> HubKeys:
    """Return the key ring in a folder; the first call makes it, and the organisation with it.

    ``region`` and ``passphrase`` are used by the first call only. Raises Refused with one
    sentence when something is damaged or missing.
    """
    if not folder.exists() or not any(folder.iterdir()):
        _make(folder, region, passphrase, entropy, cost or WrapCost())
    return _load(folder)


def make_joined_keys(
    folder: Path,
    region: str,
    root_fp: bytes,
    trust_document: bytes,
    *,
    entropy: Callable[[int], bytes] = os.urandom,
) -> HubKeys:
    """Return the ring of a hub that joined; the first call makes it, without a root.

    Raises Refused when the folder holds the keys of another organisation or region.
    """
    if not folder.exists() or not any(folder.iterdir()):
        trust = open_trust_document(trust_document, root_fp)
        draft = _draft(folder)
        seeds = {name: entropy(SEED_BYTES) for name in ROLE_NAMES}
        _write_ring(draft, seeds, region, trust.root_public, trust_document)
        _put_in_place(draft, folder)
    keys = _load(folder)
    if keys.root_fp != root_fp:
        raise Refused(
            f"{folder} holds the keys of organisation {keys.root_fp.hex()[:8]}, not"
            f" {root_fp.hex()[:8]}; use another data folder"
        )
    if keys.region != region:
        raise Refused(f"this hub's keys are for region {keys.region}, not {region}")
    return keys


def _make(
    folder: Path,
    region: str,
    passphrase: str | None,
    entropy: Callable[[int], bytes],
    cost: WrapCost,
) -> None:
    draft = _draft(folder)
    seeds = {name: entropy(SEED_BYTES) for name in ROLE_NAMES}
    public = {name: KeySigner(seed).public for name, seed in seeds.items()}
    root_seed = entropy(SEED_BYTES)
    root = KeySigner(root_seed)
    trust = make_trust_document(
        root,
        version=1,
        membership=[public["membership"]],
        assets=[public["assets"]],
        orders={region: OrderKeys(1, (public["orders"],))},
    )
    _write_ring(draft, seeds, region, root.public, trust)
    if passphrase is None:
        root_lines = render_lines(ROOT_KIND_PLAIN, {"root": root_seed.hex()})
    else:
        wrapped = wrap_seed(root_seed, passphrase, entropy, cost)
        root_lines = render_lines(ROOT_KIND_WRAPPED, wrapped)
    write_file(draft / ROOT_FILE, root_lines)
    _put_in_place(draft, folder)


def _draft(folder: Path) -> Path:
    """Return an empty folder beside the ring's, in which it is made."""
    make_private_folder(folder.parent)
    draft = folder.with_name(f".{folder.name}.new")
    if draft.exists():
        shutil.rmtree(draft)  # a first start that died: nothing in it was ever used
    return make_private_folder(draft)


def _write_ring(
    draft: Path, seeds: Mapping[str, bytes], region: str, root_public: bytes, trust: bytes
) -> None:
    lines = {name: seed.hex() for name, seed in seeds.items()}
    lines |= {"region": region, "root-public": root_public.hex(), "trust": trust.hex()}
    write_file(draft / RING_FILE, render_lines(RING_KIND, lines))


def _put_in_place(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError as exc:
        if (folder / RING_FILE).exists():
            return  # another process was faster: its organisation holds
        raise Refused(f"cannot make {folder}: {exc.strerror}") from exc
    sync_folder(folder.parent)


def _load(folder: Path) -> HubKeys:
    path = folder / RING_FILE
    data = read_private(path)
    if data is None:
        raise Refused(f"{folder} holds no {RING_FILE}; restore it, or use another data folder")
    try:
        lines = parse_lines(RING_KIND, data)
        root_fp = root_fingerprint(bytes.fromhex(lines["root-public"]))
        trust = bytes.fromhex(lines["trust"])
        open_trust_document(trust, root_fp)
        signers = {name: KeySigner(bytes.fromhex(lines[name])) for name in ROLE_NAMES}
        region = lines["region"]
    except (KeyFileDamaged, CodecError, KeyError, ValueError, AssertionError) as exc:
        raise Refused(
            f"the key file {path} is damaged; restore it from a backup, nothing was changed"
        ) from exc
    return HubKeys(
        folder=folder, root_fp=root_fp, region=region, trust_document=trust, **signers
    )


def root_is_wrapped(path: Path) -> bool:
    """Tell whether a root file needs a passphrase; False too when there is none."""
    return (read_private(path) or b"").startswith(ROOT_KIND_WRAPPED.encode())


def read_root(path: Path, passphrase: str | None) -> KeySigner:
    """Return the root key of a file; raise Refused when it is away or the passphrase is wrong.

    Whose root it is the caller asks. Takes a third of a second when wrapped.
    """
    data = read_private(path)
    if data is None:
        raise Refused(f"the root key is offline: there is no {path}")
    try:
        if data.startswith(ROOT_KIND_PLAIN.encode()):
            return KeySigner(bytes.fromhex(parse_lines(ROOT_KIND_PLAIN, data)["root"]))
        lines = parse_lines(ROOT_KIND_WRAPPED, data)
    except (KeyFileDamaged, KeyError, ValueError, AssertionError) as exc:
        raise Refused(f"the key file {path} is damaged; restore it from a backup") from exc
    if passphrase is None:
        raise Refused("the root key is wrapped; give its passphrase")
    try:
        return KeySigner(unwrap_seed(lines, passphrase))
    except CodecError as exc:
        raise Refused("the passphrase of the root key is wrong") from exc
