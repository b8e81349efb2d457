"""The demo: the main job, end to end, on loopback and without root (see scripts/demo)."""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo_processes import (
    RACKMESH,
    ROOT,
    DemoFailed,
    Processes,
    ask,
    rackmesh,
    say,
    stop_earlier,
    wait_for,
)

FOLDER = ROOT / ".demo"
PREPARED = ROOT / ".cache" / "demo"
IMAGE_MIB = 256
SERVERS = 4
LOOPBACK = (
    "--boot-listen", "127.0.0.1", "--dhcp-port", "0", "--tftp-port", "0", "--http-port", "0",
)  # fmt: skip
"""A node's boot services without root."""


def prepare_vm() -> tuple[Path, Path, str]:
    """Like ``prepare``, for a virtual machine: nothing can stand for Debian's packages."""
    boot, image = PREPARED / "boot", PREPARED / "vm.raw"
    boot.mkdir(parents=True, exist_ok=True)
    run_script("fetch-boot-files", boot)
    run_script("build-ramdisk", "--kernel", "cloud", "--output", boot)
    run_script("build-image", "--kind", "vm", "--output", image)
    return boot, image, "debian"


def prepare() -> tuple[Path, Path, str]:
    """Make the image and the boot files, or take those of an earlier run.

    Returns the folder of boot files, the image, and what kind of boot files these are.
    """
    PREPARED.mkdir(parents=True, exist_ok=True)
    image = PREPARED / "image.raw"
    if not image.exists():
        say(f"preparing: an operating system image of {IMAGE_MIB} MiB")
        run_script(
            "build-image", "--kind", "filler", "--mib", str(IMAGE_MIB), "--output", image
        )
    boot = PREPARED / "boot"
    boot.mkdir(exist_ok=True)
    try:
        run_script("fetch-boot-files", boot)
        run_script("build-ramdisk", "--kernel", "cloud", "--output", boot)
        return boot, image, "debian"
    except DemoFailed as exc:
        say(f"note: no boot files from Debian packages ({exc})")
        say("note: the simulated servers boot a generated kernel and ramdisk instead")
        made = PREPARED / "boot-generated"
        made.mkdir(exist_ok=True)
        for name, size in (
            ("undionly.kpxe", 70_000),
            ("vmlinuz", 1 << 20),
            ("initrd", 1 << 21),
        ):
            (made / name).write_bytes(hashlib.shake_128(name.encode()).digest(size))
        return made, image, "generated"


