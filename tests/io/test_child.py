"""The fence around foreign programs, with real ones inside it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mesh.host.child import ChildFailed, ChildLimits, nobody, run_child, sees_no_network

SHELL = "/bin/sh"
SMALL = ChildLimits(time_s=20.0, output_bytes=1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "work"
    found.mkdir(mode=0o700)
    user = nobody()
    if user is not None:
        os.chown(found, *user)
    return found


async def test_a_child_works_in_its_folder_and_gets_nothing_of_our_environment(folder):
    os.environ["RACKMESH_TEST_SECRET"] = "hidden"
    try:
        out = await run_child([SHELL, "-c", "echo x > made; pwd; /usr/bin/env"], folder, SMALL)
    finally:
        del os.environ["RACKMESH_TEST_SECRET"]
    assert (folder / "made").read_text() == "x\n"
    lines = out.decode().splitlines()
    assert lines[0] == str(folder)
    assert "hidden" not in out.decode()
    assert "LC_ALL=C" in lines


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
async def test_a_child_of_root_is_nobody_without_a_network_and_reaches_no_file_of_root(folder):
    secret = folder.parent / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    out = await run_child([SHELL, "-c", "/usr/bin/id -u; cat ../secret || true"], folder, SMALL)
    assert out.decode() == f"{nobody()[0]}\n"
    assert await sees_no_network(folder)
    with pytest.raises(ChildFailed, match="Permission denied"):
        await run_child([SHELL, "-c", f"echo x > {secret}"], folder, SMALL)
    assert secret.read_text() == "of root"


async def test_the_last_line_of_standard_error_is_the_sentence(folder):
    with pytest.raises(ChildFailed, match=r"^sh: it is broken$"):
        await run_child([SHELL, "-c", "echo noise >&2; echo it is broken >&2; exit 3"],
                        folder, SMALL)  # fmt: skip
    with pytest.raises(ChildFailed, match=r"^sh: ended with code 4$"):
        await run_child([SHELL, "-c", "exit 4"], folder, SMALL)
    with pytest.raises(ChildFailed, match="nothing-there cannot be run"):
        await run_child(["/nothing-there"], folder, SMALL)


async def test_a_child_that_takes_too_long_is_stopped_with_all_that_it_started(folder):
    script = "sleep 1000 & echo $! > pid; wait"
    with pytest.raises(ChildFailed, match=r"did not end within 1 s"):
        await run_child([SHELL, "-c", script], folder, ChildLimits(time_s=1.0))
    pid = int((folder / "pid").read_text())
    with trio.fail_after(5):
        while _runs(pid):
            await trio.sleep(0.01)


async def test_a_child_that_prints_too_much_is_stopped(folder):
    with pytest.raises(ChildFailed, match="prints over 1000 bytes"):
        await run_child([SHELL, "-c", "while :; do echo more; done"], folder, SMALL)


async def test_memory_file_size_and_processor_time_are_limited(folder):
    with pytest.raises(ChildFailed, match=r"SIGXFSZ|File too large"):
        await run_child(
            [SHELL, "-c", "exec head -c 2000000 /dev/zero > big"], folder,
            ChildLimits(file_bytes=1 << 20, time_s=20.0),
        )  # fmt: skip
    assert (folder / "big").stat().st_size <= 1 << 20
    with pytest.raises(ChildFailed, match=r"ended by|CPU"):
        await run_child(
            [SHELL, "-c", "while :; do :; done"], folder, ChildLimits(cpu_s=1, time_s=60.0)
        )
    with pytest.raises(ChildFailed, match="failed to map"):
        await run_child(["/usr/bin/id"], folder, ChildLimits(memory_bytes=1 << 20))


async def test_a_cancelled_child_is_gone(folder):
    with trio.move_on_after(1.0):
        await run_child([SHELL, "-c", "echo $$ > pid; exec sleep 1000"], folder, SMALL)
    pid = int((folder / "pid").read_text())
    assert not _runs(pid)


def test_a_child_dies_with_its_parent(folder):
    program = (
        "import sys, trio\nfrom pathlib import Path\n"
        "from mesh.host.child import ChildLimits, run_child\n"
        "argv = ['/bin/sh', '-c', 'echo $$ > pid; exec sleep 1000']\n"
        "trio.run(run_child, argv, Path(sys.argv[1]), ChildLimits())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    try:
        pid = _wait_for_pid(folder / "pid")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    trio.run(_gone, pid)


def _wait_for_pid(path: Path) -> int:
    async def look() -> int:
        with trio.fail_after(30):
            while not (path.exists() and path.read_text().strip()):
                await trio.sleep(0.02)
        return int(path.read_text())

    return trio.run(look)


async def _gone(pid: int) -> None:
    with trio.fail_after(5):
        while _runs(pid):
            await trio.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie that waits for init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
