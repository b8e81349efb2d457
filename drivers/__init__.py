"""Leaf: one small interface per device capability, and the providers that speak it."""
