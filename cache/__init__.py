"""Leaf: assets on disk, verified chunk by chunk, shared between nodes."""
