"""Sans-IO cores of the room `drivers`: no clock, no randomness, no sockets, no files."""
