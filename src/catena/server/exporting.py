"""Exporting entries as they are appended: one thread for each receiver, behind the server's back.

An exporter reads the log's own files from its cursor, the index of the entry that is next, which lies
in ``exports/`` of the server's folder. The cursor moves only after a receiver took a batch, so each
entry is sent at least once and in order, whatever restarts or fails; after a crash in between,
some are sent again. A decision never waits for a receiver.

Each entry is signed by the log's key, and so is the checkpoint that says how many there are. That entries
were only appended is not proven here: the log verifies itself when it is opened, others follow it.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit.folder import replace_file, sync_folder
from catena.audit.hashes import read_bundle, read_checkpoint
from catena.audit.leaf import open_entry
from catena.audit.reader import LogReader
from catena.audit.tiles import TILE_WIDTH
from catena.errors import CatenaError, LogInconsistent, Unavailable
from catena.keys.signer import PublicKey
from catena.server.access import FaultLine, Write, timestamp, write_line
from catena.server.export_send import Sender, sender_for
from catena.server.export_target import ExportTarget
from catena.server.exported import Exported
from catena.service.views import ExportReport, ExportsReport

FOLDER = "exports"
LOOK = 2.0
"""Seconds after which the log is read again, whether or not an append was told of."""
BACK_OFF = 60.0
"""Seconds at most between two attempts; the first pause is ``FIRST_PAUSE``, each is twice the last."""
FIRST_PAUSE = 0.5
GRACE = 2.0
"""Seconds that stopping waits for what is being sent."""
_MAX_CURSOR = 4096


class ExportAhead(LogInconsistent):
    """More entries were exported than the log has."""

    code = "export-ahead"
    remedy = "The log is older than what was exported: find out who replaced it before you go on."


class CursorUnusable(Unavailable):
    """A cursor that cannot be read or written, or is another target's."""

    code = "export-cursor-unusable"
    remedy = (
        "Check `exports/` in the server's folder; without the cursor all entries are sent again."
    )


class _Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    target: str
    origin: str
    next: int


class Cursor:
    """The durable index of the entry that a target gets next."""

    def __init__(self, folder: Path, target: ExportTarget, origin: str) -> None:
        self._target = str(target)
        self._origin = origin
        name = sha256(f"{origin}\n{target}".encode()).hexdigest()[:32]
        self._path = folder / FOLDER / f"{name}.json"

    def load(self) -> int:
        """The index, 0 if nothing was exported yet. Raises ``CursorUnusable``."""
        try:
            with self._path.open("rb") as file:
                found = msgspec.json.decode(file.read(_MAX_CURSOR), type=_Cursor)
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.DecodeError) as error:
            raise CursorUnusable("the cursor cannot be read", got=self._path.name) from error
        if (found.target, found.origin) != (self._target, self._origin) or found.next < 0:
            raise CursorUnusable("the cursor is not this target's", got=self._path.name)
        return found.next

    def save(self, following: int) -> None:
        """Move on; durable when this returns. Raises ``CursorUnusable``."""
        content = _Cursor(target=self._target, origin=self._origin, next=following)
        try:
            if not self._path.parent.is_dir():
                self._path.parent.mkdir(mode=0o700)
                sync_folder(self._path.parent.parent)
            replace_file(self._path, msgspec.json.encode(content))
        except OSError as error:
            raise CursorUnusable(f"the cursor cannot be written: {error.strerror}") from error


