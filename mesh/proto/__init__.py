"""Sans-IO cores of the room `mesh`: no clock, no randomness, no sockets, no files."""
