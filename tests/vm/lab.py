"""Bare-metal servers out of QEMU, in network namespaces of their own, for tests.

    with Lab("deploy", folder) as lab:
        node = lab.host("node1", "10.77.0.1")     # a namespace, its eth0 on the lab's bridge
        node.popen(["rackmesh", "node", "run", ...], "node1.log")
        vm = lab.machine("srv1", firmware="uefi", disk="nvme", network="pxe")
        ...                                       # its BMC starts it (bmcs.py), or vm.start()

It knows namespaces, taps and QEMU (TCG, SeaBIOS, OVMF), nothing of Rackmesh. Rule: whatever was
made is gone at the end: processes die with their parent, namespaces are deleted even after an
error, and every wait has a limit. Needs root, iproute2, qemu-system-x86, ipxe-qemu, ovmf; see
why_not.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 512
STOP_S = 5.0
POLL_S = 0.1
CONSOLE_SHOWN = 1500
PREFIX = 24
MIB = 1 << 20
GPT_BYTES = 34 * 512

OVMF = Path("/usr/share/OVMF")

Boot = Literal["network", "disk"]
Firmware = Literal["bios", "uefi"]
Disk = Literal["virtio", "nvme"]
Network = Literal["rom", "pxe", "http"]
"""Who boots from the network: iPXE in the card's ROM, or UEFI's own PXE or HTTP boot."""


def why_not() -> str | None:
    """Return the reason why virtual machines cannot be run here, None when they can."""
    if os.geteuid() != 0:
        return "virtual machines need root for network namespaces"
    for tool, package in (
        (QEMU, "qemu-system-x86"),
        ("ip", "iproute2"),
        ("setpriv", "util-linux"),
    ):
        if not shutil.which(tool):
            return f"{tool} is missing: apt-get install {package}"
    if not Path("/usr/lib/ipxe/qemu").is_dir():
        return "the network boot ROMs are missing: apt-get install ipxe-qemu"
    if not (OVMF / "OVMF_CODE_4M.fd").exists():
        return "the UEFI firmware is missing: apt-get install ovmf"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    return None


class Lab:
    """A bridge in a namespace of its own; hosts and machines hang on it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = f"{name[:8]}{os.getpid()}"
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._namespaces: list[str] = []
        self._taps = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._namespace(self.name)
            self.ip("link", "add", "br0", "type", "bridge", "forward_delay", "0",
                    "stp_state", "0", "mcast_snooping", "0")  # fmt: skip
            self.ip("link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, delete all namespaces; does not raise."""
        for process in reversed(self._processes):
            end_process(process)
        for namespace in reversed(self._namespaces):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        self._namespaces.clear()

    def ip(self, *argv: str, namespace: str | None = None) -> None:
        """Run ``ip`` in a namespace, by default the bridge's."""
        run(["ip", "-n", namespace or self.name, *argv])

    def host(self, name: str, address: str, prefix: int = PREFIX) -> "Host":
        """Make a namespace with an ``eth0`` at this address on the bridge."""
        namespace = f"{self.name}-{name}"
        self._namespace(namespace)
        self.ip("link", "add", f"v-{name}"[:15], "type", "veth",
                "peer", "name", "eth0", "netns", namespace)  # fmt: skip
        self.ip("link", "set", f"v-{name}"[:15], "master", "br0", "up")
        self.ip("addr", "add", f"{address}/{prefix}", "dev", "eth0", namespace=namespace)
        self.ip("link", "set", "eth0", "up", namespace=namespace)
        return Host(self, namespace, address)

    def machine(
        self,
        name: str,
        disk_bytes: int = 1024 * MIB,
        *,
        firmware: Firmware = "bios",
        disk: Disk = "virtio",
        network: Network = "rom",
        memory_mib: int = MEMORY_MIB,
    ) -> "Machine":
        """Make a server that is switched off, with an empty disk."""
        self._taps += 1
        tap = f"tap{self._taps}"
        self.ip("tuntap", "add", tap, "mode", "tap")
        self.ip("link", "set", tap, "master", "br0", "up")
        machine = Machine(self, name, self._taps, tap, firmware, disk, network)
        machine.memory_mib = memory_mib
        with machine.disk.open("wb") as file:
            file.truncate(disk_bytes)
        return machine

    def popen(
        self, argv: Sequence[str | Path], log: str, namespace: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a namespace; it dies with us, and its output goes to a file."""
        with (self.folder / log).open("ab") as out:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec",
                 namespace or self.name, *map(str, argv)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _namespace(self, name: str) -> None:
        run(["ip", "netns", "add", name])
        self._namespaces.append(name)
        self.ip("link", "set", "lo", "up", namespace=name)


class Host:
    """A namespace in which programs run: a node, a BMC."""

    def __init__(self, lab: Lab, namespace: str, address: str) -> None:
        self.lab = lab
        self.namespace = namespace
        self.address = address

    def popen(self, argv: Sequence[str | Path], log: str) -> subprocess.Popen[bytes]:
        """Start a program here."""
        return self.lab.popen(argv, log, self.namespace)

    def run(self, argv: Sequence[str | Path], timeout_s: float = 30.0) -> str:
        """Run a program here to its end; return what it printed."""
        return run(["ip", "netns", "exec", self.namespace, *map(str, argv)], timeout_s)

    def add_address(self, address: str, prefix: int = PREFIX) -> None:
        """Give this host one more address, such as that of a BMC."""
        self.lab.ip(
            "addr", "add", f"{address}/{prefix}", "dev", "eth0", namespace=self.namespace
        )


class Machine:
    """One server: a firmware, one disk, one virtio network card. Off until started."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        number: int,
        tap: str,
        firmware: Firmware,
        disk: Disk,
        network: Network,
    ) -> None:
        assert firmware == "uefi" or network == "rom", "SeaBIOS has no network boot of its own"
        self.lab = lab
        self.name = name
        self.tap = tap
        self.firmware = firmware
        self.disk_kind = disk
        self.network = network
        self.memory_mib = MEMORY_MIB
        self.mac = f"52:54:00:77:00:{number:02x}"
        self.uuid = f"00000000-0000-4000-8000-{number:012x}"
        self.disk_serial = f"DISK{number:04d}"
        self.folder = lab.folder / name
        self.folder.mkdir(exist_ok=True)
        self.console_path = self.folder / "console.log"
        self.console_path.touch()
        self.disk = self.folder / "disk.img"
        self.drive = f"format=raw,file={self.disk},cache=writeback"
        """The disk as QEMU's -drive takes it; a test may put a faulty one in its place."""
        self._variables = self.folder / "variables.fd"
        if firmware == "uefi":
            shutil.copy(OVMF / "OVMF_VARS_4M.fd", self._variables)
        self._process: subprocess.Popen[bytes] | None = None

    def argv(self, boot: Boot, extra: Sequence[str] = ()) -> list[str]:
        """Return QEMU's command line for a boot from that device first."""
        network, disk = ("1", "2") if boot == "network" else ("2", "1")
        rom = "" if self.network == "rom" else ",romfile="
        block = "nvme" if self.disk_kind == "nvme" else "virtio-blk-pci"
        return [
            QEMU, "-name", self.name, "-machine", "q35,graphics=off",
            "-accel", "tcg,thread=multi", "-m", str(self.memory_mib), "-smp", "1",
            "-nodefaults", "-display", "none", "-uuid", self.uuid,
            "-smbios", "type=1,manufacturer=Rackmesh Lab,product=Virtual Server,"
            f"serial=SN-{self.name},uuid={self.uuid}",
            "-chardev", f"file,id=console,path={self.console_path},append=on",
            "-serial", "chardev:console", *self._firmware_argv(),
            "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n0,mac={self.mac},bootindex={network}{rom}",
            "-drive", f"if=none,id=d0,{self.drive}",
            "-device", f"{block},drive=d0,serial={self.disk_serial},bootindex={disk}",
            "-device", "virtio-rng-pci", *extra,
        ]  # fmt: skip

    def _firmware_argv(self) -> list[str]:
        """OVMF keeps its variables, the boot order among them, from start to start."""
        if self.firmware == "bios":
            return []
        argv = [
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd",
            "-drive", f"if=pflash,unit=1,format=raw,file={self._variables}",
        ]  # fmt: skip
        if self.network == "http":  # else PXE comes first; over IPv6 it waits for a minute
            for version in ("IPv4", "IPv6"):
                argv += ["-fw_cfg", f"name=opt/org.tianocore/{version}PXESupport,string=n"]
        return argv

    def start(self, boot: Boot, extra: Sequence[str] = ()) -> None:
        """Switch on without a BMC."""
        self.stop()
        self._process = self.lab.popen(self.argv(boot, extra), f"{self.name}/qemu.log")

    def stop(self) -> None:
        """Take the power away."""
        if self._process is not None:
            end_process(self._process, at_once=True)

    def running(self) -> bool:
        """Tell whether a machine started here still runs."""
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        """Return all that was printed on the serial line, over all starts."""
        return self.console_path.read_text(errors="replace")

    def address(self) -> str:
        """Return the address that iPXE said it has, the last time it said so."""
        return re.findall(r"net0: (\d+\.\d+\.\d+\.\d+)/", self.console())[-1]

    def wait_console(self, pattern: str, timeout_s: float, after: int = 0) -> int:
        """Wait for a pattern behind character ``after``; return where it ends."""
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            text = self.console()
            if found := re.search(pattern, text[after:]):
                return after + found.end()
            time.sleep(POLL_S)
        raise TimeoutError(
            f"{self.name}: no {pattern!r} within {timeout_s:.0f} s; the console ends with\n"
            f"{self.console()[-CONSOLE_SHOWN:]}"
        )

    def wait_off(self, timeout_s: float) -> None:
        """Wait until the machine has switched itself off."""
        assert self._process is not None, "the machine was never started"
        self._process.wait(timeout_s)

    def disk_sha256(self, count: int) -> str:
        """Hash the first bytes of the disk, less what a grown partition table changes."""
        return image_sha256(self.disk, count)

    def disk_is_empty(self) -> bool:
        """Tell whether every byte of the disk is zero. The machine must be off."""
        zeros = bytes(MIB)
        with self.disk.open("rb") as file:
            while data := file.read(MIB):
                if data != zeros[: len(data)]:
                    return False
        return True


def image_sha256(path: Path, count: int) -> str:
    """Hash the first bytes of an image, its GPT's sector 0, header and entries as zeros."""
    digest = hashlib.sha256(bytes(GPT_BYTES))
    with path.open("rb") as file:
        file.seek(GPT_BYTES)
        while (left := count - file.tell()) > 0 and (data := file.read(min(left, MIB))):
            digest.update(data)
    return digest.hexdigest()


def run(argv: Sequence[str | Path], timeout_s: float = 30.0) -> str:
    """Run a command to its end; its error text is in what is raised."""
    done = subprocess.run(
        [str(word) for word in argv],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout


def end_process(process: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End a process and all of its session."""
    for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
