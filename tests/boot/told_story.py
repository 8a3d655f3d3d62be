"""The demo's lab as tests see it: a folder, a summary, and the `catena` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND_SECONDS = 900
CACHE = Path(os.environ.get("CATENA_CACHE", ".cache")).absolute()


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    status: int
    document: Any
    errors: str


@dataclass(frozen=True)
class Story:
    """The demo's lab folder, its summary and what it told."""

    home: Path
    summary: dict[str, Any]
    told: str
    log: Path
    """A copy of the transparency log as the demo left it."""

    def catena(self, *words: str | Path, seconds: int = COMMAND_SECONDS) -> Answer:
        """Run a command in this lab, as a person would, with JSON output."""
        done = subprocess.run(
            [sys.executable, "-m", "catena.cli.main", *map(str, words), "-o", "json"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "CATENA_HOME": str(self.home), "CATENA_CACHE": str(CACHE)},
        )
        document = json.loads(done.stdout) if done.stdout else None
        return Answer(done.returncode, document, done.stderr)
