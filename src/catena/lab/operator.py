"""The lab's operator: runs the same ``catena`` commands a person would type.

Nothing here has a way in that a user has not: every step is a command line whose JSON is
read back. ``Operator.history`` keeps the commands, so that they can be shown.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from catena.errors import CatenaError, ExitCode, Unavailable
from catena.lab.process import catena_command
from catena.osimage.tool import complete

_SECONDS = 300.0
_LAST_WORDS = 600


class CommandRefused(CatenaError):
    """A ``catena`` command ended with an error; message, code and remedy are its own."""

    code = "command-refused"

    def __init__(self, words: Sequence[str], status: int, error: dict[str, Any]) -> None:
        message = str(error.get("message", "the command failed without a message"))
        super().__init__(
            f"`{shown(words)}`: {message}", expected=error.get("expected"), got=error.get("got")
        )
        self.said = message
        self.status = status
        # This error stands for another one, which only the command itself could raise.
        self.code = str(error.get("code", type(self).code))  # type: ignore[misc]
        self.remedy = str(error.get("remedy", ""))  # type: ignore[misc]
        if status in list(ExitCode):
            self.exit_code = ExitCode(status)  # type: ignore[misc]


class CommandStuck(Unavailable):
    """A ``catena`` command did not end in time, and was ended."""

    code = "command-stuck"
    remedy = "Run the command by itself to see where it waits."


class Operator:
    """Runs commands against one server folder; ``profile`` is what ``server init`` wrote."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self.history: list[str] = []

    def run(
        self,
        *words: str | Path,
        stdin: bytes | None = None,
        seconds: float = _SECONDS,
    ) -> Any:  # noqa: ANN401 - a command's JSON document, whatever it is
        """Run ``catena WORDS -o json`` and return the document.

        Raises ``CommandRefused`` or ``CommandStuck``.
        """
        line = [str(word) for word in words]
        self.history.append(shown(line))
        try:
            done = complete(
                [*catena_command(*line), "-o", "json"],
                content=stdin or b"",
                environment={**os.environ, "CATENA_PROFILE": str(self._profile)},
                seconds=seconds,
                # Asked, not killed, when we are: it has half-made folders to remove.
                on_our_death=signal.SIGTERM,
            )
        except subprocess.TimeoutExpired as late:
            raise CommandStuck(f"`{shown(line)}` took longer than {seconds:.0f} s") from late
        document = _document(done)
        error = document.get("error") if isinstance(document, dict) else None
        if done.returncode != ExitCode.OK or error is not None:
            raise CommandRefused(line, done.returncode, error or {})
        return document


def _document(done: subprocess.CompletedProcess[bytes]) -> Any:  # noqa: ANN401 - as ``run``
    try:
        return msgspec.json.decode(done.stdout)
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip()[-_LAST_WORDS:]
        return {"error": {"message": said or "no JSON document on its output"}}


def shown(words: Sequence[str]) -> str:
    """A command line as a person would type it, paths made short."""
    here = f"{Path.cwd()}{os.sep}"
    return shlex.join(["catena", *(word.removeprefix(here) for word in words)])
