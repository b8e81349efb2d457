"""What the API says about content on the disk of who is asked."""

from typing import TypedDict


class AssetPinned(TypedDict):
    """An asset and a site where it stays, or stays no more."""

    name: str
    site: str
    pinned: bool


class AssetChecked(TypedDict):
    """A piece of an asset that was read again from the disk of who was asked."""

    name: str
    asset: str
    checked: int  # chunks that were held, and read
    damaged: int  # of these: forgotten here, and fetched again where a site wants the asset
    of: int  # chunks of the asset; 0: nothing of it is here
    next: int | None  # the chunk to go on with


class FreedAsset(TypedDict):
    """Content that went from a disk, or would."""

    asset: str
    names: list[str]
    bytes: int


class AssetsFreed(TypedDict):
    """What nobody wants any more on the disk of who was asked."""

    dry_run: bool
    bytes: int
    assets: list[FreedAsset]


class BundleSealed(TypedDict):
    """The signature of the hub or node that was asked over the contents of a bundle."""

    node: str
    seal: str  # base64


class BundleTaken(TypedDict):
    """How far a bundle is taken in."""

    file: str
    signed_by: str
    names: list[str]
    done: int  # chunks that are here
    of: int
    next: int | None  # where to go on
