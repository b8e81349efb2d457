"""The variables that every boot template has, besides those of whoever gives the order.

It knows no store. Rule: the names stand here once, so what renders when an order is given
renders when a machine asks, and no variable of a user takes the place of one of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.proto.template_text import TemplateRefused, check_vars

HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How the machine is on the network; empty where the site's DHCP says nothing."""

    address: str = "192.0.2.10"
    netmask: str = "255.255.255.0"
    gateway: str = "192.0.2.1"
    dns: Sequence[str] = field(default_factory=lambda: ["192.0.2.1"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """URLs with a capability inside, or what stands for them; HIDDEN where none is given."""

    phone_url: str = HIDDEN
    started_url: str = HIDDEN
    kernel_url: str = HIDDEN
    initrd_urls: Sequence[str] = (HIDDEN,)


def values_for(
    server: Mapping[str, Any],
    *,
    hostname: str,
    ssh_keys: Sequence[str],
    given: Mapping[str, str],
    cmdline: str = "",
    network: Network | None = None,
    links: Links | None = None,
) -> dict[str, Any]:
    """Return all variables; raises TemplateRefused for one of ours among ``given``."""
    network, links = network or Network(), links or Links()
    macs = [str(mac) for mac in server.get("macs") or ()]
    ours = {
        "server": str(server.get("name")), "hostname": hostname, "macs": macs,
        "mac": macs[0] if macs else "", "ssh_keys": list(ssh_keys), "cmdline": cmdline,
        "address": network.address, "netmask": network.netmask, "gateway": network.gateway,
        "dns": list(network.dns), "phone_url": links.phone_url,
        "started_url": links.started_url, "kernel_url": links.kernel_url,
        "initrd_urls": list(links.initrd_urls),
    }  # fmt: skip
    taken = sorted(({*ours, "secret", "range", "loop"}) & given.keys())
    if taken:
        raise TemplateRefused(f"the variable {taken[0]} is one of ours; take another name")
    return {**ours, **check_vars(given)}
