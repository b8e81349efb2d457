"""The environment of sushy-tools' Redfish emulator, for whoever runs it: tests and the demo.

It knows scripts/lib/emulator-env. Rule: it imports nothing of the test environment.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-emulator" / "bin" / "python"
HASH = """
import bcrypt, sys
print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())
"""


class NoEmulator(Exception):
    """The emulator cannot be had here; one sentence."""


def make_emulator() -> None:
    """Make the environment unless it is there; raise NoEmulator."""
    done = subprocess.run(
        [ROOT / "scripts" / "lib" / "emulator-env"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NoEmulator(f"no Redfish emulator: {done.stderr.strip()[-300:]}")


def password_hash(password: str) -> str:
    """Return a line for its file of users, without the user."""
    made = subprocess.run(
        [PYTHON, "-c", HASH], input=password.encode(), capture_output=True, check=True
    )
    return made.stdout.decode().strip()
