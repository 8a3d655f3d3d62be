"""Where the logs of tests lie, by a description that other processes can be given."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from audit_samples import ORIGIN

from catena.audit.database import DatabaseSequencer, DatabaseStorage
from catena.audit.folder import LogFolder
from catena.audit.log import TransparencyLog
from catena.audit.writeahead import WriteAhead
from catena.server.bucket import Bucket, BucketStorage
from catena.store.database import Database
from ceph import CREDENTIALS, REGION


def place(kind, where):
    """Sequencer, storage and what is to be closed afterwards.

    ``folder PATH``, ``database URL``, ``bucket DATABASE-URL|BUCKET-URL``.
    """
    if kind == "folder":
        folder = LogFolder(Path(where))
        return WriteAhead(folder), folder, ()
    url, _, bucket = where.partition("|")
    database = Database.open(url)
    if kind == "bucket":
        storage = BucketStorage(
            Bucket.parse(bucket), CREDENTIALS, region=REGION, now=lambda: datetime.now(UTC)
        )
        return DatabaseSequencer(database, ORIGIN), storage, (storage, database)
    return DatabaseSequencer(database, ORIGIN), DatabaseStorage(database, ORIGIN), (database,)


def create(kind, where, signer):
    if kind != "folder":
        Database.create(where.split("|")[0]).close()
    sequencer, storage, open_things = place(kind, where)
    TransparencyLog.create_at(sequencer, storage, ORIGIN, signer).close()
    for thing in open_things:
        thing.close()


class OpenLog:
    """A log that is opened and closed with everything it needs."""

    def __init__(self, kind, where, signer, remembered=None):
        sequencer, self.storage, self._open = place(kind, where)
        if kind == "folder":
            self.log = TransparencyLog.open(Path(where), signer, remembered=remembered)
        else:
            self.log = TransparencyLog.open_at(
                sequencer, self.storage, signer, remembered=remembered
            )

    def __enter__(self):
        return self.log

    def __exit__(self, *_):
        self.log.close()
        for thing in self._open:
            thing.close()


def copy(kind, where, folder):
    """What readers see of a log, as a folder."""
    _, storage, open_things = place(kind, where)
    for name in storage.files():
        if name.startswith(("tile/", "checkpoint")):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read(name, 20_000_000))
    for thing in open_things:
        thing.close()
    return folder
