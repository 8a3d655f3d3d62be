"""Whether a log is what the database remembers of it, looked at without opening it for writing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from catena.audit import checkpoint as checkpoints
from catena.audit.folder import WRITE_AHEAD, LogFolder
from catena.audit.growth import require_contained
from catena.audit.hashes import TileUnavailable, read_checkpoint
from catena.audit.past import LogRewound
from catena.audit.reader import LogReader
from catena.audit.writeahead import recorded
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey
from catena.server import logplace
from catena.server.config import Config
from catena.server.folder import remembered_log, require_going_on
from catena.store.database import Database

ATTEMPTS = 3
"""A log that grows meanwhile takes partial tiles away between two reads."""


def check_log(
    folder: Path,
    config: Config,
    key: PublicKey,
    database: Database,
    now: Callable[[], datetime],
) -> Checkpoint:
    """The newest checkpoint that the log has, which contains the one that is remembered.

    Raises ``UnrememberedLog``, ``LogAtItsEnd``, ``LogMissing``, ``CheckpointForged``, ``LogRewound``,
    ``CheckpointNotContained`` and what the place raises.
    """
    state = remembered_log(database, config.log_origin)
    require_going_on(state)
    with database.snapshot() as rows:
        staged = [one.checkpoint for one in rows.log_batches.staged(config.log_origin)]
    past = checkpoints.verify(state.checkpoint.encode(), key, origin=config.log_origin)
    with logplace.reading(folder, config, database, now) as reader:
        for _ in range(ATTEMPTS - 1):
            try:
                return _contained(reader, past, staged, key)
            except TileUnavailable:
                continue
        return _contained(reader, past, staged, key)


def _contained(
    reader: LogReader, past: Checkpoint, staged: list[str], key: PublicKey
) -> Checkpoint:
    published = checkpoints.verify(read_checkpoint(reader), key, origin=past.origin)
    if past.size <= published.size:
        require_contained(reader, past, published.size)
        return published
    # What was committed may not be published yet; opening the log will verify and publish it.
    ahead = recorded(reader.path / WRITE_AHEAD) if isinstance(reader, LogFolder) else ()
    for text in (*staged, *ahead):
        committed = checkpoints.verify(text.encode(), key, origin=past.origin)
        if committed.size >= past.size:
            return committed
    raise LogRewound(
        "the log is older than what the database remembers of it",
        expected=f"at least {past.size} entries",
        got=f"{published.size}",
    )
