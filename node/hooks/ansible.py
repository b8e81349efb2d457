"""One playbook against one server, by ansible-playbook in the child shell.

It knows no job. Rules: the inventory has this one server; what is told to the playbook stands
in a file of the private folder and holds no secret; the private key stays in our agent. A
playbook is one file: it has no roles and no files beside it.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mesh.host.child import Told
from mesh.proto.hook import PLAYBOOK_PATTERN, Hook
from node.hooks import programs
from node.hooks.outcome import HookFailed

PROGRAM: Final = "ansible-playbook"
PLAYBOOK_BYTES_MAX: Final = 1 << 20
PYTHON: Final = "/usr/bin/python3"
CONFIG: Final = """\
[defaults]
host_key_checking = True
retry_files_enabled = False
nocows = True
nocolor = True
forks = 1
local_tmp = {folder}/tmp
[ssh_connection]
ssh_args =
pipelining = True
"""


async def run_playbook(
    hook: Hook,
    playbook: bytes,
    name: str,
    host: str,
    host_keys: tuple[str, ...],
    key: bytes | None,
    facts: Mapping[str, Any],
) -> Told:
    """Run a playbook against the server ``name``; raises HookFailed when nothing was tried."""
    program = programs.found(PROGRAM)
    if program is None:
        raise HookFailed("this node has no ansible-playbook: install ansible-core", False)
    async with programs.work_folder() as folder:
        programs.put_known_hosts(folder, host_keys)
        programs.put(folder, "playbook.yml", playbook)
        programs.put(folder, "ansible.cfg", CONFIG.format(folder=folder).encode())
        variables = {f"rackmesh_{key}": value for key, value in facts.items()}
        programs.put(folder, "vars.json", json.dumps(variables).encode())
        inventory = {"all": {"hosts": {name: _host(hook, folder, host)}}}
        programs.put(folder, "inventory.yml", json.dumps(inventory).encode())
        argv = [
            program, "--inventory", "inventory.yml", "--extra-vars", "@vars.json",
            "playbook.yml",
        ]  # fmt: skip
        env = {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "PYTHONDONTWRITEBYTECODE": "1"}
        async with programs.key_agent(folder, key, str(hook.secret)):
            return await programs.run(argv, folder, hook.timeout_s, env)


def read_playbook(folder: Path, name: str) -> bytes:
    """Return a playbook of the node's folder; raises HookFailed with one sentence."""
    assert PLAYBOOK_PATTERN.match(name)
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as exc:
        raise HookFailed(f"the playbook {path} cannot be read: {exc.strerror}", False) from exc
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise HookFailed(f"the playbook {path} is no file", False)
        return checked(file.read(PLAYBOOK_BYTES_MAX + 1), str(path))


def checked(data: bytes, what: str) -> bytes:
    """Return a playbook that is not too long."""
    if len(data) > PLAYBOOK_BYTES_MAX:
        raise HookFailed(
            f"the playbook {what} is longer than {PLAYBOOK_BYTES_MAX} bytes", False
        )
    return data


def _host(hook: Hook, folder: Path, host: str) -> dict[str, Any]:
    if hook.connection == "local":
        return {
            "ansible_connection": "local", "ansible_python_interpreter": PYTHON,
            "ansible_remote_tmp": str(folder / "tmp"),
        }  # fmt: skip
    return {
        "ansible_host": host, "ansible_port": hook.port, "ansible_user": hook.user,
        "ansible_ssh_common_args": " ".join(programs.ssh_options(folder)),
    }  # fmt: skip