def run_script(name: str, *words: str | Path) -> None:
    """Run one of the preparing scripts; its last line of error is the reason."""
    argv = [str(ROOT / "scripts" / name), *map(str, words)]
    done = subprocess.run(
        argv, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise DemoFailed(f"scripts/{name}: {lines[-1]}")


class Demo:
    """One run."""

    goals = ("deployed", "deployed_without_hub", "released")
    job_s = 120

    def __init__(self, folder: Path, boot: Path, image: Path, servers: int = SERVERS) -> None:
        self.folder, self.boot, self.image, self.servers = folder, boot, image, servers
        self.hub, self.one, self.two = folder / "hub", folder / "node-one", folder / "node-two"
        self.rack = folder / "rack"
        self.processes = Processes(folder)
        self.figures: dict[str, Any] = {"deployed": False, "deployed_without_hub": False}
        self.hub_port = 0

    def hub_words(self) -> list[str | Path]:
        """Return the command that runs the hub; the first time on a free port, then on that."""
        return [
            RACKMESH, "hub", "up", "--data", self.hub, "--listen", "127.0.0.1",
            "--port", str(self.hub_port), "--advertise", "127.0.0.1", "--site", "one",
        ]  # fmt: skip

    def start_hub(self) -> None:
        """Run the hub and wait until it answers, well or not."""
        self.processes.start("hub", *self.hub_words())
        words = ("api", "GET", "/version", "--data", self.hub)
        wait_for("the hub is up", lambda: ask(*words), 30, self.processes)
        ports = json.loads((self.hub / "run" / "ports.json").read_text())
        self.hub_port = ports["https"]

    def start_node(self, site: str, data: Path, *flags: str | Path) -> None:
        """Join a node to a site and run it."""
        roles = ("--role", "node", "--role", "site-operator")
        token = rackmesh("token", "create", "--site", site, *roles, "--data", self.hub)
        rackmesh(
            "node",
            "join",
            "--token-file",
            "-",
            "--name",
            data.name,
            "--data",
            data,
            stdin=token,
            prefix=self.processes.prefix,
        )
        settings = self.folder / f"{data.name}.toml"
        settings.write_text("[policy]\ndestructive_per_hour = 100\n")
        self.processes.start(
            data.name, RACKMESH, "node", "run", "--data", data, "--config", settings,
            "--mesh-listen", "127.0.0.1", "--mesh-port", "0", "--boot-files", self.boot,
            *flags,
        )  # fmt: skip

    def start_all(self) -> None:
        """Hub, two sites, the rack at the second one, and the origin."""
        say("starting a hub and a node at each of two sites")
        self.start_hub()
        self.start_node("one", self.one, *LOOPBACK, "--subnet", "127.81.0.0/24")
        self.start_node("two", self.two, *LOOPBACK, "--subnet", "127.82.0.0/24")
        for data in (self.one, self.two):
            rackmesh("status", "--wait", "30", "--data", data)
        say(f"starting a rack of {self.servers} simulated servers at site two")
        self.start_rack(self.two)
        self.start_origin()

    def start_rack(self, node: Path) -> None:
        """Run the simulated servers beside a node."""
        self.processes.start(
            "rack", RACKMESH, "rack", "simulate", str(self.servers), "--node-data", node,
            "--data", self.rack,
        )  # fmt: skip

    def start_origin(self) -> None:
        """Run the HTTP server that has the image."""
        script = ROOT / "scripts" / "lib" / "demo_origin.py"
        log = self.folder / "origin.bytes"
        self.processes.start("origin", sys.executable, script, self.image, log)

    def origin_url(self) -> str:
        """Return where the origin serves the image."""
        log = self.folder / "origin.log"
        port = wait_for("the origin is up", lambda: log.read_text().strip(), 10, self.processes)
        return f"http://127.0.0.1:{port}/image.raw"

    def register_image(self, site: str = "one") -> None:
        """Register the image by URL; a site fetches it from the origin."""
        say(f"registering the image by URL; site {site} fetches it from the origin")
        rackmesh(
            "asset", "add", "demo-os", self.origin_url(), "--want", site, "--data", self.hub
        )
        what = f"site {site} has the image"
        wait_for(what, lambda: self.residency(site), 60, self.processes)

    def residency(self, site: str) -> dict[str, Any] | None:
        """Return how the image fares at a site once it is whole and signed there."""
        item = ask("asset", "show", "demo-os", "--data", self.hub)["item"]
        found = [r for r in item["sites"] if r["site"] == site and r["state"] == "verified"]
        return found[0] if found and item["asset"] else None

    def accept_servers(self) -> None:
        """Take two machines of the rack in."""
        say("waiting for the rack's machines to boot off the network and report")
        pending = wait_for("the machines were discovered", self.discovered, 60, self.processes)
        credentials = json.loads((self.rack / "bmc-credentials.json").read_text())
        rackmesh(
            "secret", "set", "rack-bmc", "--site", "two", "--username",
            credentials["username"], "--data", self.hub, stdin=credentials["password"],
        )  # fmt: skip
        servers = json.loads((self.rack / "servers.json").read_text())
        seen = {machine["mac"] for machine in pending}
        for number, server in enumerate(servers[:2], 1):
            assert server["mac"] in seen
            rackmesh(
                "server", "accept", server["mac"], f"srv{number}", "--bmc", server["bmc"],
                "--bmc-secret", "rack-bmc", "--wait", "--timeout", "60", "--data", self.hub,
            )  # fmt: skip
            say(f"accepted {server['mac']} as srv{number}")

    def discovered(self) -> list[dict[str, Any]] | None:
        """Return the pending machines once all have sent their inventory."""
        items = ask("server", "pending", "--data", self.hub)["items"]
        told = [item for item in items if item["summary"]]
        return told if len(told) >= self.servers else None

    def deploy(self, server: str, data: Path) -> str:
        """Deploy by an order given at ``data``'s daemon; return the disk's SHA-256."""
        rackmesh(
            "server", "deploy", server, "--image", "demo-os", "--hostname", f"{server}-demo",
            "--wait", "--timeout", str(self.job_s), "--data", data, quiet=False,
        )  # fmt: skip
        item = ask("server", "show", server, "--data", data)["item"]
        if item["state"] != "active":
            raise DemoFailed(f"{server} is {item['state']}, not active")
        return self.disk_sha256(int(server[-1]) - 1)

    def disk_sha256(self, index: int) -> str:
        """Hash the first image bytes of a simulated server's disk file."""
        servers = json.loads((self.rack / "servers.json").read_text())
        return sha256(Path(servers[index]["disk"]), self.image.stat().st_size)

    def run(self) -> None:
        """The scenario."""
        self.start_all()
        self.register_image()
        self.accept_servers()
        image = self.figures["image_sha256"] = sha256(self.image, self.image.stat().st_size)
        say(
            "deploying srv1 by an order given at the hub;"
            " site two fetches the image from site one"
        )
        disk = self.figures["disk_sha256"] = self.deploy("srv1", self.hub)
        self.figures["deployed"] = disk == image
        say("stopping the hub; deploying srv2 by an order given at site two's own node")
        self.processes.stop("hub")
        self.figures["deployed_without_hub"] = self.deploy("srv2", self.two) == image
        say("starting the hub again; releasing srv1 (its disk is wiped and read back)")
        self.start_hub()
        wait_for("the hub knows of srv2", self.srv2_active, 60, self.processes)
        rackmesh(
            "server", "release", "srv1", "--yes", "--wait", "--timeout", "120",
            "--data", self.hub, quiet=False,
        )  # fmt: skip
        servers = json.loads((self.rack / "servers.json").read_text())
        self.figures["released"] = is_empty(Path(servers[0]["disk"]))
        self.figures["origin_bytes"] = self.origin_bytes()
        residency = ask("asset", "show", "demo-os", "--data", self.hub)["item"]["sites"]
        self.figures["peer_bytes"] = sum(r["peer_bytes"] for r in residency)
        self.figures["image_bytes"] = self.image.stat().st_size

    def origin_bytes(self) -> int:
        """Return what the origin sent, from its own log."""
        lines = (self.folder / "origin.bytes").read_text().splitlines()
        return sum(json.loads(line)["bytes"] for line in lines)

    def close(self) -> None:
        """Stop everything."""
        self.processes.stop_all()

    def srv2_active(self) -> bool:
        """Tell whether the hub has caught up."""
        item = ask("server", "show", "srv2", "--data", self.hub)["item"]
        return bool(item["state"] == "active")

    def where_to_look(self) -> None:
        """Print what a person can try next."""
        password = (self.hub / "admin-password").read_text().strip()
        url = f"https://127.0.0.1:{self.hub_port}"
        say(f"""
The demo is up.
  console    {url}   user admin, password {password}
             (the browser will say that it does not know the certificate)
  try next   .venv/bin/rackmesh server list --data {shown(self.hub)}
             .venv/bin/rackmesh asset list --data {shown(self.hub)}
             .venv/bin/rackmesh job list --data {shown(self.hub)}
             .venv/bin/rackmesh server pending --data {shown(self.two)}
  logs       {shown(self.folder)}/*.log
  stop it    scripts/demo --stop""")


def shown(path: Path) -> str:
    """Return a path as one would type it from the project's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def sha256(path: Path, count: int) -> str:
    """Hash the first ``count`` bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while count and (piece := file.read(min(count, 1 << 20))):
            digest.update(piece)
            count -= len(piece)
    return digest.hexdigest()


def is_empty(path: Path) -> bool:
    """Tell whether every byte of a file is zero."""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            if piece.count(0) != len(piece):
                return False
    return True


def main() -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="stop at the end, print one JSON object"
    )
    parser.add_argument("--stop", action="store_true", help="stop what an earlier run left up")
    parser.add_argument(
        "--vm", action="store_true",
        help="one virtual machine with UEFI for the simulated servers (needs root and QEMU)",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it keeps its data")
    options = parser.parse_args()
    folder = options.folder.resolve()
    stopped = stop_earlier(folder) if folder.exists() else 0
    if options.stop:
        say(f"stopped {stopped} processes")
        return 0
    began = float(os.environ.get("RACKMESH_DEMO_BEGAN", time.time()))
    try:
        if options.vm:
            from demo_vm import VmDemo, need_machines

            need_machines()
            boot, image, kind = prepare_vm()
        else:
            boot, image, kind = prepare()
    except DemoFailed as exc:
        say(f"rackmesh: {exc}")
        return 1
    prepared = time.time()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = VmDemo(folder, boot, image) if options.vm else Demo(folder, boot, image)
    failure = None
    try:
        demo.run()
        if not options.check:
            demo.where_to_look()
    except (DemoFailed, KeyboardInterrupt) as exc:
        failure = str(exc) or "interrupted"
        say(f"rackmesh: the demo failed: {failure}")
    finally:
        if options.check or options.vm or failure:
            demo.close()
    figures = demo.figures
    figures["ok"] = failure is None and all(figures.get(goal) for goal in demo.goals)
    figures["seconds"] = round(time.time() - prepared, 1)
    figures["prepare_seconds"] = round(prepared - began, 1)
    figures["image_kind"] = kind
    if options.check:
        print(json.dumps(figures, sort_keys=True))
    return 0 if figures["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
