"""A server that behaves: a BMC and a machine with the contract's behaviour.

Power and boot device are set and read back; the machine boots by the node's own scripts and
speaks the agent's protocol. ``Cut`` kills the node at a counted boundary.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from node.proto.agent_wire import signed_message
from node.proto.first_boot import INFO
from node.work.boot_desk import BootDesk
from tests.support.bmc_words import BIOS, COMPONENTS, EVENTS, READINGS

SHA256 = "cd" * 32
MAC = "52:54:00:00:00:01"
IP = "10.77.0.101"


class NodeSide(Protocol):
    """The node, as the machine meets it."""

    desk: BootDesk | None
    """None while the node is dead."""
    calls: set[trio.CancelScope]


class Crash(BaseException):
    """The node dies at this boundary; not an Exception, so nobody handles it."""


@dataclass
class Cut:
    """Counts the boundaries (durable writes, BMC orders) and kills the node at one of them."""

    at: int | None = None
    count: int = 0
    dead: bool = False
    node: trio.CancelScope | None = None
    full: bool = False
    """The disk under the store is full: no write stands."""
    refused: int = 0

    def boundary(self) -> None:
        self.count += 1
        if self.count == self.at:
            self.dead = True
            assert self.node is not None
            self.node.cancel()
        if self.dead:
            raise Crash


@dataclass
class FakeBmc:
    """A BMC; ``refuse``, ``lie`` and ``hang`` are its bad days."""

    url: str = "http://bmc1/redfish/v1/Systems/1"
    power: str = "off"
    boot: str = "disk"
    disc: str | None = None
    trouble: list[Exception] = field(default_factory=list)
    lies: bool = False
    described: dict[str, Any] = field(default_factory=dict)
    """What it says the server is made of."""
    hangs: trio.Event | None = None
    """A call that switches power comes back when this is set, and cannot be cancelled."""
    hung: int = 0
    """Calls that did or do hang."""
    password: str | None = None
    """The one that it takes; None: any."""
    orders: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    told_uefi: list[bool | None] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)
    cut: Cut = field(default_factory=Cut)

    async def inventory(self) -> dict[str, Any]:
        self._ask()
        return self.described

    def _ask(self) -> None:
        if self.trouble:
            raise self.trouble.pop(0)

    fences: bool = False
    fenced: int = 0
    """Times that a runner shut out those before it."""

    async def fence(self) -> bool:
        await trio.lowlevel.checkpoint()
        self.fenced += 1
        return self.fences

    async def power_state(self) -> Any:
        await trio.lowlevel.checkpoint()
        self._ask()
        return "off" if self.lies else self.power

    async def set_power(self, on: bool) -> None:
        await trio.lowlevel.checkpoint()
        if self.hangs is not None:
            self.hung += 1
            with trio.move_on_after(20, shield=True):
                await self.hangs.wait()
        self._ask()
        self.cut.boundary()
        self.orders.append("on" if on else "off")
        self.switch("on" if on else "off")
        self.cut.boundary()

    async def set_boot(self, device: Any, *, uefi: bool | None = None) -> None:
        await trio.lowlevel.checkpoint()
        self._ask()
        self.cut.boundary()
        self.boot = device
        self.told_uefi.append(uefi)
        self.cut.boundary()

    async def boot_device(self) -> Any:
        await trio.lowlevel.checkpoint()
        return self.boot

    async def insert_medium(self, url: str) -> None:
        await trio.lowlevel.checkpoint()
        self._ask()
        self.cut.boundary()
        self.disc = url
        self.orders.append("insert")
        self.cut.boundary()

    async def eject_medium(self) -> None:
        await trio.lowlevel.checkpoint()
        self._ask()
        self.cut.boundary()
        self.disc = None
        self.orders.append("eject")
        self.cut.boundary()

    async def inserted_medium(self) -> str | None:
        await trio.lowlevel.checkpoint()
        self._ask()
        return self.disc

    async def set_password(self, password: str) -> None:
        await trio.lowlevel.checkpoint()
        self._ask()
        self.cut.boundary()
        self.password = password
        self.orders.append("password")
        self.cut.boundary()

    attempts: tuple[Any, ...] = ()

    async def sensors(self) -> Any:
        return await self._read("sensors", READINGS)

    async def events(self) -> Any:
        return await self._read("events", EVENTS)

    async def firmware(self) -> Any:
        return await self._read("firmware", COMPONENTS)

    async def bios(self) -> Any:
        return await self._read("bios", BIOS)

    async def _read(self, what: str, found: Any) -> Any:
        self.reads.append(what)
        await trio.lowlevel.checkpoint()
        self._ask()
        return found

    def switch(self, power: str) -> None:
        self.power = power
        self.changed.set()
        self.changed = trio.Event()


class Agent:
    """One boot of the ramdisk: the agent's side of the protocol."""

    def __init__(
        self,
        desk: BootDesk | None,
        cap: str | None,
        hardware: Mapping[str, Any],
        ask: Any = None,
    ) -> None:
        self.cap, self.hardware = cap, hardware
        self.ask = ask or (lambda call, *args: call(desk, *args))
        self.key, self.seal = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.session, self.counter = "", 0

    async def hello(self, client_ip: str = IP) -> tuple[int, dict[str, Any]]:
        body = {
            "mac": MAC, "macs": [MAC], "cap": self.cap, "agent": "1",
            "key": self.key.public_key().public_bytes_raw().hex(),
            "seal": self.seal.public_key().public_bytes_raw().hex(),
            "inventory": dict(self.hardware),
        }  # fmt: skip
        data = json.dumps(body).encode()
        status, answer = await self.ask(BootDesk.agent, "/agent/v1/hello", data, {}, client_ip)
        self.session = answer.get("session") or self.session
        return status, answer

    async def call(self, verb: str, value: Any) -> tuple[int, dict[str, Any]]:
        path, body = f"/agent/v1/{verb}", json.dumps(value).encode()
        self.counter += 1
        message = signed_message(self.session, self.counter, path, body)
        headers = {
            "x-rackmesh-session": self.session,
            "x-rackmesh-counter": str(self.counter),
            "x-rackmesh-signature": self.key.sign(message).hex(),
        }
        return tuple(await self.ask(BootDesk.agent, path, body, headers, IP))


