"""Child processes that cannot outlive the lab.

When the lab dies, even by SIGKILL, the kernel ends its children. A child that dies by itself
is an error with its last words, found by ``check``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from catena.errors import Unavailable
from catena.osimage.tool import die_with

_GRACE = 5.0
_LAST_WORDS = 600


class ChildDied(Unavailable):
    """A process the lab depends on ended by itself."""

    code = "child-died"
    remedy = "Its last words are in the message; bring the lab down and up again."


class Child:
    """One running program; ``log`` receives its output."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._began = output.tell()
            self._process = subprocess.Popen(  # noqa: S603 - arguments are ours, no shell
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - only calls prctl
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it ended (as ``subprocess`` counts, signals are negative); None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.status is None

    def check(self) -> None:
        """Raise ``ChildDied`` with the last words if it ended."""
        status = self.status
        if status is not None:
            ended = f"{self.name} ended: {self._last_words() or 'without a word'}"
            raise ChildDied(ended, got=_told(status))

    def _last_words(self) -> str:
        """The end of what this child, and none before it, wrote to the log; one line."""
        with self.log.open("rb") as log:
            log.seek(self._began)
            said = log.read()[-_LAST_WORDS:]
        return " ".join(said.decode(errors="replace").split())

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL; returns when it is gone."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        """The child itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, whatever happened."""
        self.stop()


def catena_command(*words: str | Path) -> list[str]:
    """The command line that runs this very catena, whatever is on the path."""
    return [sys.executable, "-m", "catena.cli.main", *map(str, words)]


def _told(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name
