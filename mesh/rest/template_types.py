"""What the API says about boot templates."""

from typing import TypedDict


class Template(TypedDict):
    """A boot template without its text."""

    name: str
    format: str  # preseed | kickstart | autoinstall | cloud-init | ipxe | grub
    file: str  # the name under which an installer fetches it
    digest: str  # what orders name it by
    bytes: int
    secrets: list[str]  # ids of the secrets that it asks for
    changed_ms: int
    by: str | None


class TemplateText(Template):
    """A boot template."""

    text: str


class Rendered(TypedDict):
    """What a server would get."""

    name: str
    server: str
    file: str
    text: str  # *** in place of secrets and capabilities
