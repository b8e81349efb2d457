"""The demo with a virtual machine, as somebody types it, and how long a deploy may take."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.vm.conftest import REPOSITORY

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow]

POWER_ON_TO_ACTIVE_S_MAX = 180
KEYS = {
    "ok", "deployed", "released_without_hub", "hub_caught_up", "power_on_to_active_s",
    "seconds", "prepare_seconds", "origin_bytes", "peer_bytes", "image_bytes", "image_kind",
    "disk_sha256", "image_sha256",
}  # fmt: skip


def test_the_demo_deploys_a_uefi_machine_in_three_minutes_and_releases_it_without_its_hub(
    virtual_machines: None, tmp_path: Path
) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts/demo", "--vm", "--check", "--folder", tmp_path / "demo"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == KEYS
    assert figures["ok"]
    assert figures["disk_sha256"] == figures["image_sha256"]
    assert 0 < figures["power_on_to_active_s"] <= POWER_ON_TO_ACTIVE_S_MAX
    assert figures["origin_bytes"] <= 1.02 * figures["image_bytes"]
    assert figures["peer_bytes"] > figures["image_bytes"] // 2, "chunks of zeros need no travel"
    spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    made = re.search(r"in namespace (\S+)", done.stderr)
    assert made
    assert made[1] not in spaces, "nothing is left behind"
    logs = "".join(path.read_text() for path in (tmp_path / "demo").glob("*.log"))
    assert "Traceback" not in logs
