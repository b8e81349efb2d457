"""Errors of the room: each class says what state is left behind."""


class CacheError(Exception):
    """Base of all errors of the cache room; ``str(error)`` is one sentence for people."""


class ManifestError(CacheError):
    """Bytes that are not a manifest, or not the one asked for; nothing was stored."""


class OriginError(CacheError):
    """The origin could not be read; verified bytes are kept and the next try goes on there."""


class ContentMismatch(CacheError):
    """The whole content is not what it was declared to be; nothing of it is kept."""


class NoSpace(CacheError):
    """The disk or the quota is full; verified bytes are kept, the fetch can go on later."""


class NoHolder(CacheError):
    """Nobody who could be asked has the asset; verified bytes are kept."""


class ChunkUnavailable(CacheError):
    """We do not hold that chunk, or our copy is damaged and was given up."""


class ImageRefused(ContentMismatch):
    """The content cannot be made into a disk; nothing of it is kept."""


class NoConverter(CacheError):
    """The program that would convert the content is not installed here; nothing was read."""


class BundleRefused(CacheError):
    """A bundle that is damaged or not ours to take; what was verified of it before is kept."""
