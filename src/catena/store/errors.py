"""What can go wrong between the service and its database.

Messages never carry statement parameters: they may be ciphertext, tokens or node input.
"""

from __future__ import annotations

from catena.errors import CatenaError, NotFound, Unavailable, UsageError


class DatabaseGone(Unavailable):
    """The database cannot be reached, read or written; the transaction did not happen."""

    code = "database-gone"
    remedy = "Check that the database's disk or server is up and has space, then try again."


class DatabaseMissing(Unavailable):
    """There is no database at this address."""

    code = "database-missing"
    remedy = "Create it with `catena server init`."


class DriverMissing(Unavailable):
    """The Python driver for this kind of database is not installed."""

    code = "database-driver-missing"
    remedy = "Install the driver that the address names, for example `pip install psycopg`."


class DatabaseExists(UsageError):
    """A database is already there; creating one would overwrite it."""

    code = "database-exists"
    remedy = "Use the existing database, or give another address."


class DatabaseDamaged(Unavailable):
    """A database whose pages or rows contradict each other."""

    code = "database-damaged"
    remedy = "Restore another backup; keep the damaged file until it is known what happened."


class SchemaMismatch(Unavailable):
    """The database was written by another version of catena."""

    code = "schema-mismatch"
    remedy = "Run the catena version that wrote this database, or migrate it."


class Conflict(CatenaError):
    """A row contradicts one that is already stored; the transaction did not happen."""

    code = "conflict"
    remedy = "Another request changed the same thing first; read it again and retry."


class NameTaken(Conflict):
    """Another node already has this name."""

    code = "name-taken"
    remedy = "Choose another name, or revoke the node that has it."


class NodeMoved(Conflict):
    """Another replica decided about the same node first."""

    code = "node-moved"


class KekMoved(Conflict):
    """The key that encrypts secrets was exchanged while this one was being stored."""

    code = "kek-moved"
    remedy = "Send the request again."


class OutdatedPolicy(Conflict):
    """A policy that another one, as new or newer, has overtaken."""

    code = "policy-outdated"
    remedy = "Look at the policy in force; sign this one with a higher version to replace it."


class NoSuchRow(NotFound):
    """The row to be changed does not exist."""

    code = "no-such-row"


class AmbiguousNode(UsageError):
    """An id prefix that several nodes share."""

    code = "ambiguous-node"
    remedy = "Give more digits of the node's id, or its name."
