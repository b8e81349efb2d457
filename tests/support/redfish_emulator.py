"""sushy-tools' Redfish emulator over libvirt's in-process test driver: a BMC nobody here wrote.

`scripts/lib/emulator-env` makes the environment that it runs in.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from tests.support.emulator_env import PYTHON, NoEmulator, make_emulator, password_hash

EMULATOR = PYTHON.with_name("sushy-emulator")
START_S = 20.0
PASSWORD = "emulator-password"


def need_emulator() -> None:
    """Make the environment, or skip the test with the reason."""
    try:
        make_emulator()
    except NoEmulator as exc:
        pytest.skip(str(exc))


@asynccontextmanager
async def redfish_emulator(folder: Path, *, fake: bool = False) -> AsyncGenerator[str]:
    """Run it on a free port; give the URL of its one system.

    ``fake``: on its own driver, which has virtual media, and power that comes late; libvirt's
    test driver has no storage for them.
    """
    users = folder / "htpasswd"
    users.write_text(f"admin:{password_hash(PASSWORD)}\n")
    config = folder / "emulator.conf"
    config.write_text(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n"
        "SUSHY_EMULATOR_LISTEN_PORT = 0\n"
        + ("SUSHY_EMULATOR_FAKE_DRIVER = True\n" if fake else "")
        + "SUSHY_EMULATOR_LIBVIRT_URI = 'test:///default'\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(folder)!r}\n"
        f"SUSHY_EMULATOR_AUTH_FILE = {str(users)!r}\n"
    )
    log = folder / "emulator.log"
    async with trio.open_nursery() as nursery:
        with log.open("wb") as out:
            process = await nursery.start(
                lambda task_status: trio.run_process(
                    [EMULATOR, "--config", config],
                    stdout=out,
                    stderr=out,
                    check=False,
                    task_status=task_status,
                )
            )
            try:
                yield await _system_url(log, process)
            finally:
                process.terminate()


async def _system_url(log: Path, process: trio.Process) -> str:
    with trio.fail_after(START_S):
        while (found := re.search(r"Running on (http://\S+)", log.read_text())) is None:
            assert process.returncode is None, log.read_text()
            await trio.sleep(0.05)
    async with httpx2.AsyncClient(auth=("admin", PASSWORD), trust_env=False) as client:
        systems = (await client.get(f"{found[1]}/redfish/v1/Systems")).json()
    return str(found[1] + systems["Members"][0]["@odata.id"])
