"""A hub and one node as processes in a lab's namespace, ordered about by the command line.

site = RealSite(lab.host("site", "10.77.0.1"), boot_files)
    site.start()
    site.rackmesh("server", "deploy", ...)

It knows the commands that an operator would type. Rule: every wait has a limit and ends with
the last lines of the logs.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vm.conftest import REPOSITORY
from tests.vm.lab import Host

RACKMESH = REPOSITORY / ".venv/bin/rackmesh"
SITE = "lab"
START_S = 60.0
POLL_S = 0.3
COMMAND_S = 300.0
LOG_SHOWN = 1500


class RealSite:
    """Folders, processes and commands of one hub and one node on one host."""

    def __init__(self, host: Host, boot_files: Path) -> None:
        self._host = host
        self._folder = host.lab.folder
        self._boot_files = boot_files
        self.hub = self._folder / "hub"
        self.node = self._folder / "node"

    def start(self) -> None:
        """Start the hub, join the node, start it, wait for both."""
        self._host.popen(
            [RACKMESH, "hub", "up", "--data", self.hub, "--listen", "127.0.0.1",
             "--port", "0", "--advertise", "127.0.0.1"],
            "hub.log",
        )  # fmt: skip
        self.wait("the hub is up", lambda: self.ask("status", "--data", self.hub), START_S)
        token = self.rackmesh("token", "create", "--site", SITE, "--role", "node", "--role",
                              "site-operator", "--data", self.hub)  # fmt: skip
        self.rackmesh("node", "join", "--token-file", "-", "--name", "node1",
                      "--data", self.node, stdin=token)  # fmt: skip
        settings = self._folder / "node.toml"
        settings.write_text("[policy]\ndestructive_per_hour = 100\n")
        self._host.popen(
            [RACKMESH, "node", "run", "--data", self.node, "--config", settings,
             "--interface", "eth0", "--mesh-listen", "127.0.0.1", "--mesh-port", "0",
             "--subnet", "10.77.0.0/24", "--boot-files", self._boot_files],
            "node.log",
        )  # fmt: skip
        self.rackmesh("status", "--wait", str(int(START_S)), "--data", self.node)

    def serve_image(self, image: Path) -> str:
        """Run an HTTP server for one file; return its URL."""
        script = REPOSITORY / "scripts/lib/demo_origin.py"
        python = REPOSITORY / ".venv/bin/python"
        self._host.popen([python, script, image, self._folder / "origin.bytes"], "origin.log")
        log = self._folder / "origin.log"
        port = self.wait("the origin is up", lambda: log.read_text().strip(), START_S)
        return f"http://127.0.0.1:{port}/{image.name}"

    def rackmesh(self, *words: str | Path, stdin: str | None = None) -> str:
        """Run a command as an operator would; raise with its sentence when it fails."""
        argv = ["ip", "netns", "exec", self._host.namespace, RACKMESH, *words]
        done = subprocess.run(
            [str(word) for word in argv], input=stdin, text=True, capture_output=True,
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise RuntimeError(f"rackmesh {' '.join(map(str, words))}: {said}\n{self.logs()}")
        return done.stdout

    def ask(self, *words: str | Path) -> Any:
        """Run a command with --json; return its answer."""
        return json.loads(self.rackmesh(*words, "--json"))

    def state(self, server: str) -> str:
        """Return a server's state as the node has it."""
        return str(self.ask("server", "show", server, "--data", self.node)["item"]["state"])

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float) -> Any:
        """Return the first true answer; commands that fail count as not yet."""
        limit, reason = time.monotonic() + timeout_s, ""
        while time.monotonic() < limit:
            try:
                if answer := check():
                    return answer
            except RuntimeError as exc:
                reason = str(exc).splitlines()[0]
            time.sleep(POLL_S)
        raise TimeoutError(f"{what}: not within {timeout_s:.0f} s {reason}\n{self.logs()}")

    def logs(self) -> str:
        """Return the ends of the logs."""
        texts = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-LOG_SHOWN:]}"
            for path in sorted(self._folder.glob("*.log"))
        ]
        return "\n".join(texts)
