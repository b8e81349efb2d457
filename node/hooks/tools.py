"""What hooks need of a node, out of its store, keys and cache."""

from functools import partial
from pathlib import Path

from cache.api import Cache
from cache.errors import ChunkUnavailable
from mesh.identity import Identity
from mesh.ports import StorePort
from mesh.proto.register import Register
from mesh.secrets import read_secret
from node.hooks.desk import HookTools


def hook_tools(
    store: StorePort, register: Register, identity: Identity, cache: Cache, data: Path
) -> HookTools:
    """Return them; playbooks stand in the folder ``hooks`` of the node's ``data``."""

    async def beginning(asset: str, most: int) -> bytes | None:
        manifest = cache.manifest(asset)
        if manifest is None or not cache.holds(asset):
            return None
        data = b""
        for index in range(manifest.chunks):
            try:
                data += await cache.read_chunk(asset, index)
            except ChunkUnavailable:
                return None
            if len(data) >= most:
                break
        return data[:most]

    return HookTools(
        secret=partial(read_secret, store, register, identity), folder=data / "hooks",
        asset=beginning,
    )  # fmt: skip
