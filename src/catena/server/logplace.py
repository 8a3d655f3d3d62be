"""Where the settings say that the audit log lies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from catena.audit.database import DatabaseSequencer, DatabaseStorage
from catena.audit.folder import LogFolder
from catena.audit.log import TransparencyLog
from catena.audit.reader import LogReader
from catena.audit.storage import LogStorage
from catena.formats.sigv4 import Credentials
from catena.keys.signer import Signer, UnusableKey
from catena.server.bucket import Bucket, BucketStorage
from catena.server.config import BadConfig, Config
from catena.server.owned import read_owned
from catena.store.database import Database

DATABASE = "database:"
S3 = "s3+"
_MAX_CREDENTIALS = 4096


def create_log(
    folder: Path,
    config: Config,
    signer: Signer,
    database: Database,
    now: Callable[[], datetime],
) -> TransparencyLog:
    """Begin the log. Raises what ``TransparencyLog.create`` raises, and as ``open_log``."""
    storage = _shared_storage(folder, config, database, now)
    if storage is None:
        return TransparencyLog.create(folder / config.log, config.log_origin, signer)
    sequencer = DatabaseSequencer(database, config.log_origin)
    return TransparencyLog.create_at(sequencer, storage, config.log_origin, signer)


def open_log(
    folder: Path,
    config: Config,
    signer: Signer,
    database: Database,
    now: Callable[[], datetime],
    *,
    remembered: str | None,
    ending: bool = False,
) -> TransparencyLog:
    """The log, which must contain the checkpoint that is ``remembered``.

    ``ending``: to write its last entry, after its state says that another log goes on.

    Raises what ``TransparencyLog.open`` raises, ``BadConfig``, ``BadBucket``,
    ``BucketUnconditional``, and ``MissingKey`` or ``ExposedKey`` for the credentials.
    """
    storage = _shared_storage(folder, config, database, now)
    if storage is None:
        return TransparencyLog.open(folder / config.log, signer, remembered=remembered)
    sequencer = DatabaseSequencer(database, config.log_origin, ending=ending)
    return TransparencyLog.open_at(sequencer, storage, signer, remembered=remembered)


@contextlib.contextmanager
def reading(
    folder: Path, config: Config, database: Database, now: Callable[[], datetime]
) -> Iterator[LogReader]:
    """The log for whoever only reads it. Raises as ``open_log`` does for the place."""
    storage = _shared_storage(folder, config, database, now)
    if storage is None:
        yield LogFolder(folder / config.log)
        return
    try:
        yield storage
    finally:
        storage.close()


def beside(folder: Path, config: Config) -> Path:
    """The local folder for what belongs to the log and does not lie in it."""
    local = config.log != DATABASE and not config.log.startswith(S3)
    return (folder / config.log).parent if local else folder


def _shared_storage(
    folder: Path, config: Config, database: Database, now: Callable[[], datetime]
) -> LogStorage | None:
    """Where several servers may write; None for a folder."""
    if config.log == DATABASE:
        return DatabaseStorage(database, config.log_origin)
    if config.log.startswith(S3):
        storage = BucketStorage(
            Bucket.parse(config.log),
            _credentials(folder, config),
            region=config.log_s3_region,
            now=now,
        )
        try:
            storage.require_conditions()
        except BaseException:
            storage.close()
            raise
        return storage
    if "://" in config.log or config.log.startswith(DATABASE):
        raise BadConfig(
            "not a place for the audit log",
            expected=f"a folder, {DATABASE} or {S3}https://HOST/BUCKET/PREFIX",
            got=ascii(config.log[:80]),
        )
    return None


def _credentials(folder: Path, config: Config) -> Credentials:
    """Two lines. Their content never shows in an error."""
    if config.log_s3_credentials is None:
        raise BadConfig("object storage needs `log_s3_credentials`, a file")
    path = folder / config.log_s3_credentials
    try:
        lines = read_owned(path, _MAX_CREDENTIALS).decode("ascii").splitlines()
    except UnicodeDecodeError:
        lines = []
    if len(lines) != 2 or not all(lines):
        raise UnusableKey(
            f"{path.name} holds no credentials", expected="access key and secret key, a line each"
        )
    return Credentials(*lines)
