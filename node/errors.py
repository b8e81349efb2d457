"""Errors of the room: what a node refuses to begin or cannot go on with.

The node's services raise the errors of the rooms they use (mesh, cache, drivers); what belongs
to the program as a whole stands here.
"""

from mesh.errors import Refused


class NotJoined(Refused):
    """The data folder has no membership yet; nothing was changed."""
