"""Boots examined before, so that a node's steady state is not examined again twice a minute.

What is kept follows from digests alone (``appraise.boot``), so it is never wrong, only unused:
after new references, another boot, or a restart. Only boots that a quote has proven get in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from catena.appraise.boot import ExaminedBoot
from catena.evidence import LogEntry

CAPACITY = 4 * 1024 * 1024
"""Bytes of logs whose examination is kept; in memory it takes about ten times as much."""

Manifest = tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An examined boot, its events and its containers as the database keeps them: JSON documents.

    ``containers`` are in the order of ``ExaminedBoot.records``.
    """

    boot: ExaminedBoot
    events: bytes = field(repr=False)
    containers: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Bytes of its logs."""
        return sum(entry.size for entry in self.boot.manifest)


class Memory:
    """The boots examined last, at most ``capacity`` bytes of logs. Shared between threads."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()  # guards the three below
        self._size = 0
        self._boots: OrderedDict[Manifest, Remembered] = OrderedDict()  # last used last
        self._newest: dict[LogEntry, Manifest] = {}  # by the firmware log alone

    def recall(self, manifest: Manifest) -> Remembered | None:
        """The boot with exactly these logs, or one with the same firmware log."""
        with self._lock:
            if manifest not in self._boots:
                found = (self._newest[entry] for entry in manifest if entry in self._newest)
                manifest = next(found, manifest)
            if manifest in self._boots:
                self._boots.move_to_end(manifest)
            return self._boots.get(manifest)

    def keep(self, remembered: Remembered) -> None:
        """Remember a boot, and forget what was not asked for longest."""
        boot = remembered.boot
        with self._lock:
            self._drop(boot.manifest)
            if remembered.size > self._capacity:
                return
            self._boots[boot.manifest] = remembered
            self._newest[boot.entry] = boot.manifest
            self._size += remembered.size
            while self._size > self._capacity:
                self._drop(next(iter(self._boots)))

    def _drop(self, manifest: Manifest) -> None:
        old = self._boots.pop(manifest, None)
        if old is not None:
            self._size -= old.size
            if self._newest.get(old.boot.entry) == manifest:
                del self._newest[old.boot.entry]
