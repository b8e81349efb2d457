"""``rackmesh service``: run a hub or node under systemd, as a user of its own without root.

It knows systemd's commands, not the roles. Rules: nothing is changed before everything was
checked; installing twice is harmless; uninstalling never touches data.
"""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import click

from mesh.cli.errors import CONFLICT, DENIED, NOT_FOUND, Failure
from mesh.errors import Refused
from mesh.host.config import default_data
from mesh.host.units_text import Role, unit_name, unit_text

USER = "rackmesh"
UNITS = Path("/etc/systemd/system")
COMMAND_S = 60

ROLE = click.argument("role", type=click.Choice(["node", "hub"]))
DATA = click.option("--data", type=click.Path(path_type=Path), help="Data folder of the role.")
CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file of the role."
)
USER_OPTION = click.option("--user", default=USER, show_default=True, help="User to run as.")


@click.command("print")
@ROLE
@DATA
@CONFIG
@USER_OPTION
def print_unit(role: Role, data: Path | None, config: Path | None, user: str) -> None:
    """Print the unit file that `service install` would write."""
    click.echo(_text(role, data, config, user), nl=False)


@click.command("install")
@ROLE
@DATA
@CONFIG
@USER_OPTION
@click.option("--now", is_flag=True, help="Also start it.")
def install(role: Role, data: Path | None, config: Path | None, user: str, now: bool) -> None:
    """Write the unit, make the user and the data folder, enable it at boot."""
    text = _text(role, data, config, user)
    if os.geteuid() != 0:
        raise Failure("only root can install a service; `service print` shows the unit", DENIED)
    if not Path("/run/systemd/system").is_dir():
        raise Failure(
            "systemd does not run this machine; `service print` shows the unit", CONFLICT
        )
    _need_user(user)
    _need_allowed(user, "run", _program(), "version")
    if config is not None:
        _need_allowed(user, "read", Path("/usr/bin/test"), "-r", str(config.absolute()))
    folder = data or default_data(role, os.environ)
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    _give(folder, user)
    (UNITS / unit_name(role)).write_text(text)
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", *(["--now"] if now else []), unit_name(role))
    click.echo(f"{unit_name(role)} is installed; data in {folder}, user {user}")
    if not now:
        click.echo(f"start it: systemctl start {unit_name(role)}", err=True)
    click.echo(f"its log: journalctl -u {unit_name(role)} -f", err=True)


@click.command("uninstall")
@ROLE
def uninstall(role: Role) -> None:
    """Stop and remove the unit; data and user stay."""
    unit = UNITS / unit_name(role)
    if not unit.exists():
        raise Failure(f"{unit} does not exist: nothing to remove", NOT_FOUND)
    if os.geteuid() != 0:
        raise Failure("only root can remove a service", DENIED)
    _run("systemctl", "disable", "--now", unit_name(role))
    unit.unlink()
    _run("systemctl", "daemon-reload")
    click.echo(f"{unit_name(role)} is removed; its data stays")


def _text(role: Role, data: Path | None, config: Path | None, user: str) -> str:
    folder = Path("/var/lib/rackmesh") / role if data is None else data.absolute()
    try:
        interpreter = Path(sys.executable).resolve()
        file = config.absolute() if config is not None else None
        return unit_text(role, _program(), interpreter, folder, user, file)
    except Refused as exc:
        raise Failure(str(exc), 2) from exc


def _program() -> Path:
    """Return the command that runs now, as an absolute path."""
    found = shutil.which(sys.argv[0]) or sys.argv[0]
    path = Path(found).absolute()
    if path.name != "rackmesh":
        path = Path(sys.executable).with_name("rackmesh")
    if not path.exists():
        raise Failure(f"the command rackmesh was not found beside {sys.executable}", NOT_FOUND)
    return path


def _need_user(user: str) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        _run("useradd", "--system", "--user-group", "--home-dir", "/var/lib/rackmesh",
             "--no-create-home", "--shell", "/usr/sbin/nologin", user)  # fmt: skip


def _need_allowed(user: str, verb: str, *argv: Path | str) -> None:
    """Try something as the user before systemd does, which would only say 203/EXEC."""
    entry = pwd.getpwnam(user)
    try:
        done = subprocess.run(
            argv, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], cwd="/", check=False,
            capture_output=True, timeout=COMMAND_S,
        )  # fmt: skip
        allowed = done.returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        what = argv[0] if verb == "run" else argv[-1]
        raise Failure(
            f"the user {user} cannot {verb} {what}: put it where everybody can, as under /opt",
            CONFLICT,
        )


def _give(folder: Path, user: str) -> None:
    """Make the user own the folder and everything in it; links are not followed."""
    entry = pwd.getpwnam(user)
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            os.lchown(Path(root) / name, entry.pw_uid, entry.pw_gid)
    os.lchown(folder, entry.pw_uid, entry.pw_gid)
    folder.chmod(0o700)


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=COMMAND_S
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Failure(f"{argv[0]} could not be run: {exc}") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Failure(f"{' '.join(argv)}: {said[-1] if said else f'exit {done.returncode}'}")
