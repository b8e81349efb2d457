"""Sans-IO cores of the room `hub`: no clock, no randomness, no sockets, no files."""
