"""What a node does about erases: its signature, its ramdisk, and its API over its own site."""

from functools import partial
from typing import Any

from mesh.proto.erase_record import sign_erase
from mesh.rest.erase_alike import EraseAlike


def erase_handlers(node: Any) -> dict[str, Any]:
    """Return the handlers of a running node (node/main.py)."""
    site = node.joined.site
    return EraseAlike(node.store, node.register.register, lambda: [site]).handlers()


def erase_ports(node: Any) -> dict[str, Any]:
    """Return what jobs need of a node to sign what was erased (node/work/engine.py)."""
    files = node.config.boot.files or node.config.data / "boot"
    sign = partial(sign_erase, node.identity, node.register.register.root_fp)
    return {"sign_erase": sign, "ramdisk": files / "initrd"}
