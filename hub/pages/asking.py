"""Who asks for a page, and what that role may do there."""

from typing import cast

from quart import g

from hub.errors import Denied
from hub.ports import Principal
from mesh.rest.roles import Role, covers


def principal() -> Principal | None:
    """Return who asks; None on pages that are open to all."""
    return cast("Principal | None", g.get("principal"))


def may(least: Role) -> bool:
    """Tell whether who asks may do what needs this role."""
    who = principal()
    return who is not None and covers(who.role, least)


def need(least: Role) -> Principal:
    """Return who asks, or raise Denied when the role is not enough."""
    who = principal()
    if who is None or not covers(who.role, least):
        raise Denied(f"this needs the role {least}")
    return who
