"""Witness processes for tests: ``catena audit witness run`` on a port of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catena.server import witness_folder

SECONDS = 20


@dataclass
class RunningWitness:
    """A process, its address, and the key that it cosigns with."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    key: str
    log: Path | None = None

    @property
    def setting(self) -> str:
        """As server.toml names it."""
        return f"{self.url} {self.key}"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def end(self) -> tuple[int, str]:
        """Stop it; its exit code and what it logged."""
        self.process.terminate()
        self.process.communicate(timeout=SECONDS)
        return self.process.returncode, self.log.read_text()


@contextmanager
def running_witness(
    folder: Path, *logs: str, name: str = "w1", listen: str = "127.0.0.1:0"
) -> Iterator[RunningWitness]:
    """A witness of ``logs`` until the block ends; its folder is made unless it is there."""
    if not folder.exists():
        witness_folder.init(folder, name, listen, logs)
    command = [
        *(sys.executable, "-m", "catena.cli.main", "audit", "witness", "run"),
        *(str(folder), "--listen", listen),
    ]
    log = folder.with_name(f"{folder.name}.stderr")  # a pipe that nobody reads would fill
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("catena witness at "), log.read_text()
        key = witness_folder.key_of(folder).encode()
        yield RunningWitness(process, line.split()[3], folder, key, log)
    finally:
        process.kill()
        process.communicate()
