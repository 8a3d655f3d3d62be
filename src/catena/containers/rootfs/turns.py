"""Work that many ask for at once is done once for all of them, but never answered from the past.

A caller gets the result of a turn that *began* after the call: a walk that was already under way
may have passed a file that was changed since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Line(Generic[T]):
    """Who waits for the same work."""

    callers: int = 0
    running: bool = False
    started: int = 0
    finished: int = 0
    result: T | None = None


class Turns(Generic[T]):
    """Callers that wait for the same key share a turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        """Guards the lines; never held during the work."""
        self._lines: dict[Hashable, _Line[T]] = {}

    def take(self, key: Hashable, work: Callable[[], T]) -> T:
        """The result of ``work`` in a turn that begins after this call. If it raises, that is the
        error of the caller whose turn it was; the others try themselves.
        """
        with self._changed:
            line = self._lines.setdefault(key, _Line())
            line.callers += 1
            wanted = line.started + 1
        try:
            return self._wait(line, wanted, work)
        finally:
            with self._changed:
                line.callers -= 1
                if not line.callers:
                    self._lines.pop(key, None)

    def _wait(self, line: _Line[T], wanted: int, work: Callable[[], T]) -> T:
        with self._changed:
            while line.running and line.finished < wanted:
                self._changed.wait()
            if line.finished >= wanted and line.result is not None:
                return line.result
            line.running = True
            line.started += 1
            turn = line.started
        result: T | None = None
        try:
            result = work()
        finally:
            with self._changed:
                line.running = False
                if result is not None:
                    line.finished, line.result = turn, result
                self._changed.notify_all()
        return result
