"""Two sites behind NAT boxes of the kernel: relayed at first, direct where a hole can be."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.netns import Namespace, namespace, wire

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 is not installed"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed"),
]

ROOT = Path(__file__).parents[2]
HUB = "10.9.0.1"
KEEPS_PORTS = "masquerade"
CHANGES_PORTS = "masquerade fully-random"
BOX = """
table ip nat {
  chain post { type nat hook postrouting priority srcnat; oifname "wan" %s; }
}
table ip filter {
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "wan" ct state new drop
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    %s
    iifname "lan" accept
    ct state established,related accept
  }
}
"""
NO_UDP = "meta l4proto udp drop"


class Member:
    """A process in a namespace that answers line by line."""

    def __init__(self, space: Namespace, *words: str) -> None:
        argv = [sys.executable, str(ROOT / "tests/support/nat_peer.py"), *words]
        self.process = subprocess.Popen(
            space.argv(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def ask(self, label: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(label + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        with self.process:
            self.process.kill()


class Net:
    """The hub in the open, two sites behind boxes."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        names = ("street", "hub", "box_a", "box_b", "a", "b")
        self.at = {name: stack.enter_context(namespace()) for name in names}
        self.at["street"].run("ip", "link", "add", "bridge", "type", "bridge")
        self.at["street"].run("ip", "link", "set", "bridge", "up")
        self._plug("hub", HUB)
        for number, site in enumerate("ab", 1):
            self._plug(f"box_{site}", f"10.9.0.{10 + number}")
            box, member = self.at[f"box_{site}"], self.at[site]
            wire(box, "lan", member, "eth")
            box.run("ip", "address", "add", f"192.168.{number}.1/24", "dev", "lan")
            box.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
            member.run("ip", "address", "add", f"192.168.{number}.2/24", "dev", "eth")
            member.run("ip", "route", "add", "default", "via", f"192.168.{number}.1")

    def _plug(self, name: str, address: str) -> None:
        wire(self.at["street"], f"p_{name}", self.at[name], "wan")
        self.at["street"].run("ip", "link", "set", f"p_{name}", "master", "bridge")
        self.at[name].run("ip", "address", "add", f"{address}/24", "dev", "wan")

    def rules(self, site: str, kind: str, first: str = "") -> None:
        """Give a site's box its rules; what it knew of connections stays."""
        box = self.at[f"box_{site}"]
        box.run("nft", "flush", "ruleset")
        box.run("nft", BOX % (kind, first))

    def member(self, label: str) -> Member:
        words = [label] if label == "hub" else [label, HUB]
        member = Member(self.at[label], *words)
        self._stack.callback(member.end)
        assert member.read()["udp"] == 4770
        return member


@contextmanager
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(stack)


async def asked(member: Member, until: Callable[[str], bool], tries_s: float = 60) -> None:
    """Call the other member until the path is as wanted; every answer must be whole."""
    with trio.fail_after(tries_s):
        while True:
            answer = await trio.to_thread.run_sync(member.ask, "b")
            assert answer.get("same", True)
            if until(str(answer.get("path"))):
                return
            await trio.lowlevel.checkpoint()


async def start(wan: Net) -> Member:
    wan.member("hub")
    a, _ = wan.member("a"), wan.member("b")
    await asked(a, "relay".__eq__)
    return a


async def test_boxes_that_keep_ports_are_punched_and_a_cut_path_falls_back_to_the_relay():
    with net() as wan:
        for site in "ab":
            wan.rules(site, KEEPS_PORTS)
        a = await start(wan)
        await asked(a, "udp".__eq__)
        wan.rules("a", KEEPS_PORTS, NO_UDP)
        await asked(a, "relay".__eq__)


@pytest.mark.parametrize(
    ("kind", "first"),
    [(CHANGES_PORTS, ""), (KEEPS_PORTS, NO_UDP)],
    ids=["ports that change with the peer", "no UDP at all"],
)
async def test_where_no_hole_can_be_the_link_stays_on_the_relay(kind: str, first: str):
    with net() as wan:
        for site in "ab":
            wan.rules(site, kind, first)
        a = await start(wan)
        until = trio.current_time() + 9  # one attempt takes 1 + 6 seconds
        await asked(a, lambda path: path != "relay" or trio.current_time() > until)
        await asked(a, "relay".__eq__, 1)
