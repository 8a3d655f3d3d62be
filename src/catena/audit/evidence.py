"""The evidence store: what entries name by digest, kept beside the log under that digest.

::

    evidence/3f/3fa9…          the bytes whose SHA-256 this is: logs, policies, references
    evidence/packs/pack-…      evidence, which never comes twice, and keys (``evidencepack``)

A file appears under its name complete and durable, or not at all, before the entry that names it
is appended; so does what is put into a pack. Equal content is kept once, but for evidence and what is
small, which every pack has again: a key of 120 bytes is not worth a file and two waits for the disk.
Whoever reads checks the digest, so the store needs no trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from catena.audit.evidencepack import PackReader, PackWriter
from catena.audit.folder import sync_folder
from catena.errors import LogInconsistent, NotFound, Unavailable

FOLDER = "evidence"
PACKS = "packs"
MAX_CONTENT = 32 * 1024 * 1024
"""Bytes of one content; a log of a node has at most ``catena.evidence.MAX_LOG``."""
SMALL = 512
"""Bytes up to which a content goes into a pack."""
MOST_PACKED = 250_000
"""Small contents of the open pack whose digests are remembered: more than a fleet has keys."""
_FAN = 2
_HEX = frozenset("0123456789abcdef")
_NOTHING: Mapping[str, bytes] = MappingProxyType({})


class EvidenceUnwritable(Unavailable):
    """Evidence could not be kept, so nothing was decided."""

    code = "evidence-unwritable"
    remedy = "Give the evidence folder's disk space and make it writable."


class EvidenceMissing(NotFound):
    """The store does not hold what an entry names."""

    code = "evidence-missing"
    remedy = "Give the evidence folder that belongs to this log with --evidence."


class EvidenceAltered(LogInconsistent):
    """A content that does not have the digest it is kept under."""

    code = "evidence-altered"
    remedy = "Somebody changed the evidence. Compare it with another copy."


class EvidenceStore:
    """Contents under their SHA-256, below ``path``. Safe to share between threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[Path] = set()  # folders that exist, with their names on disk
        self._lock = threading.Lock()  # guards the three below
        self._packed: set[str] = set()  # what is small, and in the open pack
        self._writer = PackWriter(path / PACKS)
        self._reader = PackReader(path / PACKS)

    def has(self, sha256: str) -> bool:
        """Whether a content of this digest need not be kept again."""
        name = self._name(sha256)
        return sha256 in self._packed or os.path.isfile(name)  # noqa: PTH113 - asked often: no Path is made

    def keep(self, contents: Mapping[str, bytes], once: Mapping[str, bytes] = _NOTHING) -> None:
        """Keep contents under their digests, durably; what is there already is not written again.

        ``once`` is what nobody sends twice, and is not looked for. A content that does not have its digest
        is left out: a node may send one, and is refused for it. Raises ``EvidenceUnwritable``.
        """
        large = {name: one for name, one in contents.items() if len(one) > SMALL}
        try:
            for sha256, content in large.items():
                if not self.has(sha256) and _is_named(content, sha256):
                    self._write(self._file(sha256), content)
            with self._lock:
                self._pack({name: contents[name] for name in contents.keys() - large.keys()}, once)
        except OSError as error:
            raise EvidenceUnwritable("evidence cannot be written", got=error.strerror) from error

    def _pack(self, small: Mapping[str, bytes], once: Mapping[str, bytes]) -> None:
        if self._writer.is_full() or len(self._packed) > MOST_PACKED:
            self._packed.clear()  # the next pack has them again, or this one twice
        new = {
            sha256: content
            for sha256, content in small.items()
            if sha256 not in self._packed and _is_named(content, sha256)
        }
        if new or once:
            self.path.mkdir(mode=0o755, exist_ok=True)
            self._writer.put((*new.items(), *once.items()))
            self._packed.update(new)

    def close(self) -> None:
        """Give the open pack back; whatever is kept next begins another."""
        with self._lock:
            self._packed.clear()
            self._writer.close()

    def read(self, sha256: str) -> bytes:
        """A content, whose digest holds. Raises ``EvidenceMissing``, ``EvidenceAltered``."""
        file = self._file(sha256)
        packed = None
        if not file.exists():
            with contextlib.suppress(OSError), self._lock:
                packed = self._reader.read(sha256)
        if packed is not None:
            return require_digest(packed, sha256)
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as opened:  # noqa: PTH123  a descriptor has no path
                content = opened.read(MAX_CONTENT + 1)
        except OSError as error:
            raise EvidenceMissing("evidence is not there", got=f"sha256 {sha256}") from error
        return require_digest(content, sha256)

    def _file(self, sha256: str) -> Path:
        return Path(self._name(sha256))

    def _name(self, sha256: str) -> str:
        if len(sha256) != hashlib.sha256().digest_size * 2 or set(sha256) - _HEX:
            raise EvidenceMissing("not a digest", got=ascii(sha256[:80]))
        return f"{self.path}/{sha256[:_FAN]}/{sha256}"

    def _write(self, file: Path, content: bytes) -> None:
        for folder in (self.path, file.parent):
            self._make_folder(folder)
        descriptor, name = tempfile.mkstemp(prefix=".", dir=file.parent)
        try:
            with open(descriptor, "wb") as new:  # noqa: PTH123  a descriptor has no path
                new.write(content)
                new.flush()
                os.fchmod(new.fileno(), 0o640)
                os.fsync(new.fileno())
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(file.parent)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known and folder.is_dir():
            return
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        # Also for a folder that was there: the process that made it may have died before.
        sync_folder(folder.parent)
        self._known.add(folder)


def _is_named(content: bytes, sha256: str) -> bool:
    return hashlib.sha256(content).hexdigest() == sha256


def require_digest(content: bytes, sha256: str) -> bytes:
    """The content, if it has this digest. Raises ``EvidenceAltered``."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise EvidenceAltered("evidence does not have its digest", expected=sha256, got=found)
    return content
