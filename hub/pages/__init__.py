"""The console: one module a page, one renderer, one frame around them all.

Pages read through the same functions as the API and write through the same ports. How to make
one stands in hub/DESIGN.md.
"""
