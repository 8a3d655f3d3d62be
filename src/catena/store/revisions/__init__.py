"""Steps of the schema, as alembic revisions: ``vNNNN_what.py`` leads from version NNNN - 1 to NNNN.

To add one: change ``schema.py``, raise ``SCHEMA_VERSION``, and write the module with ``revision``,
``down_revision``, a docstring that says what changes (``catena server migrate`` shows its first
line) and ``upgrade()``. It spells out what it makes and imports nothing of catena: ``schema.py``
goes on changing, a step that was released does not. Servers of the version before it still run
while it is taken, so it only adds (ADR 22).
"""
