"""The lab's operator: runs the same ``catena`` commands a person would type.

Nothing here has a way in that a user has not: every step is a command line whose JSON is
read back. ``Operator.history`` keeps the commands, so that they can be shown.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from catena.errors import CatenaError, ExitCode
from catena.lab.process import catena_command

_SECONDS = 300.0


class CommandRefused(CatenaError):
    """A ``catena`` command ended with an error; message, code and remedy are its own."""

    code = "command-refused"

    def __init__(self, words: Sequence[str], status: int, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message", "the command failed without a message")))
        self.command = shown(words)
        self.status = status
        self.reported = str(error.get("code", ""))
        self.remedy = str(error.get("remedy", ""))  # type: ignore[misc]
        if status in list(ExitCode):
            self.exit_code = ExitCode(status)  # type: ignore[misc]

    def __str__(self) -> str:
        """The command, and what it said."""
        return f"`{self.command}`: {super().__str__()} [{self.reported}]"


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
        """Run ``catena WORDS -o json`` and return the document. Raises ``CommandRefused``."""
        line = [str(word) for word in words]
        self.history.append(shown(line))
        done = subprocess.run(  # noqa: S603 - our own command, no shell
            [*catena_command(*line), "-o", "json"],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "CATENA_PROFILE": str(self._profile)},
        )
        try:
            document = msgspec.json.decode(done.stdout)
        except msgspec.DecodeError:
            said = done.stderr.decode(errors="replace").strip()[-600:]
            document = {"error": {"message": said or "no JSON document on its output"}}
        if done.returncode != ExitCode.OK:
            error = document.get("error", {}) if isinstance(document, dict) else {}
            raise CommandRefused(line, done.returncode, error)
        return document


def shown(words: Sequence[str]) -> str:
    """A command line as a person would type it, paths made short."""
    here = f"{Path.cwd()}{os.sep}"
    return shlex.join(["catena", *(word.removeprefix(here) for word in words)])
