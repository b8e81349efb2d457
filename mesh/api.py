"""What other rooms may use of mesh, by module.

Mesh is the common language: programs compose its shells, leaves use only its words. A room
imports the module that holds what it needs, so that nothing else is loaded with it.

Words are ``mesh.proto.*`` (ids, codec, tables, orders, capabilities) and ``mesh.errors``. The
state is ``mesh.store`` and ``mesh.sync``; trust is ``mesh.identity``, ``mesh.register_store``,
``mesh.membership``, ``mesh.hub_keys``, ``mesh.join_desk``, ``mesh.secrets`` and
``mesh.site_secret``; links are ``mesh.link.peers``, ``mesh.link.ws`` and ``mesh.link.split``. The
API's resources and client are ``mesh.rest.*``, the operator's verbs ``mesh.cli.*``, and what every
program needs of its machine ``mesh.host.*``.

Leaves (``drivers``, ``cache``) use words, errors and the host alone (checked by import-linter).
"""
