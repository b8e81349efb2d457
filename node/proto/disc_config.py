"""What the loader on a server's disc is told: kernel, ramdisk and the kernel's command line.

It knows no ISO and no rows. Rules: the machine gets its address on the command line, so it
needs no DHCP; words that are no words of a command line never enter; what a simulated server
reads back is what GRUB would read.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

from mesh.proto.ids import MAC_PATTERN
from node.proto.boot_script import CONSOLE, NODES_MAX

NAME_SERVERS_MAX: Final = 3
LINES_MAX: Final = 64
_WORD: Final = re.compile(r"[A-Za-z0-9_\-.=,:/]{1,512}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineNetwork:
    """The address that is reserved for a machine, and what it needs beside it."""

    address: IPv4Address
    prefix: int
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()

    def words(self) -> list[str]:
        """Return it as words of a kernel command line."""
        found = [f"rackmesh.ip={self.address}/{self.prefix}"]
        if self.router is not None:
            found.append(f"rackmesh.gw={self.router}")
        if self.dns:
            found.append(f"rackmesh.dns={','.join(map(str, self.dns[:NAME_SERVERS_MAX]))}")
        return found

    def network_config(self, mac: str) -> str:
        """Return it as cloud-init's network-config (version 2), for the installed system."""
        port: dict[str, Any] = {
            "match": {"macaddress": mac},
            "dhcp4": False,
            "addresses": [f"{self.address}/{self.prefix}"],
        }
        if self.router is not None:
            port["routes"] = [{"to": "0.0.0.0/0", "via": str(self.router)}]
        if self.dns:
            port["nameservers"] = {"addresses": [str(one) for one in self.dns]}
        return json.dumps({"version": 2, "ethernets": {"boot": port}}) + "\n"


def ramdisk_config(
    urls: Sequence[str], mac: str, capability: str, network: MachineNetwork
) -> str:
    """Return GRUB's commands that start the ramdisk; lengths are bounded by their parts."""
    assert urls, "at least one node serves"
    assert MAC_PATTERN.match(mac), "a MAC address in our spelling"
    words = [
        f"console={CONSOLE}",
        "quiet",  # the kernel must not print its command line, the capability stands in it
        "panic=10",
        f"rackmesh.url={','.join(urls[:NODES_MAX])}",
        f"rackmesh.mac={mac}",
        f"rackmesh.cap={capability}",
        *network.words(),
    ]
    assert all(_WORD.match(word) for word in words), "words of a kernel command line"
    return f"set timeout=0\nlinux /vmlinuz {' '.join(words)}\ninitrd /initrd\nboot\n"


@dataclass(frozen=True, slots=True)
class Started:
    """What a configuration starts: names on the disc, and the kernel's words."""

    kernel: str
    initrd: str
    arguments: str


def read_config(text: str) -> Started | None:
    """Return what GRUB would start by our configuration, or None; for simulated servers."""
    kernel = initrd = arguments = ""
    for line in text.splitlines()[:LINES_MAX]:
        verb, _, rest = line.strip().partition(" ")
        if verb == "linux":
            kernel, _, arguments = rest.strip().partition(" ")
        elif verb == "initrd":
            initrd = rest.strip()
    if not kernel.startswith("/") or not initrd.startswith("/"):
        return None
    return Started(kernel.lstrip("/").upper(), initrd.lstrip("/").upper(), arguments)
