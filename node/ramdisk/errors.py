"""Errors of the ramdisk agent: one small tree, each class says what state is left behind."""


class RamdiskError(Exception):
    """Base of all errors of the agent."""


class Unreachable(RamdiskError):
    """No base URL answered in the allowed tries; what the node did is unknown."""


class Refused(RamdiskError):
    """The node answered and said no; ``str(error)`` is its sentence. Nothing changed here."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Aborted(RamdiskError):
    """The node ended the step that runs; the disk holds a part of the work."""


class Stopped(RamdiskError):
    """Our own caller (the simulated rack) took the power away; nothing is reported."""


class StepFailed(RamdiskError):
    """The step cannot be done; ``str(error)`` is one sentence for people.

    The class that raises it says how far the disk was changed; every disk step can be begun
    again from the start, it looks at what is there first.
    """


class MethodRefused(StepFailed):
    """The drive, or its state, refuses a method; the data on it are as they were."""


class HttpError(RamdiskError):
    """The connection failed or the peer spoke no HTTP; the connection is of no more use."""