class Exporter:
    """One receiver's thread. ``wake`` and ``report`` are for any thread."""

    def __init__(
        self,
        target: ExportTarget,
        sender: Sender,
        cursor: Cursor,
        *,
        reader: LogReader,
        key: PublicKey,
        write: Write,
    ) -> None:
        self._target = str(target)
        self._sender = sender
        self._cursor = cursor
        self._reader = reader
        self._key = key
        self._write = write
        self._next: int | None = None  # known once the cursor was read
        self._failures = 0
        self._report = ExportReport(target=self._target)
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exporting", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send no further batch."""
        self._stopping.set()
        self._woken.set()

    def join(self, seconds: float) -> None:
        """Wait for the batch that is being sent."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def wake(self) -> None:
        """The log has grown."""
        self._woken.set()

    def report(self) -> ExportReport:
        """How far it is, and what went wrong last."""
        return self._report

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                if self._attempt():
                    self._woken.wait(LOOK)
                else:  # appends do not hurry a receiver that fails
                    pause = FIRST_PAUSE * 2 ** min(self._failures - 1, 16)
                    self._stopping.wait(min(pause, BACK_OFF))
        finally:
            self._sender.close()

    def _attempt(self) -> bool:
        try:
            self._catch_up()
        except Exception as error:  # noqa: BLE001  a thread that dies silently exports nothing
            self._fail(error)
            return False
        self._failures = 0
        self._report = msgspec.structs.replace(self._report, code=None, problem=None)
        return True

    def _catch_up(self) -> None:
        if self._next is None:
            self._next = self._cursor.load()
        size = checkpoints.verify(read_checkpoint(self._reader), self._key).size
        if self._next > size:
            expected, got = f"at least {self._next} entries", f"{size}"
            raise ExportAhead("the log is smaller than its export", expected=expected, got=got)
        # What went wrong last is told of until a batch is taken.
        self._report = msgspec.structs.replace(self._report, exported=self._next, log_size=size)
        while self._next < size and not self._stopping.is_set():
            for batch in self._batches(self._next, size):
                if self._stopping.is_set():
                    return
                self._sender.send(batch)
                self._cursor.save(batch[-1].index + 1)
                self._next = batch[-1].index + 1
                self._report = ExportReport(target=self._target, exported=self._next, log_size=size)

    def _batches(self, start: int, size: int) -> list[list[Exported]]:
        """What is left of one bundle, verified, in batches."""
        index, skipped = divmod(start, TILE_WIDTH)
        leaves = read_bundle(self._reader, index, size)[skipped:]
        entries = [
            Exported(number, leaf, open_entry(leaf, self._key))
            for number, leaf in enumerate(leaves, start)
        ]
        width = self._sender.batch
        return [entries[at : at + width] for at in range(0, len(entries), width)]

    def _fail(self, error: Exception) -> None:
        known = isinstance(error, CatenaError)
        code = error.code if isinstance(error, CatenaError) else "internal"
        problem = str(error) if known else type(error).__name__
        if self._failures == 0 or self._report.code != code:
            detail = f"export to {self._target}: {problem}"
            write_line(self._write, FaultLine(at=timestamp(), code=code, detail=detail))
        self._failures += 1
        self._report = msgspec.structs.replace(self._report, code=code, problem=problem)


class Exporters:
    """All receivers of a log."""

    def __init__(
        self,
        reader: LogReader,
        key: PublicKey,
        targets: Sequence[ExportTarget],
        *,
        origin: str,
        name: str,
        folder: Path,
        write: Write,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._all = tuple(
            Exporter(
                target,
                sender_for(target, origin, name, folder, tls),
                Cursor(folder, target, origin),
                reader=reader,
                key=key,
                write=write,
            )
            for target in targets
        )

    def start(self) -> None:
        """Begin to send."""
        self._each(Exporter.start)

    def stop(self) -> None:
        """Send no more; a batch that is under way for longer is sent again after a restart."""
        self._each(Exporter.ask_to_stop)
        for exporter in self._all:
            exporter.join(GRACE)

    def wake(self) -> None:
        """The log has grown."""
        self._each(Exporter.wake)

    def status(self) -> ExportsReport:
        """How far each is."""
        return ExportsReport(exports=tuple(one.report() for one in self._all))

    def _each(self, act: Callable[[Exporter], None]) -> None:
        for exporter in self._all:
            act(exporter)
