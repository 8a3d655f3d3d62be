"""The trust service's memory: typed rows over SQLAlchemy Core, on SQLite or PostgreSQL.

``Database`` opens or creates one; ``Database.transaction()`` hands out a ``Transaction`` whose
attributes are the collections (``nodes``, ``secrets``, …), one module each. No business rules
live here: what a row means is decided in ``catena.service``.
"""
