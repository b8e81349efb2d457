"""``rackmesh completion SHELL``: the script that makes a shell complete our words.

The script asks the program itself, whose groups answer from their tables without importing a
command (mesh/cli/lazy.py).
"""

from typing import Any, Final

import click
from click.shell_completion import get_completion_class

PROGRAM: Final = "rackmesh"
VARIABLE: Final = "_RACKMESH_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: source <(rackmesh completion bash)."""
    found: Any = get_completion_class(shell)
    assert found is not None
    made = found(context.find_root().command, {}, PROGRAM, VARIABLE)
    click.echo(made.source_template % made.source_vars())
