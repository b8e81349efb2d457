"""Unit files of systemd, read through importlib.resources."""
