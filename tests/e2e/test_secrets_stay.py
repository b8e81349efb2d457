"""Canaries: no secret stands in a log, in a database in clear, or in any argv."""

import re
from http.client import HTTPConnection
from pathlib import Path

import pytest
from demo_processes import rackmesh

from mesh.proto.token import parse_token
from node.rack.system import read_first_boot
from tests.support.fleet import Fleet, run, until

OWN_FILES = ("admin-password", "api-token", "bmc-credentials.json")
"""Where a secret of the daemon itself stands, for its owner alone."""
PIECE = 1 << 22


def contains(path: Path, canary: bytes) -> bool:
    """Search a file of any size."""
    tail = b""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            if canary in tail + piece:
                return True
            tail = piece[-len(canary) :]
    return False


def boot_capability(site: Fleet) -> str:
    """Ask for the boot script of srv1 as the machine at its address would."""
    given = re.findall(r'"msg": "ramdisk given".*?"ip": "([\d.]+)"', site.log("node-two"))
    mac = site.machines()[0]["mac"]
    port = int(site.status(site.two)["services"]["ports"]["http"])
    for ip in reversed(given):
        client = HTTPConnection("127.0.0.1", port, timeout=10, source_address=(ip, 0))
        client.request("GET", f"/boot/v1/script?mac={mac}")
        found = re.search(r"rackmesh\.cap=(\S+)", client.getresponse().read().decode())
        client.close()
        if found:
            return found.group(1)
    raise AssertionError(f"no script for {mac} at {given}")


@pytest.mark.slow
def test_no_secret_leaves_its_place(site: Fleet) -> None:
    canaries = {
        "admin password": (site.hub / "admin-password").read_text().strip(),
        "api token": (site.hub / "api-token").read_text().strip(),
        "BMC password": site.bmc_login()["password"],
        "opaque secret": "canary-7f3a91c5-never-in-clear",
    }
    rackmesh(
        "secret", "set", "canary", "--site", "two", "--data", site.hub,
        stdin=canaries["opaque secret"],
    )  # fmt: skip
    listed = run("secret", "list", "--json", "--data", site.hub).out
    token = run("token", "create", "--site", "one", "--data", site.hub).out.strip()
    canaries["join token"] = token[20:-8]
    site.make_available("srv1")
    job = site.deploy_order("srv1")
    until("it writes", lambda: site.step(job, "write image")["state"] == "running")
    canaries["boot capability"] = boot_capability(site)
    site.succeeded(job)
    told = read_first_boot(site.disk(0))
    assert told is not None
    canaries["phone-in capability"] = told.urls[0].rpartition("/")[2]
    assert len(canaries["phone-in capability"]) > 40
    shown = "".join(
        run(*words, "--data", data).out
        for data in (site.hub, site.two)
        for words in (("job", "show", job), ("job", "logs", job), ("server", "show", "srv1"))
    )
    secret = parse_token(token).secret
    for name, canary in canaries.items():
        assert canary not in listed + shown, f"{name} is shown"
        for path in site.folder.rglob("*"):
            if path.is_file() and path.name not in OWN_FILES and path.suffix != ".img":
                assert not contains(path, canary.encode()), f"{name} stands in {path}"
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            assert canary.encode() not in _read(cmdline), f"{name} stands in an argv"
    for path in site.hub.rglob("*"):
        assert not (path.is_file() and contains(path, secret)), f"token secret in {path}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


def test_secret_files_are_for_their_owner_alone(site: Fleet) -> None:
    folders = (site.hub, site.one, site.two, site.rack)
    for folder in folders:
        assert folder.stat().st_mode & 0o077 == 0, folder
        for path in folder.rglob("*"):
            private = path.name in OWN_FILES or path.parent.name in ("keys", "identity")
            private |= path.suffix == ".key"
            if path.is_file() and (private or path.name == "state.db" or path.suffix == ".img"):
                assert path.stat().st_mode & 0o077 == 0, path
    for data in (site.hub, site.two):
        assert (data / "run" / "api.sock").stat().st_mode & 0o177 == 0
