"""One simulated server: its power, and what runs while it is on.

Knows how firmware, boot loader and operating system follow each other; the protocols are
elsewhere. Rule: power off is a pulled plug: everything that the server was doing ends at once,
nothing says goodbye, and until the last of it has ended the BMC shows ``PoweringOff``.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NoReturn

import trio

from mesh.host.clock import SystemClock
from mesh.host.log import get_log
from node.proto import rack_dhcp, rack_script, rack_tftp
from node.proto.rack_dhcp import Bound, DhcpClient, Machine
from node.proto.rack_disk import FirstBoot
from node.proto.rack_health import EVENTS_MAX
from node.proto.rack_iso import RECORD_AT
from node.proto.rack_iso import SECTOR_BYTES as DISC_SECTOR_BYTES
from node.proto.rack_reply import Shown
from node.rack import network, system
from node.rack.config import RackConfig, is_loopback
from node.rack.disc import boot_disc
from node.rack.errors import BootFailed
from node.rack.hardware import MEMORY_BYTES, FakeHardware
from node.rack.ports import read_nodes, relay_for
from node.rack.serial import SerialPort
from node.rack.state import RackState, ServerRecord

POST_S: Final = 0.3
"""What the firmware takes before it boots; keeps a server that restarts in a loop modest."""
RETRY_FIRST_S: Final = 1.0
RETRY_S_MAX: Final = 30.0
AGENT_HTTP: Final = "http://"

log = get_log("rack")

Next = Literal["restart", "off"]


@dataclass(frozen=True, slots=True)
class Rack:
    """What the servers of one rack share."""

    config: RackConfig
    state: RackState
    agents: trio.CapacityLimiter
    rng: Callable[[int], bytes] = os.urandom

    async def lease(self, record: ServerRecord, role: rack_dhcp.Role) -> Bound:
        """Get an address for a server as one of its three roles; BootFailed otherwise."""
        nodes = read_nodes((self.config.node_data, *self.config.also))
        if not nodes:
            raise BootFailed(f"no node has said where it listens in {self.config.node_data}")
        relay = self.config.relay or relay_for(nodes)
        machine = Machine(record.name, record.mac, record.uuid)
        servers = [(node.address, node.dhcp) for node in nodes]
        end = await network.lease(DhcpClient(machine, role, relay, servers, self.rng), relay)
        if not isinstance(end, Bound):
            raise BootFailed(f"DHCP by relay {relay}: {end.reason}")
        if not is_loopback(end.address):
            raise BootFailed(
                f"the address {end.address} is not inside 127.0.0.0/8: a simulated rack needs"
                " a subnet there"
            )
        return end

    def tftp_servers(self, bound: Bound) -> list[tuple[str, int]]:
        """Return where the boot file is, the named server first."""
        nodes = read_nodes((self.config.node_data, *self.config.also))
        nodes.sort(key=lambda node: (node.address, node.dhcp) != bound.source)
        nodes.sort(key=lambda node: node.address != bound.next_server)
        return [(node.address, node.tftp) for node in nodes]


class SimServer:
    """One server; ``run`` for ever, orders come from the BMC."""

    def __init__(self, record: ServerRecord, rack: Rack) -> None:
        self.record = record
        self._rack = rack
        self.serial = SerialPort(rack.state.console_text(record).replace(b"\n", b"\r\n"))
        self._loop = trio.lowlevel.current_trio_token()
        self._changed = trio.Event()
        self._running = False
        self._booted_ramdisk = False
        """Since this process began; a frozen disk thaws then."""
        self._plug = trio.CancelScope()
        self._clock = SystemClock()

    def shown(self) -> Shown:
        """Return what the BMC shows."""
        record = self.record
        return Shown(
            name=record.name,
            uuid=record.uuid,
            serial=record.serial,
            mac=record.mac,
            power="On" if record.power else "PoweringOff" if self._running else "Off",
            target=record.target,
            enabled=record.enabled,
            memory_bytes=MEMORY_BYTES,
            disk_bytes=record.disk_bytes,
            revision=record.revision,
            image=record.image,
            events=tuple(
                (int(n), int(at), str(how), str(what)) for n, at, how, what in record.events
            ),
            bios=dict(record.bios),
            bios_pending=dict(record.bios_pending),
        )

    async def set_power(self, on: bool) -> None:
        """Carry out a power order; what is already so stays so."""
        if self.record.power == on:
            return
        self.record.power = on
        if not on:
            self._plug.cancel()
        self._say(f"power {'on' if on else 'off'}")
        self._note("OK", f"Power {'on' if on else 'off'} by the BMC.")
        await self._save()

    async def set_boot(self, target: str, enabled: str) -> None:
        """Carry out a boot order."""
        if (self.record.target, self.record.enabled) == (target, enabled):
            return
        self.record.target, self.record.enabled = target, enabled
        await self._save()

    async def set_image(self, image: str) -> str | None:
        """Put a disc into the virtual drive, or take it out; a text says why it is not in."""
        if image:
            host = self._rack.config.bmc_host
            got = await network.get_range(image, host, RECORD_AT, DISC_SECTOR_BYTES)
            if isinstance(got, str):
                return got
        if self.record.image != image:
            self.record.image = image
            await self._save()
        return None

    async def set_bios(self, attributes: Mapping[str, str]) -> None:
        """Have settings of the firmware wait for the next start."""
        self.record.bios_pending.update(attributes)
        await self._save()

    async def run(self) -> None:
        """Follow the power switch until the rack itself ends."""
        while True:
            while not self.record.power:
                await self._changed.wait()
            self._running = True
            with trio.CancelScope() as self._plug:
                try:
                    await self._powered()
                finally:
                    self._running = False

    async def _powered(self) -> None:
        while await self._start() == "restart":
            self._say("restarting")
        self.record.power = False
        self._say("powered off by itself")
        self._note("OK", "Powered off by itself.")
        await self._save()

    async def _start(self) -> Next:
        """Do one start of the machine, from its firmware on."""
        await trio.sleep(POST_S)
        target, enabled = self.record.target, self.record.enabled
        if enabled == "Once":
            self.record.target, self.record.enabled = "None", "Disabled"
        if self.record.bios_pending:
            self.record.bios.update(self.record.bios_pending)
            self.record.bios_pending.clear()
            self._note("OK", "New firmware settings hold.")
            await self._save()
        elif enabled == "Once":
            await self._save()
        device = "None" if enabled == "Disabled" else target
        if device == "Hdd":
            await self._disk()
            self._say("no bootable device")
            await trio.sleep_forever()
        pause_s = RETRY_FIRST_S
        while True:
            try:
                end = await (self._cd() if device == "Cd" else self._network())
            except BootFailed as failure:
                self._say(f"{'CD' if device == 'Cd' else 'network'} boot failed: {failure}")
                if device == "None":
                    await self._disk()
            else:
                if end is not None:
                    return end
                self._say("no bootable device")
            await trio.sleep(pause_s)  # then the firmware goes through its boot order again
            pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _disk(self) -> None:
        """Boot the installed system; return when there is none on the disk."""
        disk = self._rack.state.disk(self.record)
        image = await trio.to_thread.run_sync(system.read_image, disk)
        if image is None:
            self._say("the disk does not boot")
            return
        name = str(image.get("name", "system"))[:64]
        self._say(f"booting {name} from disk")
        lease = partial(self._rack.lease, self.record, "os")
        await system.run_system(disk, lease, self._say)

    async def _network(self) -> Next | None:
        """Boot off the network; None when the boot script gave the machine back."""
        if self._rack.config.rom == "pxe":
            await self._rom()
        bound = await self._rack.lease(self.record, "ipxe")
        if not bound.file.startswith(AGENT_HTTP):
            raise BootFailed("DHCP gave iPXE no boot script")
        settings = {
            "net0/mac": self.record.mac,
            "mac": self.record.mac,
            "net0/ip": bound.address,
            "ip": bound.address,
            "next-server": bound.next_server,
            "uuid": self.record.uuid,
            "serial": self.record.serial,
            "platform": "pcbios",
            "buildarch": "i386",
            "filename": bound.file,
        }
        run = rack_script.ScriptRun(settings)
        step = run.start(bound.file)
        while isinstance(step, rack_script.Ask):
            step = run.on_answer(await self._carry_out(step, bound))
        match step:
            case rack_script.Boot():
                return await self._ramdisk(step, bound)
            case rack_script.Restart():
                return "restart"
            case rack_script.SwitchOff():
                return "off"
            case rack_script.Exited(ok, why):
                if not ok:
                    self._say(f"iPXE gives up: {why}")
                await self._disk()
                return None

    async def _cd(self) -> Next:
        """Boot from the disc in the BMC's virtual drive."""
        if not self.record.image:
            raise BootFailed("there is no disc in the drive")
        config = self._rack.config
        found = await boot_disc(self.record.image, config.bmc_host, download=config.download)
        if isinstance(found, str):
            raise BootFailed(found)
        self._say("booting from the virtual CD")
        words = _words(found.arguments)
        address = words.get("rackmesh.ip", "").partition("/")[0]
        if not is_loopback(address):
            raise BootFailed(
                f"the disc gives it no address inside 127.0.0.0/8 ({address[:40]})"
            )
        return await self._agent(words, address)

    async def _rom(self) -> None:
        bound = await self._rack.lease(self.record, "rom")
        if not bound.file or "://" in bound.file:
            raise BootFailed("DHCP gave the PXE ROM no file to fetch by TFTP")
        end = await network.read_tftp(self._rack.tftp_servers(bound), bound.file, bound.address)
        if not isinstance(end, rack_tftp.Finished):
            raise BootFailed(f"{bound.file} by TFTP: {end.reason}")
        self._say(f"fetched {bound.file}, {len(end.content)} bytes, by TFTP")

    async def _carry_out(self, ask: rack_script.Ask, bound: Bound) -> rack_script.Answer:
        """Do what the script asks for."""
        match ask:
            case rack_script.FetchScript(url):
                got = await network.get_script(url, bound.address)
            case rack_script.FetchImage(url) if not self._rack.config.download:
                return rack_script.Answer(True)
            case rack_script.FetchImage(url):
                got = await network.get_image(url, bound.address)
            case rack_script.Say(text):
                self._say(text)
                return rack_script.Answer(True)
            case rack_script.Sleep(seconds):
                await trio.sleep(seconds)
                return rack_script.Answer(True)
            case rack_script.TryDisk():
                await self._disk()
                return rack_script.Answer(False)
            case rack_script.TryDisc(url):
                await self._disc(url, bound)
                return rack_script.Answer(False)
        shown = url.partition("?")[0]
        if isinstance(got, str):
            self._say(f"{shown}: {got}")
            return rack_script.Answer(False)
        self._say(f"{shown}: status {got.status}, {got.size} bytes")
        return rack_script.Answer(got.status == 200, got.body)

    async def _ramdisk(self, boot: rack_script.Boot, bound: Bound) -> Next:
        """Run what a script boots: our ramdisk, or a live system."""
        words = _words(boot.arguments)
        if not words.get("rackmesh.url"):
            await self._live(boot, words, bound)
        return await self._agent(words, bound.address)

    async def _agent(self, words: dict[str, str], address: str) -> Next:
        """Run the ramdisk agent, the same one as on real machines, in a thread."""
        from node.ramdisk.main import run_agent

        disk = self._rack.state.disk(self.record)
        hardware = FakeHardware(self.record, disk, self._say, thawed=self._booted_ramdisk)
        self._booted_ramdisk = True
        mac = words.get("rackmesh.mac", self.record.mac)
        capability = words.get("rackmesh.cap") or None
        urls = [url for url in words.get("rackmesh.url", "").split(",") if url]
        work = partial(run_agent, hardware, urls, mac, capability, address, hardware.pulled)
        self._say("ramdisk starts")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pull_at_the_end, hardware)
            try:
                end = await trio.to_thread.run_sync(work, limiter=self._rack.agents)
            except Exception as exc:  # the agent's own fault: the machine hangs, the rack not
                log.error("ramdisk crashed", server=self.record.name, error=repr(exc))
                end = "crashed"
            nursery.cancel_scope.cancel()
        self._say(f"ramdisk ended: {end}")
        if end == "crashed":
            await trio.sleep_forever()
        return "restart" if end == "reboot" else "off"

    async def _live(
        self, boot: rack_script.Boot, words: dict[str, str], bound: Bound
    ) -> NoReturn:
        """Run a live system: a kernel that says it is one, up to the pulled plug."""
        about = await system.read_kernel(boot.kernel, bound.address)
        if about is None:
            self._say("this kernel is no rackmesh ramdisk: nothing to simulate")
            await trio.sleep_forever()
        self._say(f"booting {str(about.get('name', 'live system'))[:64]} from memory")
        urls = tuple(url for url in words.get("rackmesh.phone", "").split(",") if url)
        told = FirstBoot(self.record.name, words.get("rackmesh.hostname", ""), urls)
        phones = bool(urls) and about.get("phones_in") is not False
        lease = partial(self._rack.lease, self.record, "os")
        await system.run_live(told if phones else None, lease, self._say)
        raise AssertionError("a live system runs until the power goes")

    async def _disc(self, url: str, bound: Bound) -> None:
        """Boot an ISO over HTTP; return when it does not boot."""
        found = await system.read_disc(url, bound.address)
        if isinstance(found, str):
            self._say(found)
            return
        self._say(f"booting {str(found.get('name', 'system'))[:64]} from the ISO")
        await trio.sleep_forever()

    async def _save(self) -> None:
        self.record.revision += 1
        self._changed.set()
        self._changed = trio.Event()
        await self._rack.state.save()

    def _note(self, severity: str, text: str) -> None:
        """Add an entry to the event log of the BMC; saved with what it is about."""
        events = self.record.events
        number = events[-1][0] + 1 if events else 1
        events.append([number, self._clock.now_ms(), severity, text])
        del events[:-EVENTS_MAX]

    def _say(self, text: str) -> None:
        log.debug("console", server=self.record.name, detail=text)
        self._rack.state.console(self.record, text)
        try:  # the agent says it in a thread of its own
            self._loop.run_sync_soon(self.serial.line, text)
        except trio.RunFinishedError:
            pass  # the rack has ended, and nobody watches


def _words(line: str) -> dict[str, str]:
    """Return the words of a kernel's command line that say NAME=VALUE."""
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


async def _pull_at_the_end(hardware: FakeHardware) -> None:
    """Tell the agent's thread to leave when this server's power or the whole rack ends."""
    try:
        await trio.sleep_forever()
    finally:
        hardware.pull_plug()
