"""What a person or a client may do: three roles, each of which includes the ones before it.

A viewer reads; an operator gives orders, secrets and join tokens; an admin also decides who the
others are. It knows no request. Rule: whoever has no known role may do nothing.
"""

from typing import Final, Literal, cast, get_args

Role = Literal["viewer", "operator", "admin"]
ROLES: Final = cast(tuple[Role, ...], get_args(Role))
"""Weakest first."""


def covers(role: str, least: Role) -> bool:
    """Tell whether a role may do what needs at least another one."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)
