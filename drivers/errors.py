"""Errors of the room: what a device did, and what state it may be in now.

Each is one sentence for people and names the URL and, where there was an answer, its status.
No error ever carries a password, a token or a request body.
"""


class DriverError(Exception):
    """Base of all errors of the drivers room; ``str(error)`` is one sentence for people."""


class DeviceRefused(DriverError):
    """The device understood and said no; its state is what it was before."""


class LoginRefused(DeviceRefused):
    """The user or the password is wrong: trying again may lock the account."""


class NotOffered(DeviceRefused):
    """The device has no such thing; another provider for it may."""


class DeviceUnreachable(DriverError):
    """No usable answer in time; whether the device acted is unknown, so read before acting."""


class DeviceLied(DriverError):
    """What it said is not so, or makes no sense; its real state is unknown until read again."""
