"""The README's first command, as a newcomer types it."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "ok", "deployed", "deployed_without_hub", "released", "seconds", "prepare_seconds",
    "origin_bytes", "peer_bytes", "image_bytes", "disk_sha256", "image_sha256", "image_kind",
}  # fmt: skip


@pytest.mark.slow
def test_the_demo_does_the_main_job_and_says_so_in_its_last_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "demo", "--check", "--folder", tmp_path / "demo"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(figures) == KEYS
    assert figures["ok"] and figures["deployed"] and figures["released"]
    assert figures["deployed_without_hub"]
    assert figures["image_bytes"] >= 256 << 20
    assert figures["disk_sha256"] == figures["image_sha256"]
    assert figures["origin_bytes"] <= 1.02 * figures["image_bytes"]
    assert figures["peer_bytes"] >= figures["image_bytes"]
    logs = "".join(path.read_text() for path in (tmp_path / "demo").glob("*.log"))
    assert "Traceback" not in logs


@pytest.mark.slow
def test_the_image_of_the_demo_does_not_compress_below_half() -> None:
    import zlib

    image = ROOT / ".cache" / "demo" / "image.raw"
    if not image.exists():
        pytest.skip("scripts/demo was not run before")
    with image.open("rb") as file:
        file.seek(32 << 20)
        piece = file.read(8 << 20)
    assert len(zlib.compress(piece, 1)) > len(piece) / 2
