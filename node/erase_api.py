"""What a node does about erases: its signature, its ramdisk, and its API over its own site."""

from functools import partial
from typing import Any

from mesh.proto.erase_record import sign_erase
from mesh.rest.erase_alike import EraseAlike
from node.boot.sockets import interface_address
from node.config import Interfaces
from node.hooks.tools import hook_tools
from node.job_limits import job_limits
from node.work.scan import ScanFrom


def erase_handlers(node: Any) -> dict[str, Any]:
    """Return the handlers of a running node (node/main.py)."""
    site = node.joined.site
    return EraseAlike(node.store, node.register.register, lambda: [site]).handlers()


def work_ports(node: Any) -> dict[str, Any]:
    """Return what jobs need of a node's configuration and key (node/work/engine.py)."""
    policy, files = node.config.policy, node.config.boot.files or node.config.data / "boot"
    return {
        "sign_erase": partial(sign_erase, node.identity, node.register.register.root_fp),
        "ramdisk": files / "initrd",
        "destructive_per_hour": policy.destructive_per_hour,
        "limits": job_limits(node.config),
        "scan_from": _scan_from(node.config.interfaces),
        "hooks": hook_tools(
            node.store, node.register.register, node.identity, node.cache, node.config.data
        ),
    }


def _scan_from(interfaces: Interfaces) -> ScanFrom:
    """Return which networks are scanned for BMCs, and from which address."""
    local = interface_address(interfaces.oob) if interfaces.oob else None
    return ScanFrom(networks=interfaces.oob_networks, local_address=local)
