"""Collecting cosignatures under the log's checkpoints, behind the server's back.

After each commit, and again while witnesses are missing, all of them are asked at the same time for
the checkpoint of that moment. Once a quorum stands under it, it is put in place of the one that
was cosigned before, as ``checkpoint.cosigned`` in the server's folder. The log does not wait:
what lags is that file, and ``status`` says by how much and whose fault it is.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned, growth
from catena.audit.cosigned import Cosigned, WitnessAddress, WitnessPolicy
from catena.audit.folder import MAX_CHECKPOINT, replace_file
from catena.audit.hashes import TileUnavailable
from catena.audit.reader import LogReader
from catena.audit.tiles import CHECKPOINT
from catena.errors import CatenaError, LogInconsistent, NotFound
from catena.formats import note
from catena.formats.note import Note, NoteSignature
from catena.keys.signer import PublicKey
from catena.server.access import FaultLine, Write, timestamp, write_line
from catena.server.witness_client import (
    Asked,
    WitnessAhead,
    WitnessClient,
    WitnessUnreachable,
)
from catena.service.nodes import rfc3339
from catena.service.views import CosigningReport, WitnessReport

COSIGNED = "checkpoint.cosigned"
PAUSE = 1.0
"""Seconds at least between two rounds: a busy log's commits share one."""
LOOK = 2.0
"""Seconds after which the checkpoint is read again, whether or not an append was told of."""
RETRY = 15.0
"""Seconds until witnesses that failed are asked again."""
ROUND = 20.0
"""Seconds that a round waits for its quorum."""
GRACE = 2.0
"""Seconds that it then still waits for the others; later answers count as soon as they come."""
_PROOF_ATTEMPTS = 3


class NotCosigned(NotFound):
    """No checkpoint has a quorum of cosignatures yet."""

    code = "not-cosigned"
    remedy = "Try again later; `catena audit witness status` says which are missing, and why."