@dataclass
class Machine:
    """A server: boots when its power goes on, as the node tells it."""

    bmc: FakeBmc
    site: NodeSide
    disk: str = "old data"
    disk_bytes: int = 1 << 30
    wipe_leaves: int = 0
    frozen_boots: int = 0
    """In so many ramdisks its disk is frozen; it must name what it can (``hardware``)."""
    cidata: dict[str, str] | None = None
    hold_write: trio.Event | None = None
    """While set and not fired, a write stands still after its first progress."""
    writes_begun: int = 0
    boots: list[str] = field(default_factory=list)
    phone_fields: dict[str, str] = field(default_factory=dict)
    """What the installed system posts."""
    phones_in: bool = True
    """Whether a live system says that it is up."""
    scripts: list[str] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    """What came instead of a disc."""
    media: list[Any] = field(default_factory=list)
    """What was got of a live system or an ISO, in its order."""
    hardware: dict[str, Any] = field(
        default_factory=lambda: {
            "system": {"vendor": "Acme", "product": "One", "serial": "S1", "uuid": "u-1"},
            "memory": {"bytes": 8 << 30},
            "firmware": {"type": "uefi"},
            "disks": [{"name": "vda", "serial": "D1", "bytes": 1 << 30}],
        }
    )

    async def ask(self, call: Any, *args: Any) -> Any:
        """Ask the node; while it is dead, wait until it lives again."""
        while True:
            if self.site.desk is not None:
                with trio.CancelScope() as scope:
                    self.site.calls.add(scope)
                    try:
                        return await call(self.site.desk, *args)
                    except Crash:
                        pass
                    finally:
                        self.site.calls.discard(scope)
            await trio.sleep(0.01)

    async def run(self) -> None:
        """Live: boot when on, die when off, for ever."""
        while True:
            event = self.bmc.changed
            if self.bmc.power == "on":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._boot)
                    await event.wait()
                    nursery.cancel_scope.cancel()
            else:
                await event.wait()

    def reset(self) -> None:
        """Lose everything but the disk and boot again."""
        self.bmc.switch("on")

    async def _boot(self) -> None:
        while self.bmc.boot == "cd":
            found = re.search(r"/boot/v1/media/(\S+)\.iso$", self.bmc.disc or "")
            config = await self.ask(BootDesk.disc, found[1], "10.0.0.9") if found else None
            if not isinstance(config, str):
                self.refused.append(config)
                await trio.sleep(0.02)
                continue
            self.boots.append("disc")
            self.scripts.append(config)
            cap = re.search(r"rackmesh\.cap=(\S+)", config)
            assert cap is not None
            if await self._ramdisk(cap[1]) == "poweroff":
                self.bmc.power = "off"
                await trio.sleep_forever()
        while True:
            script = await self.ask(BootDesk.script_for, MAC, IP)
            assert isinstance(script, str), script
            if "/media/v1/" in script:
                await self._net_boot(script)
                await trio.sleep_forever()
            if "sanboot" in script:
                self.boots.append("disk")
                await self._system()
                await trio.sleep_forever()
            cap = re.search(r"rackmesh\.cap=(\S+)", script)
            self.boots.append("ramdisk" if cap else "discovery")
            if await self._ramdisk(cap.group(1) if cap else None) == "poweroff":
                self.bmc.power = "off"
                await trio.sleep_forever()

    async def _net_boot(self, script: str) -> None:
        """Boot what the script names, as firmware does: every file, in its order."""
        iso = "sanboot" in script
        self.boots.append("iso" if iso else "live")
        self.scripts.append(script)
        for name, capability in re.findall(r"/media/v1/(\S+)\?cap=(\S+)", script):
            for _ in range(40 if iso else 1):
                asked = 2048 if iso else 0
                self.media.append(await self.ask(BootDesk.media, capability, name, asked, IP))
        found = re.search(r"rackmesh\.phone=(\S+)", script)
        if found is None or not self.phones_in:
            return
        capability = found[1].split(",")[0].rpartition("/")[2]
        while (await self.ask(BootDesk.phone_in, capability, {}, IP))[0] != 200:
            await trio.sleep(0.02)

    async def _system(self) -> None:
        if self.disk != SHA256 or self.cidata is None:
            return
        found = re.search(r"^rackmesh-phone-in: (.*)$", self.cidata["meta_data"], re.M)
        assert found is not None
        capability = json.loads(found.group(1))[0].rpartition("/")[2]
        while True:
            said = self.phone_fields
            status, _ = await self.ask(BootDesk.phone_in, capability, said, IP)
            if status == 200:
                return
            await trio.sleep(0.02)

    async def _ramdisk(self, cap: str | None) -> str:
        for disk in self.hardware["disks"]:
            if "erase" in disk:
                disk["erase"]["frozen"] = self.frozen_boots > 0
        self.frozen_boots -= 1
        agent, done, bound = Agent(None, cap, self.hardware, self.ask), None, False
        while True:
            await trio.sleep(0.01)
            if not bound:
                _, answer = await agent.hello()
                if answer.get("do"):
                    return str(answer["do"])
                bound = bool(answer.get("bound"))
                continue
            status, answer = await agent.call("next", {"done": done})
            if status != 200:
                bound = False
                continue
            done = None
            step = answer.get("step")
            if step is None:
                continue
            if step["do"] in ("reboot", "poweroff"):
                end = {"step": step["id"], "ok": True, "evidence": {}, "error": None}
                await agent.call("next", {"done": end})
                return str(step["do"])
            done = await self._perform(agent, step)

    async def _perform(self, agent: Agent, step: Mapping[str, Any]) -> dict[str, Any]:
        evidence: dict[str, Any] = {}
        error: str | None = None
        match step["do"]:
            case "write_image":
                self.writes_begun += 1
                size = step["size"]
                await agent.call("progress", {"step": step["id"], "done": 1, "total": size})
                if self.hold_write is not None:
                    await self.hold_write.wait()
                if size + (8 << 20) > self.disk_bytes:
                    error = f"the disk vda has {self.disk_bytes} bytes, the image {size}"
                else:
                    self.disk = SHA256
                evidence = {"disk": "vda", "bytes": size, "sha256": self.disk, "seconds": 1}
            case "first_boot":
                suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
                info = INFO + agent.session.encode()
                sealed = base64.b64decode(step["sealed"])
                self.cidata = json.loads(suite.decrypt(sealed, agent.seal, info=info))
                evidence = {"cidata": "raw", "offset": self.disk_bytes - (8 << 20)}
            case "erase":
                self.disk, self.cidata = "zeros", None
                evidence = {
                    "serial": step["serial"], "bytes": step["bytes"], "seed": step["seed"],
                    "method": step["methods"][0], "samples": step["samples"],
                    "markers": step["samples"] // 2, "telling": 4 * step["samples"],
                    "kept": self.wipe_leaves, "pattern": "zeros", "direct": True,
                    "verified_bytes": step["bytes"], "model": "M",
                }  # fmt: skip
            case "wipe":
                self.disk, self.cidata = "zeros", None
                evidence = {"bytes": self.disk_bytes, "verified_bytes": self.disk_bytes}
                evidence |= {"nonzero": self.wipe_leaves, "seconds": 2}
        return {"step": step["id"], "ok": error is None, "evidence": evidence, "error": error}
