"""What lives on this machine: for tests that kill things and look."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PATIENCE = 10.0


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> dict[str, int]:
    """The running children of a process: program name to pid."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {Path(command(int(word))[0]).name: int(word) for word in words}


def command(pid: int) -> list[str]:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")


def processes_naming(folder: Path) -> dict[int, list[str]]:
    """Living processes, this one excepted, whose command line names the folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = command(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(str(folder) in word for word in words) and lives(int(entry.name)):
            found[int(entry.name)] = words
    return found


def mounts_below(folder: Path) -> list[str]:
    """Mount points in this process's view that lie in the folder."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [place for line in lines if (place := line.split()[4]).startswith(str(folder))]


def await_that(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)


def assert_gone(pids: Iterable[int]) -> None:
    """All these processes end soon."""
    expected = list(pids)
    assert expected
    await_that(lambda: not any(map(lives, expected)), f"end of {expected}")
