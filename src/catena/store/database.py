"""One database: opened or created, and its transactions.

SQLite runs with a write-ahead log, ``synchronous=FULL`` (a commit survives power loss) and
enforced foreign keys. A writing transaction takes SQLite's write lock at once (``BEGIN
IMMEDIATE``), so it never fails half-way for having started as a reader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    inspect,
    make_url,
    select,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from catena.errors import UsageError
from catena.store import migration, schema
from catena.store.appraisals import Appraisals
from catena.store.authorities import Authorities
from catena.store.containers import ContainerRecords
from catena.store.credentials import Certificates, Tokens
from catena.store.crls import Crls
from catena.store.ekcertificates import EkCertificates
from catena.store.endorsements import Endorsements
from catena.store.errors import (
    Conflict,
    DatabaseExists,
    DatabaseGone,
    DatabaseMissing,
    DriverMissing,
)
from catena.store.idempotency import KeptAnswers
from catena.store.inventory import Expected
from catena.store.keks import Keks
from catena.store.keysinforce import KeysInForce
from catena.store.labels import NodeLabels
from catena.store.logfiles import LogBatches, LogFiles
from catena.store.logs import Logs
from catena.store.logstate import LogStates
from catena.store.migration import Step
from catena.store.nodes import Nodes, Reenrolments
from catena.store.people import People
from catena.store.policies import Policies
from catena.store.references import References
from catena.store.rejudgements import Rejudgements
from catena.store.rounds import Rounds
from catena.store.secrets import Secrets

BUSY_TIMEOUT_MS = 5000
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
)
_READ_ONLY = "catena_read_only"
_PING = select(schema.schema_version.c.version)
_URL_SHAPE = "sqlite:///PATH or postgresql+psycopg://HOST/NAME"


class Transaction:
    """The collections of rows, all on one connection inside one transaction."""

    __slots__ = (
        "appraisals",
        "authorities",
        "certificates",
        "container_records",
        "crls",
        "ek_certificates",
        "endorsements",
        "expected",
        "keks",
        "kept_answers",
        "keys_in_force",
        "log_batches",
        "log_files",
        "log_states",
        "logs",
        "node_labels",
        "nodes",
        "people",
        "policies",
        "reenrolments",
        "references",
        "rejudgements",
        "rounds",
        "secrets",
        "tokens",
    )

    def __init__(self, connection: Connection) -> None:
        self.nodes = Nodes(connection)
        self.reenrolments = Reenrolments(connection)
        self.expected = Expected(connection)
        self.rounds = Rounds(connection)
        self.logs = Logs(connection)
        self.appraisals = Appraisals(connection, self.logs)
        self.container_records = ContainerRecords(connection)
        self.secrets = Secrets(connection)
        self.node_labels = NodeLabels(connection)
        self.keks = Keks(connection)
        self.references = References(connection)
        self.endorsements = Endorsements(connection)
        self.ek_certificates = EkCertificates(connection)
        self.rejudgements = Rejudgements(connection)
        self.policies = Policies(connection)
        self.tokens = Tokens(connection)
        self.authorities = Authorities(connection)
        self.certificates = Certificates(connection)
        self.crls = Crls(connection)
        self.people = People(connection)
        self.keys_in_force = KeysInForce(connection)
        self.kept_answers = KeptAnswers(connection)
        self.log_states = LogStates(connection)
        self.log_batches = LogBatches(connection)
        self.log_files = LogFiles(connection)


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections there are."""

    in_use: int
    idle: int


