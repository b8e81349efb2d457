"""What other rooms may use of the cache.

``Cache`` holds assets on disk, verified chunk by chunk. It knows origins by URL and other nodes
only through a ``PeerSource``; what is wanted where is decided by its owner.
"""

from cache.bundle import BundleReader, BundleWriter
from cache.cache import Cache, Growth
from cache.carrying import Carried, Carrier
from cache.errors import (
    BundleRefused,
    CacheError,
    ChunkUnavailable,
    ContentMismatch,
    ImageRefused,
    ManifestError,
    NoConverter,
    NoHolder,
    NoSpace,
    OriginError,
)
from cache.fetching import PeerSource
from cache.making import why_no_converter
from cache.proto.fetch_plan import Ask, Later, Members
from cache.proto.manifest import Manifest, parse_manifest
from cache.proto.revalidation import Checked, Seen, differs, seen_in
from cache.revalidation import check_origin
from cache.sharing import WAIT_S, put_presence, rpc_handlers
from cache.shelf import AssetReader, AssetState

__all__ = [
    "WAIT_S",
    "Ask",
    "AssetReader",
    "AssetState",
    "BundleReader",
    "BundleRefused",
    "BundleWriter",
    "Cache",
    "CacheError",
    "Carried",
    "Carrier",
    "Checked",
    "ChunkUnavailable",
    "ContentMismatch",
    "Growth",
    "ImageRefused",
    "Later",
    "Manifest",
    "ManifestError",
    "Members",
    "NoConverter",
    "NoHolder",
    "NoSpace",
    "OriginError",
    "PeerSource",
    "Seen",
    "check_origin",
    "differs",
    "parse_manifest",
    "put_presence",
    "rpc_handlers",
    "seen_in",
    "why_no_converter",
]
