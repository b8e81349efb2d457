"""Tell whether the lock files still satisfy pyproject.toml, without asking any registry.

Rule: every requirement of pyproject.toml is pinned in its lock with a version that fits, every
pin has a hash, the two locks agree, and no lock names an address.
"""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ \\;]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return {n.lower().replace("_", "-"): v for n, v in PIN.findall((ROOT / name).read_text())}


def main() -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    wanted = {
        "requirements.lock": project["dependencies"] + extra["build"],
        "requirements-dev.lock": project["dependencies"] + extra["build"] + extra["dev"],
    }
    faults = []
    locked = {name: pins(name) for name in wanted}
    for name, requirements in wanted.items():
        text = (ROOT / name).read_text()
        if re.search(r"https?://", text):
            faults.append(f"{name} names an address")
        if text.count("==") > text.count("--hash=sha256:"):
            faults.append(f"{name} has pins without a hash")
        for line in requirements:
            need = Requirement(line)
            have = locked[name].get(need.name.lower().replace("_", "-"))
            if have is None or not need.specifier.contains(have, prereleases=True):
                faults.append(f"{name}: {line} is not met (locked: {have})")
    for package, version in locked["requirements.lock"].items():
        if locked["requirements-dev.lock"].get(package) != version:
            faults.append(f"requirements-dev.lock has another {package} than requirements.lock")
    for fault in faults:
        print(f"lock drift: {fault}; run scripts/lock", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
