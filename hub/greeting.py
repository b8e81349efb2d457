"""What a starting hub says on standard output: where it is, how to check it, what to do next.

Rule: a secret is shown on a terminal only; elsewhere standard output may end up in a log, so
there the text names the file (0600) that holds it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from hub.founding import API_TOKEN_FILE, JOIN_TOKEN_FILE, PASSWORD_FILE
from hub.status import called
from mesh.host.files import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What is said at a start."""

    data: Path
    name: str
    urls: tuple[str, ...]
    fingerprint: str
    root_fingerprint: str
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    site: str | None
    on_terminal: bool
    first: bool


def greet(greeting: Greeting, output: TextIO) -> None:
    """Write the lines; a token that cannot be shown goes to its file."""
    lines = [
        f"Rackmesh {called(greeting.name)} is up",
        f"  console      {greeting.urls[0]}",
        *(f"               {url}" for url in greeting.urls[1:]),
        f"  TLS SHA-256  {greeting.fingerprint}",
        f"  organisation {greeting.root_fingerprint}",
        f"  API token    {greeting.data / API_TOKEN_FILE}",
    ]
    if greeting.password is not None:
        lines.append(f"  sign in as   admin, password {greeting.password} (shown this once)")
    elif (greeting.data / PASSWORD_FILE).exists():
        lines.append(f"  sign in as   admin, password in {greeting.data / PASSWORD_FILE}")
    lines.append(f"  join a node  {_join_line(greeting)}")
    output.write("\n".join(lines) + "\n")
    output.flush()


def _join_line(greeting: Greeting) -> str:
    if greeting.token is None:
        flag = f" --data {greeting.data}"
        return f"rackmesh token create --site NAME{flag}, then rackmesh node join --token ..."
    if greeting.on_terminal:
        return f"rackmesh node join --token {greeting.token}"
    path = greeting.data / JOIN_TOKEN_FILE
    write_file(path, greeting.token + "\n", 0o600)
    return f"rackmesh node join --token-file {path}"
