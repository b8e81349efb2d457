"""What becomes a foreign program: puts the fences up in its own process, then turns into it.

    python -I -S -c <this text> '{"parent": 1, "folder": "...", "user": [65534, 65534], ...}'

Its text is handed to a fresh interpreter by ``mesh/host/child.py``; nothing imports it. Rule:
every fence stands before the program's first instruction; only the network's may be missing,
where the kernel gives no namespaces to this user, or where the program's work is on it.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000


def start(told: dict[str, object]) -> None:
    """Fence ourselves in and become the program; returns never."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.chdir(str(told["folder"]))
    spaces = CLONE_NEWNET | CLONE_NEWIPC
    if not told.get("network"):
        libc.unshare(spaces if os.geteuid() == 0 else spaces | CLONE_NEWUSER)
    limits = told["limits"]
    assert isinstance(limits, dict)
    for name, most in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (least, least))
    user = told["user"]
    if isinstance(user, list):
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != told["parent"]:
        os._exit(1)  # our parent is gone already
    os.umask(0o077)
    argv = told["argv"]
    assert isinstance(argv, list)
    more = told.get("env")
    env = {"LC_ALL": "C", **(more if isinstance(more, dict) else {})}
    with contextlib.suppress(OSError):
        os.execve(argv[0], argv, env)  # noqa: S606 - no shell is the point
    os.write(2, f"{argv[0]} cannot be run".encode())
    os._exit(127)


if __name__ == "__main__":
    start(json.loads(sys.argv[1]))
