"""What every verb needs: which daemon to ask, and how to answer.

Rule: data goes to standard output, everything else to standard error; ``--json`` prints what
the API said.
"""

import functools
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from mesh.cli.errors import BY_CODE, FAILED, UNREACHABLE, Failure
from mesh.host.config import default_data

Command = Callable[..., None]


def options(function: Command) -> Command:
    """Give a command the options of all verbs: --data, --hub, --api-token-file, --json."""
    decorators = [
        click.option("--json", "as_json", is_flag=True, help="Print what the API answers."),
        click.option(
            "--data", type=click.Path(path_type=Path), envvar="RACKMESH_DATA",
            help="Data folder of the hub or node to ask (its run/api.sock).",
        ),
        click.option("--hub", envvar="RACKMESH_HUB", help="Address of a hub, https://HOST:PORT."),
        click.option(
            "--api-token-file", type=click.Path(path_type=Path, allow_dash=True),
            envvar="RACKMESH_API_TOKEN_FILE", help="File with the API token for --hub.",
        ),
        click.option(
            "--tls-sha256", envvar="RACKMESH_TLS_SHA256", help="TLS fingerprint of --hub."
        ),
    ]  # fmt: skip
    for decorate in decorators:
        function = decorate(function)

    @functools.wraps(function)
    def run(
        *args: Any,
        data: Path | None,
        hub: str | None,
        api_token_file: Path | None,
        tls_sha256: str | None,
        **kwargs: Any,
    ) -> None:
        where = Where(data, hub, api_token_file, tls_sha256)
        function(where, *args, **kwargs)

    return run


class Where:
    """Which daemon a verb speaks to."""

    def __init__(
        self, data: Path | None, hub: str | None, token_file: Path | None, tls: str | None
    ) -> None:
        self.data = data
        self._hub, self._token_file, self._tls = hub, token_file, tls

    @contextmanager
    def client(self) -> Generator[Any]:
        """Open the API client; its errors become one sentence and an exit code."""
        from mesh.rest.client import ApiClient, ApiError

        client = ApiClient(self.target())
        try:
            yield client
        except ApiError as exc:
            raise Failure(str(exc), BY_CODE.get(exc.code, FAILED)) from exc
        finally:
            client.close()

    def target(self) -> Any:
        """Return where the API is."""
        from mesh.rest.client import Target

        if self._hub is not None:
            if not self._hub.startswith("https://"):
                raise Failure(f"--hub wants https://HOST:PORT, not {self._hub!r}", 2)
            return Target(url=self._hub, token=self._token(), tls_sha256=self._tls)
        return Target(socket=find_socket(self.data, os.environ))

    def _token(self) -> str | None:
        if self._token_file is None:
            raise Failure("--hub needs --api-token-file with the hub's DATA/api-token", 2)
        return read_secret_file(self._token_file)


def find_socket(data: Path | None, environ: Any) -> Path:
    """Return the api.sock of a data folder, or of the daemon that runs in a default place."""
    folders = [data] if data is not None else [
        default_data("hub", environ), default_data("node", environ),
    ]  # fmt: skip
    for folder in folders:
        if (folder / "run" / "api.sock").exists():
            return folder / "run" / "api.sock"
    tried = " or ".join(str(folder) for folder in folders)
    raise Failure(
        f"no hub or node runs with its data in {tried}; give --data or --hub", UNREACHABLE
    )


def in_path(name: str) -> str:
    """Return a name or id as it stands in the API's paths, whatever was typed."""
    if not name.strip():
        raise Failure("a name or id is empty", 2)
    return quote(name, safe="")


def read_secret_file(path: Path) -> str:
    """Return the one line of a file, or of standard input for ``-``."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {exc.strerror}", 2) from exc
    return text.strip()


def print_json(value: Any, *, err: bool = False) -> None:
    """Print a JSON document, with ``err`` to standard error."""
    click.echo(json.dumps(value, indent=2, sort_keys=True), err=err)
