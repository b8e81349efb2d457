"""Variables for a boot template, as --var gives them."""

from mesh.cli.errors import Failure
from mesh.proto.template_text import VAR_PATTERN


def variables(given: tuple[str, ...]) -> dict[str, str]:
    """Return what --var said, by name."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not VAR_PATTERN.match(name):
            raise Failure(f"--var takes name=value, the name a-z, 0-9, _, not {text!r}", 2)
        found[name] = value
    return found
