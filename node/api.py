"""What other rooms may use of a node: nothing, a node is a program.

Its interface is ``/api/v1`` on ``DATA/run/api.sock`` (node/router.py), the mesh (mesh/link),
and the boot protocols (node/boot).
"""
