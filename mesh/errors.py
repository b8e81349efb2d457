"""Errors of the room: one small tree, each class says what state is left behind."""


class MeshError(Exception):
    """Base of all errors of the mesh room."""


class CodecError(MeshError):
    """Bytes from outside that are not what they should be; nothing was changed."""


class LocalError(MeshError):
    """We did something wrong, or our own state or configuration does not allow it."""


class RemoteError(MeshError):
    """The peer did something wrong; the link or the message was dropped, our state stands."""


class Unreachable(MeshError):
    """No live link to the peer, or it did not answer in time; the outcome there is unknown."""


class RemoteRefused(RemoteError):
    """The peer understood and said no; ``str(error)`` is its one sentence for people."""


class Refused(LocalError):
    """We refuse what was asked; ``str(error)`` is one sentence for people. Nothing changed."""


class StoreFull(LocalError):
    """The disk under the store is full: the write was rolled back, earlier ones stand."""


class StoreBroken(LocalError):
    """The store met an I/O error: the process must end and verify at its next start."""


class StoreDamaged(StoreBroken):
    """What stands in the file is not what was written; the file was left as it is."""