class Collector:
    """Asks the witnesses, keeps what has a quorum. ``wake`` and ``status`` are for any thread."""

    def __init__(
        self,
        reader: LogReader,
        key: PublicKey,
        addresses: Sequence[WitnessAddress],
        quorum: int,
        folder: Path,
        *,
        now: Callable[[], int],
        write: Write,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reader = reader
        self._key = key
        self._policy = WitnessPolicy(tuple(one.key for one in addresses), quorum)
        self._path = folder / COSIGNED
        self._now = now
        self._write = write
        self._clients = {one.key.name: WitnessClient(one, tls) for one in addresses}
        self._keeping = threading.Lock()  # for a whole comparison and replacement of the file
        self._lock = threading.Condition()  # guards what follows; told of each answer
        self._reports = {
            one.key.name: WitnessReport(name=one.key.name, url=one.url) for one in addresses
        }
        self._busy: set[str] = set()
        self._text = ""  # what the lines below it sign
        self._lines: dict[str, NoteSignature] = {}
        self._log_size = 0
        self._content, self._current = self._load()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cosigning", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._woken.set()
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a request that is under way ends by itself."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(GRACE)
        with self._lock:
            idle = [client for name, client in self._clients.items() if name not in self._busy]
        for client in idle:
            client.close()

    def wake(self) -> None:
        """The log has grown."""
        self._woken.set()

    def content(self) -> bytes:
        """The newest checkpoint with a quorum. Raises ``NotCosigned``."""
        with self._lock:
            if self._content is None:
                raise NotCosigned("no checkpoint of this log has its quorum of cosignatures yet")
            return self._content

    def status(self) -> CosigningReport:
        """How far it lags, and why."""
        with self._lock:
            current = self._current
            times = sorted((one.time for one in current.cosigners), reverse=True) if current else []
            return CosigningReport(
                quorum=self._policy.quorum,
                log_size=self._log_size,
                cosigned_size=current.checkpoint.size if current else None,
                cosigned_at=rfc3339(datetime.fromtimestamp(times[self._policy.quorum - 1], UTC))
                if times
                else None,
                witnesses=tuple(self._reports.values()),
            )

    def round(self) -> bool:
        """Ask everybody about the checkpoint of this moment; True if all have cosigned it.

        Raises what reading the log raises.
        """
        content = self._reader.read(CHECKPOINT, MAX_CHECKPOINT)
        if content is None:
            return False
        checkpoint = checkpoints.verify(content, self._key)
        signed = note.parse(content)
        with self._lock:
            if signed.text != self._text:
                self._text, self._lines = signed.text, {}
            self._log_size = checkpoint.size
            missing = [
                name for name in self._clients if name not in self._lines and name not in self._busy
            ]
            self._busy.update(missing)
        asked = Asked(signed, checkpoint, lambda old: self._prove(old, checkpoint.size))
        for name in missing:
            threading.Thread(target=self._ask, args=(name, asked), daemon=True).start()
        with self._lock:
            self._await(missing)
            return len(self._lines) == len(self._clients)

    def _run(self) -> None:
        complete = False
        while not self._stopping.is_set():
            # Looked at anyway: what was appended may be published a moment after it was told of.
            self._woken.wait(LOOK if complete else RETRY)
            self._woken.clear()
            if self._stopping.is_set():
                return
            try:
                complete = self.round()
            except Exception as error:  # noqa: BLE001 - it must go on, and all is written down
                complete = False
                self._note_failure(error)
            self._stopping.wait(PAUSE)

    def _await(self, names: Sequence[str]) -> None:
        """Wait for answers, not for ever; a slow witness must not hold the next round up."""
        end = time.monotonic() + ROUND
        while self._busy.intersection(names):
            if len(self._lines) >= self._policy.quorum:
                end = min(end, time.monotonic() + GRACE)
            if not self._lock.wait(end - time.monotonic()):
                return

    def _ask(self, name: str, asked: Asked) -> None:
        """One witness, in a thread of its own: its line, or what is wrong with it."""
        line: NoteSignature | None = None
        problem: CatenaError | None = WitnessUnreachable("the request was given up")
        try:
            line, problem = self._clients[name].cosign(asked, self._now()), None
        except WitnessAhead as error:
            problem = error if self._log_size_now() < error.size else None
        except CatenaError as error:
            problem = error
        finally:
            self._settle(name, asked, line, problem)
            with self._lock:
                self._busy.discard(name)
                self._lock.notify_all()

    def _prove(self, old: int, new: int) -> tuple[bytes, ...]:
        """A proof of growth, made while the log grows on and drops older partial tiles."""
        for _ in range(_PROOF_ATTEMPTS - 1):
            with contextlib.suppress(TileUnavailable):
                return growth.prove_growth(self._reader, old, new, self._log_size_now())
        return growth.prove_growth(self._reader, old, new, self._log_size_now())

    def _log_size_now(self) -> int:
        """The log's size, which another server may have moved on meanwhile."""
        content = self._reader.read(CHECKPOINT, MAX_CHECKPOINT)
        return checkpoints.verify(content, self._key).size if content else 0

    def _settle(
        self, name: str, asked: Asked, line: NoteSignature | None, problem: CatenaError | None
    ) -> None:
        with self._lock:
            before = self._reports[name]
            if line is not None and asked.signed.text == self._text:
                self._lines[name] = line
            self._reports[name] = msgspec.structs.replace(
                before,
                size=asked.checkpoint.size if line else before.size,
                code=problem.code if problem else None,
                problem=str(problem)[:500] if problem else None,
            )
        if line is not None:
            self._publish(asked.signed)
        elif problem is None:
            self.wake()  # the log grew past what was asked for
        # A witness that saw another log is told of each time; one that is away, once.
        if problem and (before.code != problem.code or isinstance(problem, LogInconsistent)):
            self._note(problem.code, f"witness {name!a}: {problem}")

    def _publish(self, signed: Note) -> None:
        """Put this checkpoint in the last one's place, if its quorum stands under it."""
        with self._keeping:
            with self._lock:
                lines = tuple(self._lines.values()) if signed.text == self._text else ()
            if len(lines) < self._policy.quorum:
                return
            try:
                self._keep(Note(signed.text, (*signed.signatures, *lines)).encode().encode())
            except (CatenaError, OSError) as error:
                self._note_failure(error)

    def _keep(self, content: bytes) -> None:
        """Write the cosigned checkpoint, unless the one there is says more."""
        found = cosigned.verify_cosigned(content, self._key, self._policy, now=self._now())
        if self._current is not None and _weight(self._current) >= _weight(found):
            return
        replace_file(self._path, content)
        with self._lock:
            self._content, self._current = content, found

    def _load(self) -> tuple[bytes | None, Cosigned | None]:
        """The file of an earlier run, if it satisfies the policy of this one."""
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_CHECKPOINT)
            found = cosigned.verify_cosigned(content, self._key, self._policy, now=self._now())
        except FileNotFoundError:
            return None, None
        except (CatenaError, OSError) as error:
            self._note_failure(error)
            return None, None
        return content, found

    def _note_failure(self, error: Exception) -> None:
        if isinstance(error, CatenaError):
            self._note(error.code, f"{COSIGNED}: {error}")
        else:
            self._note("cosigning-failed", f"{COSIGNED}: {type(error).__name__}: {error}")

    def _note(self, code: str, detail: str) -> None:
        write_line(self._write, FaultLine(at=timestamp(), code=code, detail=detail[:2000]))


def _weight(found: Cosigned) -> tuple[int, int]:
    """A larger tree says more; of one size, more witnesses do."""
    return found.checkpoint.size, len(found.cosigners)
