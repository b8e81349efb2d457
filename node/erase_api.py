"""What a node's API does about erases: the handlers of every member, over its own site."""

from typing import Any

from mesh.rest.erase_alike import EraseAlike


def erase_handlers(node: Any) -> dict[str, Any]:
    """Return the handlers of a running node (node/main.py)."""
    site = node.joined.site
    return EraseAlike(node.store, node.register.register, lambda: [site]).handlers()
