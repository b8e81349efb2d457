"""Trio shells of the links: TCP, WebSocket, and the set of live peers."""
