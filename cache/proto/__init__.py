"""Sans-IO cores of the room `cache`: no clock, no randomness, no sockets, no files."""
