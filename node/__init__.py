"""The node: boots, drives, caches and watches the servers of one site."""
