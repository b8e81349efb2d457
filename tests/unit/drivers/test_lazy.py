"""An idle node must not pay for device drivers."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def loaded(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_knowing_the_interfaces_loads_no_provider() -> None:
    program = (
        "import sys, drivers.api, drivers.errors, drivers.proto.quirks;"
        "print(sorted({'httpx2', 'pyghmi', 'trio', 'ssl'} & set(sys.modules)))"
    )
    assert loaded(program) == "[]"


def test_a_node_that_knows_how_to_open_a_bmc_loads_no_provider() -> None:
    program = (
        "import sys, node.main; print(sorted({'httpx2', 'pyghmi', 'drivers.ipmi',"
        " 'drivers.redfish'} & set(sys.modules)))"
    )
    assert loaded(program) == "[]"


def test_ipmi_brings_neither_vendors_code_of_pyghmi_nor_its_thread() -> None:
    program = (
        "import sys, threading, drivers.ipmi; print(sorted(m for m in sys.modules if m in"
        " ('pyghmi.ipmi.command', 'pyghmi.ipmi.private.session') or '.oem' in m),"
        " threading.active_count())"
    )
    assert loaded(program) == "[] 1"