class Database:
    """An open database; safe to share between threads, one transaction per thread at a time."""

    __slots__ = ("_engine", "_reader", "steps")

    def __init__(self, engine: Engine, steps: tuple[Step, ...] = ()) -> None:
        self.steps = steps
        """The schema steps that were taken when it was opened."""
        self._engine = engine
        self._reader = engine.execution_options(**{_READ_ONLY: True, "postgresql_readonly": True})

    @classmethod
    def create(cls, url: str) -> Database:
        """Make the schema in an empty database. Raises ``DatabaseExists``, ``DatabaseGone``."""
        parsed = _parse(url)
        path = _sqlite_path(parsed)
        engine = _engine(parsed, BUSY_TIMEOUT_MS)
        with _new_file(path), _translated(), engine.begin() as connection:
            if inspect(connection).has_table(schema.schema_version.name):
                raise DatabaseExists("the database has catena's tables already")
            schema.metadata.create_all(connection)
            migration.stamp(connection)
        return cls(engine)

    @classmethod
    def open(cls, url: str, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> Database:
        """Open a database that ``create`` made; one of an earlier schema is brought up to this one.

        SQLite waits ``busy_timeout_ms`` for other writers. Raises ``DatabaseMissing``,
        ``DatabaseGone``, ``SchemaMismatch``, ``DriverMissing``.
        """
        engine = _existing(url, busy_timeout_ms)
        steps: tuple[Step, ...] = ()
        try:
            with _translated(), engine.connect() as connection:
                is_current = migration.is_current(connection)
            if not is_current:
                with _translated(), engine.begin() as connection:
                    steps = migration.migrate(connection)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, steps)

    @staticmethod
    def pending(url: str) -> tuple[Step, ...]:
        """The schema steps that ``open`` would take; nothing is changed. Raises as ``open`` does."""
        engine = _existing(url, BUSY_TIMEOUT_MS)
        try:
            with _translated(), engine.connect() as connection:
                return migration.pending(connection)
        finally:
            engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read and write; commits on leaving, rolls back on any exception.

        Raises ``DatabaseGone`` (nothing happened, or it is unknown whether the commit did)
        and ``Conflict`` (nothing happened).
        """
        with _translated(), self._engine.begin() as connection:
            yield Transaction(connection)

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Read only, from one consistent state, without waiting for writers."""
        with _translated(), self._reader.begin() as connection:
            yield Transaction(connection)

    def connections(self) -> Connections:
        """How many connections are open at this moment."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return Connections(0, 0)
        return Connections(pool.checkedout(), pool.checkedin())

    def ping(self) -> None:
        """Ask it for an answer. Raises ``DatabaseGone``."""
        with _translated(), self._reader.begin() as connection:
            connection.execute(_PING)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _existing(url: str, busy_timeout_ms: int) -> Engine:
    """The engine of a database that must be there."""
    parsed = _parse(url)
    path = _sqlite_path(parsed)
    if path is not None and not path.is_file():
        raise DatabaseMissing("there is no database file at this path")
    return _engine(parsed, busy_timeout_ms)


@contextmanager
def _translated() -> Iterator[None]:
    """Driver errors as typed ones. Only the driver's class is shown: its text may quote rows."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("the database refused a row that contradicts another") from error
    except DBAPIError as error:
        raise DatabaseGone("the database failed", got=type(error.orig).__name__) from error
    except PoolExhausted as error:
        raise DatabaseGone("no connection to the database became free") from error


@contextmanager
def _new_file(path: Path | None) -> Iterator[None]:
    """An empty file for SQLite, its owner's alone from the start; gone again on failure.

    SQLite gives its write-ahead log the same mode.
    """
    if path is None:
        yield
        return
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise DatabaseExists("there is a file at the database's path already") from error
    except OSError as error:
        raise DatabaseGone("the database file cannot be made", got=error.strerror) from error
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UsageError("not a database URL", expected=_URL_SHAPE) from error


def _sqlite_path(url: URL) -> Path | None:
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(url.database) if is_file and url.database else None


def _engine(url: URL, busy_timeout_ms: int) -> Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        # hide_parameters: ciphertext and tokens must not reach a traceback.
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=not is_sqlite)
    except ArgumentError as error:
        raise UsageError("no such kind of database", expected=_URL_SHAPE) from error
    except ImportError as error:
        raise DriverMissing("the database's driver is not installed", got=error.name) from error
    if is_sqlite:
        event.listen(engine, "connect", _sqlite_setup(busy_timeout_ms))
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite_setup(busy_timeout_ms: int) -> Callable[[DBAPIConnection, ConnectionPoolEntry], None]:
    def configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we send BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (*_SQLITE_PRAGMAS, f"PRAGMA busy_timeout={busy_timeout_ms}"):
            cursor.execute(pragma)
        cursor.close()

    return configure


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    memory = connection.info  # of this pooled connection
    if memory.get(_READ_ONLY) != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only={int(read_only)}")
        memory[_READ_ONLY] = read_only
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
