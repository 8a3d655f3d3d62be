"""Putting the wrapper before an engine's runtime, and taking it away again, byte for byte.

Every file that is written is first recorded: its digest before and after, its mode and owner, and
a copy. Undoing compares first. A file that somebody has changed since is left alone, and with it
everything else: half an engine in the old state would start containers past the gate unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from catena.containers.engines import Edit, Engine, edits, new_file, uncovered
from catena.containers.wrapper import files
from catena.errors import FormatError, NotFound, Refusal, UsageError

RECORD = Path("/var/lib/catena/container-install")
FOLDER = Path("/usr/lib/catena")
_LEDGER = "ledger.json"
_EDITED = frozenset({".toml", ".json"})
_OWN_FOLDERS = frozenset({"catena"})


class AlreadyInstalled(UsageError):
    """The engine starts the wrapper already."""

    code = "engine-installed"
    remedy = "Undo it first: `catena container uninstall --runtime ENGINE`."


class NotInstalled(NotFound):
    """The engine was not changed by catena."""

    code = "engine-not-installed"
    remedy = "Nothing needs to be undone for this engine."


class ConfigChanged(Refusal):
    """A file was changed after it was installed; undoing would lose that."""

    code = "engine-config-changed"
    remedy = "Undo the change by hand, or take catena's lines out by hand and delete the record."


class NoRealRuntime(NotFound):
    """The program that the wrapper is to hand over to is missing, or is the wrapper."""

    code = "real-runtime-missing"
    remedy = "Name the real runtime with --real-runc."


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file and the engines that need it.

    ``before`` is the SHA-256 of what it held, which is the name of the copy, or None for no file;
    ``mode``, ``uid`` and ``gid`` are what it had, or gets.
    """

    engines: tuple[str, ...]
    path: str
    before: str | None
    after: str
    mode: int
    uid: int = 0
    gid: int = 0


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All changes that are in force, in the order they were made."""

    changes: tuple[Change, ...] = ()

    def of(self, engine: str) -> tuple[Change, ...]:
        """What an engine needs."""
        return tuple(one for one in self.changes if engine in one.engines)


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. ``uncovered`` says what can still be started past the wrapper."""

    engines: tuple[str, ...]
    wrapper: str
    files: tuple[str, ...]
    uncovered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Installer:
    """Works below ``root``; paths that it writes into files are as seen from there."""

    root: Path = Path("/")
    folder: Path = FOLDER

    def install(
        self,
        engines: tuple[Engine, ...],
        *,
        runtime: Path,
        gate: Path,
    ) -> Installed:
        """Point engines at the wrapper.

        Raises ``AlreadyInstalled``, ``NoRealRuntime``, ``FileTaken``, ``ConfigNotUnderstood``,
        ``UnusablePath`` or ``ClientMissing``; then nothing has been changed.
        """
        ledger = self._ledger()
        for engine in engines:
            if ledger.of(engine):
                raise AlreadyInstalled(f"{engine} starts the wrapper already")
        parts = files.parts(self.folder, runtime=runtime, gate=gate)
        self._check_real(runtime)
        wrapper = self.folder / files.NAME
        contents: dict[Path, bytes] = {}
        missed: list[str] = []
        for engine in engines:
            own = [new_file(path, content, 0o755) for path, content in parts.items()]
            for edit in (*own, *edits(engine, wrapper, parts[wrapper])):
                ledger = self._planned(ledger, engine, edit, contents)
                if edit.path.suffix in _EDITED:
                    missed += uncovered(engine, self._content(edit.path))
        self._keep_copies(contents)
        self._save(ledger)
        for change in ledger.changes:
            if Path(change.path) in contents:
                self._write(change, contents[Path(change.path)])
        return _told(engines, wrapper, contents, missed)

    def uninstall(self, engines: tuple[Engine, ...]) -> Installed:
        """Restore what ``install`` changed. Raises ``NotInstalled`` or ``ConfigChanged``."""
        ledger = self._ledger()
        for engine in engines:
            if not ledger.of(engine):
                raise NotInstalled(f"{engine} was not changed")
        left = {one.path: tuple(sorted({*one.engines} - {*engines})) for one in ledger.changes}
        undone = [one for one in ledger.changes if not left[one.path]]
        for change in undone:
            self._check_unchanged(change)
        for change in reversed(undone):
            self._restore(change)
        kept = (
            msgspec.structs.replace(one, engines=left[one.path])
            for one in ledger.changes
            if left[one.path]
        )
        self._save(Ledger(changes=tuple(kept)))
        wrapper = self.folder / files.NAME
        return _told(engines, wrapper, [Path(one.path) for one in undone], ())

    # Planning -------------------------------------------------------------------------------

    def _planned(
        self, ledger: Ledger, engine: Engine, edit: Edit, contents: dict[Path, bytes]
    ) -> Ledger:
        """The ledger with one more edit; what is to be written goes into ``contents``."""
        known = next((one for one in ledger.changes if one.path == str(edit.path)), None)
        if known is None:
            old = self._content(edit.path)
            contents[edit.path] = edit.make(old)
            change = self._change(engine, edit, old, contents[edit.path])
            return Ledger(changes=(*ledger.changes, change))
        if _sha256(edit.make(None)) != known.after:
            raise AlreadyInstalled(f"{edit.path} was installed with other settings")
        shared = msgspec.structs.replace(known, engines=(*known.engines, engine.value))
        return Ledger(changes=tuple(shared if one is known else one for one in ledger.changes))

    def _change(self, engine: Engine, edit: Edit, old: bytes | None, new: bytes) -> Change:
        change = Change(
            engines=(engine.value,),
            path=str(edit.path),
            before=None if old is None else _sha256(old),
            after=_sha256(new),
            mode=edit.mode,
        )
        if old is None:
            return change
        status = self._place(edit.path).stat()
        return msgspec.structs.replace(
            change, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid
        )

    def _check_real(self, runtime: Path) -> None:
        place = self._place(runtime)
        if not os.access(place, os.X_OK) or not place.is_file():
            raise NoRealRuntime("cannot run the real runtime", got=str(runtime))
        if files.is_wrapper(place.read_bytes()):
            raise NoRealRuntime("the real runtime is the wrapper", got=str(runtime))

    # Files ----------------------------------------------------------------------------------

    def _place(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def _content(self, path: Path) -> bytes | None:
        try:
            return self._place(path).read_bytes()
        except FileNotFoundError:
            return None

    def _keep_copies(self, contents: Iterable[Path]) -> None:
        for path in contents:
            old = self._content(path)
            if old is not None:
                _replace(self._place(RECORD / _sha256(old)), old, 0o600)

    def _write(self, change: Change, content: bytes) -> None:
        _replace(
            self._place(Path(change.path)), content, change.mode, owner=(change.uid, change.gid)
        )

    def _check_unchanged(self, change: Change) -> None:
        """A file is as it was installed, or as it was before (an attempt that was cut short)."""
        content = self._content(Path(change.path))
        found = None if content is None else _sha256(content)
        if found not in {change.before, change.after}:
            raise ConfigChanged(
                f"{change.path} was changed after it was installed",
                expected=change.after[:16],
                got="no file" if found is None else found[:16],
            )
        if change.before is not None and self._content(RECORD / change.before) is None:
            raise ConfigChanged(f"the copy of {change.path} is gone", expected=change.before[:16])

    def _restore(self, change: Change) -> None:
        if change.before is None:
            place = self._place(Path(change.path))
            place.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or not ours
                if place.parent.name in _OWN_FOLDERS:
                    place.parent.rmdir()
            return
        copy = self._content(RECORD / change.before)
        if copy is None or _sha256(copy) != change.before:
            raise ConfigChanged(f"the copy of {change.path} is damaged")
        self._write(change, copy)

    # The ledger -----------------------------------------------------------------------------

    def _ledger(self) -> Ledger:
        data = self._content(RECORD / _LEDGER)
        if data is None:
            return Ledger()
        try:
            return msgspec.json.decode(data, type=Ledger)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{RECORD / _LEDGER} is damaged: {error}") from error

    def _save(self, ledger: Ledger) -> None:
        if ledger.changes:
            text = msgspec.json.format(msgspec.json.encode(ledger), indent=2)
            _replace(self._place(RECORD / _LEDGER), text, 0o600)
        else:
            shutil.rmtree(self._place(RECORD), ignore_errors=True)


def _told(
    engines: Iterable[Engine], wrapper: Path, paths: Iterable[Path], missed: Iterable[str]
) -> Installed:
    return Installed(
        engines=tuple(engine.value for engine in engines),
        wrapper=str(wrapper),
        files=tuple(map(str, paths)),
        uncovered=tuple(missed),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replace(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Put ``content`` there at once, durably: a cut leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            if owner is not None and os.geteuid() == 0:
                os.fchown(stream.fileno(), *owner)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
