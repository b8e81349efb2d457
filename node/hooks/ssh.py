"""One command on one host over ssh, by OpenSSH's client.

It knows no job. Rules: the host shows one of the given keys or nothing is sent; the private key
stays in our agent; whether the command may have begun is known, because the client writes the
file ``connected`` before it asks for the command.
"""

from dataclasses import dataclass
from typing import Final

from mesh.host.child import Told
from mesh.proto.hook import Hook
from node.hooks import programs
from node.hooks.outcome import HookFailed

SSH: Final = "ssh"
CONNECTED: Final = "connected"
CLIENT_FAILED: Final = 255
"""Exit code of the client itself (ssh(1), EXIT STATUS); a command may have it, too."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How the client ended, and whether the command may have begun."""

    told: Told
    begun: bool


async def run_command(hook: Hook, host: str, host_keys: tuple[str, ...], key: bytes) -> Ran:
    """Run the hook's command; raises HookFailed when nothing was tried."""
    assert hook.command is not None
    client = programs.found(SSH)
    if client is None:
        raise HookFailed("this node has no ssh: install openssh-client", False)
    async with programs.work_folder() as folder:
        programs.put_known_hosts(folder, host_keys)
        argv = [
            client, "-F", "/dev/null", "-T", "-a", "-x", *programs.ssh_options(folder),
            "-o", "PermitLocalCommand=yes", "-o", f"LocalCommand=: > {CONNECTED}",
            "-p", str(hook.port), "-l", hook.user, "--", host, hook.command,
        ]  # fmt: skip
        async with programs.key_agent(folder, key, str(hook.secret)):
            told = await programs.run(argv, folder, hook.timeout_s, {})
        return Ran(told, (folder / CONNECTED).exists())
