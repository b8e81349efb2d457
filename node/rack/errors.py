"""Errors inside a simulated rack."""


class BootFailed(Exception):
    """A server got no further on the network; one sentence for its console, it tries again."""
