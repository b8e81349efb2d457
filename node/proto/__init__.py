"""Sans-IO cores of the room `node`: no clock, no randomness, no sockets, no files."""
