"""An idle node must not pay for device drivers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_knowing_the_interfaces_loads_no_provider() -> None:
    program = (
        "import sys, drivers.api; print(sorted({'httpx2', 'trio', 'ssl'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"
