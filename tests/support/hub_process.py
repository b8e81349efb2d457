"""A hub as its users start it: a process of its own, asked over its socket or its port."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.rest.client import ApiClient, Target

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 15.0


@dataclass
class HubProcess:
    data: Path
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def port(self) -> int:
        return int(json.loads((self.data / "run" / "ports.json").read_text())["https"])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def fingerprint(self) -> str:
        found = re.search(r"TLS SHA-256 +([0-9A-F:]{95})", self.output.read_text())
        assert found
        return found[1]

    @property
    def password(self) -> str:
        return (self.data / "admin-password").read_text().strip()

    def rss_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    @contextmanager
    def api(self, target: Target | None = None) -> Iterator[ApiClient]:
        client = ApiClient(target or Target(socket=self.data / "run" / "api.sock"))
        try:
            yield client
        finally:
            client.close()

    def remote(self) -> Target:
        token = (self.data / "api-token").read_text().strip()
        return Target(url=self.url, token=token, tls_sha256=self.fingerprint)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)


def start_hub(data: Path, *flags: str, output: Path | None = None) -> HubProcess:
    """Start a hub and return it once it says where it listens."""
    output = output or data.with_name(data.name + ".output")
    argv = [sys.executable, str(ROOT / "rackmesh.py"), "hub", "up", "--data", str(data)]
    (data / "run" / "ports.json").unlink(missing_ok=True)  # a killed hub leaves it
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*argv, "--listen", "127.0.0.1", *flags], stdout=file, stderr=file, env=environ
        )
    hub = HubProcess(data, process, output)
    end = time.monotonic() + START_S
    while not (data / "run" / "ports.json").exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise AssertionError(output.read_text())
        time.sleep(0.05)
    return hub


@contextmanager
def running_hub(data: Path, *flags: str) -> Iterator[HubProcess]:
    hub = start_hub(data, *flags)
    try:
        yield hub
    finally:
        if hub.process.poll() is None:
            hub.process.kill()
            hub.process.wait()


def refused_start(data: Path, *flags: str) -> tuple[int, str]:
    """Run a hub that should not start; return its exit code and what it says."""
    argv = [sys.executable, str(ROOT / "rackmesh.py"), "hub", "up", "--data", str(data)]
    done = subprocess.run(
        [*argv, "--listen", "127.0.0.1", *flags],
        capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def everything_in(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield every file below a folder with its content."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()


def items(answer: Any) -> list[Any]:
    found = answer["items"]
    assert isinstance(found, list)
    return found
