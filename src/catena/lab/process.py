"""Child processes that cannot outlive the lab.

Every child gets ``PR_SET_PDEATHSIG``: when the lab dies, even by SIGKILL, the kernel ends the
child. A child that dies by itself is an error with its last words, found by ``check``.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from catena.errors import Unavailable

_PR_SET_PDEATHSIG = 1
_GRACE = 5.0
_LAST_WORDS = 600
# Looked up before any fork: between fork and exec only the call itself may run.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


class ChildDied(Unavailable):
    """A process the lab depends on ended by itself."""

    code = "child-died"
    remedy = "Its last words are in the message; bring the lab down and up again."


def _die_with_parent() -> None:
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """One running program; ``log`` receives its output."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - arguments are ours, no shell
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment) if environment is not None else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - only calls prctl
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise ``ChildDied`` with the last words if it ended."""
        status = self._process.poll()
        if status is None:
            return
        said = self.log.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
        raise ChildDied(f"{self.name} ended: {said or 'without a word'}", got=f"status {status}")

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL; returns when it is gone."""
        if self._process.poll() is None:
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
