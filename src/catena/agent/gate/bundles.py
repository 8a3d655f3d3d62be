"""Checked configurations that the real runtime gets, and what was decided about who lives with them.

Each container has a folder of its own below ``runtime_dir/bundles``, with a random name and root's
only: ``config.json``, exactly what was checked, and ``held.json``, what a gate that starts later must know.
The runtime is pointed at this folder, so whoever may write to the caller's bundle changes nothing any
more. ``runtime_dir/processes`` holds documents of ``exec`` in the same way, until they are read.

A container is over when the process that created it has ended and the runtime keeps no state of it; then,
and not when somebody asks for its deletion, its exit is recorded and its folder removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from catena.errors import CatenaError, Refusal, Unavailable
from catena.formats.containerlog import Create

_CONFIG = "config.json"
_HELD = "held.json"
_STALE_SECONDS = 120.0


class UnknownContainer(Refusal):
    """A container that was not created through this gate."""

    code = "unknown-container"
    remedy = "Start the container again: only what the gate has checked can be entered."


class ContainerExists(Refusal):
    """A container of this name is there already."""

    code = "container-exists"
    remedy = "Delete the container first, or choose another name."


class BundleUnwritable(Unavailable):
    """The gate's own folder does not take what it must hold."""

    code = "gate-folder-unwritable"
    remedy = "Make `runtime_dir` a folder on a tmpfs with space that belongs to root, mode 0700."


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is remembered of one container. ``root`` is the real runtime's state folder.

    ``pid`` and ``started`` (clock ticks since boot) name the process that creates it.
    """

    root: str
    pid: int
    started: int
    event: Create

    @property
    def in_creation(self) -> bool:
        """Whether the process that creates it, or runs it in the foreground, still runs."""
        return self.started != 0 and started(self.pid) == self.started

    @property
    def lives(self) -> bool:
        """Whether the runtime keeps state of the container, or is still creating it."""
        return self.in_creation or (Path(self.root) / self.event.container).exists()


@dataclass(slots=True)
class Bundles:
    """The folders below ``folder`` and what they belong to.

    ``_lock`` guards the map alone; ``_settling`` is held while an exit is recorded, so that each is
    recorded once. ``exited`` is told of each container that is over, and may raise
    ``CatenaError``: then it will be told again.
    """

    folder: Path
    exited: Callable[[str], None]
    _held: dict[str, tuple[Path, Held]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _settling: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self) -> None:
        """Make the folders and learn what an earlier gate left. Raises ``BundleUnwritable``."""
        try:
            for part in (self.folder, self._bundles, self._processes):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
                part.chmod(0o700)
        except OSError as error:
            raise BundleUnwritable(f"cannot use {self.folder}", got=error.strerror) from error
        for place in self._bundles.iterdir():
            self._learn(place)
        self.sweep()

    def claim(self, held: Held, config: bytes) -> Path:
        """A folder with ``config.json`` for a new container. Raises ``ContainerExists``."""
        container = held.event.container
        self.settle(container)
        place = self._bundles / secrets.token_hex(16)
        with self._lock:
            if container in self._held:
                raise ContainerExists("the container exists already", got=ascii(container[:64]))
            self._held[container] = (place, held)
        try:
            place.mkdir(mode=0o700)
            _write(place / _HELD, msgspec.json.encode(held))
            _write(place / _CONFIG, config)
        except OSError as error:
            self.drop(container)
            raise BundleUnwritable(f"cannot write {place}", got=error.strerror) from error
        return place

    def process(self, document: bytes) -> Path:
        """A file with a process document. Raises ``BundleUnwritable``."""
        place = self._processes / secrets.token_hex(16)
        try:
            _write(place, document)
        except OSError as error:
            raise BundleUnwritable(f"cannot write {place}", got=error.strerror) from error
        return place

    def find(self, container: str, root: str) -> Create:
        """What was decided when the container was created. Raises ``UnknownContainer``."""
        with self._lock:
            _, held = self._held.get(container, (None, None))
        if held is None or held.root != root or not held.lives:
            raise UnknownContainer(
                "the container was not created through the gate", got=ascii(container[:64])
            )
        return held.event

    def config(self, container: str) -> bytes:
        """The checked configuration of a container. Raises ``UnknownContainer``."""
        with self._lock:
            place, _ = self._held.get(container, (None, None))
        if place is not None:
            with contextlib.suppress(OSError):
                return (place / _CONFIG).read_bytes()
        raise UnknownContainer("the container is gone", got=ascii(container[:64]))

    def drop(self, container: str) -> None:
        """Forget a container and remove its folder."""
        with self._lock:
            place, _ = self._held.pop(container, (None, None))
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)

    def settle(self, container: str) -> None:
        """If the container is over, record that and remove what it had."""
        if self._lives_or_is_unknown(container):
            return
        with self._settling:
            if self._lives_or_is_unknown(container):  # it was settled, and perhaps made again
                return
            with contextlib.suppress(CatenaError):  # it stays, and will be tried again
                self.exited(container)
                self.drop(container)

    def _lives_or_is_unknown(self, container: str) -> bool:
        with self._lock:
            _, held = self._held.get(container, (None, None))
        return held is None or held.lives

    def sweep(self) -> None:
        """Settle every container, and remove process documents that nobody reads any more."""
        with self._lock:
            containers = list(self._held)
        for container in containers:
            self.settle(container)
        for place in self._processes.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - place.stat().st_mtime > _STALE_SECONDS:
                    place.unlink()

    @property
    def in_creation(self) -> dict[str, int]:
        """Containers by name, with the process that creates each, as long as it runs."""
        with self._lock:
            held = [one for _, one in self._held.values()]
        return {one.event.container: one.pid for one in held if one.in_creation}

    @property
    def _bundles(self) -> Path:
        return self.folder / "bundles"

    @property
    def _processes(self) -> Path:
        return self.folder / "processes"

    def _learn(self, place: Path) -> None:
        """Take over one folder; one that was not finished never got an answer."""
        try:
            held = msgspec.json.decode((place / _HELD).read_bytes(), type=Held)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            shutil.rmtree(place, ignore_errors=True)
            return
        self._held[held.event.container] = (place, held)


def started(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), field 22); 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = text.rpartition(b")")[2].split()
    return 0 if fields[0] in {b"Z", b"X"} else int(fields[19])


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
