"""What every page module is given."""

from dataclasses import dataclass

from hub.api.bind import Bindings
from hub.api.session import SignIn
from hub.pages.render import Renderer
from hub.ports import Services


@dataclass(frozen=True, slots=True)
class Console:
    """Services to read and write through, and the renderer."""

    services: Services
    render: Renderer
    sign_in: SignIn
    api: Bindings
    """``api.call(operation, principal, body, key)``: how pages write."""
