"""What other rooms may use of mesh, by module.

Mesh is the common language: programs compose its shells, leaves use only its words. A room
imports the module that holds what it needs, so that nothing else is loaded with it.

Words: ``mesh.proto.*`` (ids, codec, tables, orders, capabilities) and ``mesh.errors``.
State: ``mesh.store`` and ``mesh.sync``. Links: ``mesh.link.peers``, ``.ws`` and ``.split``.
Trust: ``mesh.identity``, ``mesh.register_store``, ``mesh.membership``, ``mesh.hub_keys``,
``mesh.join_desk``, ``mesh.secrets`` and ``mesh.site_secret``. The API's resources and client:
``mesh.rest.*``; the operator's verbs: ``mesh.cli.*``; what every program needs of its machine:
``mesh.host.*``.

Leaves (``drivers``, ``cache``) use words, errors and the host alone (checked by import-linter).
"""
