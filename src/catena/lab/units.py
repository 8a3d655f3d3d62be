"""Things that run in the background of a lab: the trust service and machines.

Each unit is one supervisor process (``catena.lab.supervisor``) that owns its children: when
the supervisor ends, however it ends, the kernel ends them. Until the command that started a
unit says so, the unit also lives on a *lease*: the read end of a pipe. If the starter dies
before ``keep``, the pipe closes and the unit ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from catena.errors import Unavailable, UsageError

_STOP_SECONDS = 20.0
_LAST_WORDS = 1000
KEEP = b"k"


class UnitSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor runs: the server, or a machine."""

    name: str
    folder: str
    server_folder: str | None = None
    machine: MachineSpec | None = None


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's hardware as plain values (see ``machine.Hardware``)."""

    folder: str
    disk: str
    varstore: str
    vendor: str
    server_port: int | None
    memory_mib: int
    sealed_copy: str | None
    data_disk: str | None = None
    orders: str | None = None


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor: its pid and when it started, so that no other process is mistaken for it."""

    pid: int
    started: int


class AlreadyRunning(UsageError):
    """A unit of this name runs already."""

    code = "already-running"
    remedy = "Use what is running, or end it first: catena lab down."


class UnitFailed(Unavailable):
    """A unit ended while it was still needed."""

    code = "unit-failed"
    remedy = "Its log is named in the message; bring the lab down and up again."


class Unit:
    """One background unit of the lab whose ``run`` folder is given."""

    def __init__(self, run: Path, name: str) -> None:
        self.name = name
        self.log = run / f"{name}.log"
        self._state = run / f"{name}.json"
        self._spec = run / f"{name}.spec.json"
        self._lease: int | None = None

    def start(self, spec: UnitSpec) -> None:
        """Start the supervisor on a lease. Raises ``AlreadyRunning``."""
        self.refuse_running()
        self._spec.parent.mkdir(parents=True, exist_ok=True)
        self._spec.write_bytes(msgspec.json.encode(spec))
        reader, self._lease = os.pipe()
        try:
            pid = self._spawn(reader)
            running = Running(pid=pid, started=_start_ticks(pid) or 0)
            self._state.write_bytes(msgspec.json.encode(running))
        except BaseException:
            self._end_lease()  # a unit that cannot be found again must not run
            raise

    def refuse_running(self) -> None:
        """Raise ``AlreadyRunning`` if it runs."""
        if self.running():
            raise AlreadyRunning(f"{self.name} is running already")

    def _spawn(self, lease: int) -> int:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.set_inheritable(lease, True)
        try:
            return os.posix_spawn(
                sys.executable,
                [
                    *(sys.executable, "-m", "catena.lab.supervisor"),
                    *(str(self._spec.absolute()), str(lease)),
                ],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(lease)
            os.close(log)

    def keep(self) -> None:
        """Let the unit outlive this process."""
        if self._lease is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended by itself
                os.write(self._lease, KEEP)
            self._end_lease()

    def _end_lease(self) -> None:
        """Close the lease: a unit that was not told to stay ends."""
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None

    def running(self) -> Running | None:
        """The supervisor, if it lives."""
        try:
            running = msgspec.json.decode(self._state.read_bytes(), type=Running)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return running if _start_ticks(running.pid) == running.started else None

    def check(self) -> None:
        """Raise ``UnitFailed`` with the log's last line if the supervisor ended."""
        if self.running():
            return
        said = self._last_line() or "without a word"
        raise UnitFailed(f"{self.name} ended: {said} (log: {self.log})")

    def _last_line(self) -> str:
        try:
            printed = self.log.read_bytes()[-_LAST_WORDS:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return next(reversed(printed.strip().splitlines()), "")

    def stop(self) -> bool:
        """End the unit and wait until it is gone; returns whether it was running."""
        running = self.running()
        self._end_lease()
        if running is not None:
            _kill(running, signal.SIGTERM)
            self._await_end(running)
        for path in (self._state, self._spec):
            path.unlink(missing_ok=True)
        return running is not None

    def _await_end(self, running: Running) -> None:
        deadline = time.monotonic() + _STOP_SECONDS
        while _start_ticks(running.pid) == running.started:
            if time.monotonic() > deadline:
                # Its children die with it (PR_SET_PDEATHSIG).
                _kill(running, signal.SIGKILL)
                deadline += _STOP_SECONDS
            time.sleep(0.05)


def all_units(run: Path) -> list[Unit]:
    """Every unit that was started and not stopped, machines before the server."""
    names = sorted(path.name.removesuffix(".spec.json") for path in run.glob("*.spec.json"))
    return [Unit(run, name) for name in sorted(names, key=lambda name: name == "server")]


def _kill(running: Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was about to end anyway
        os.kill(running.pid, number)


def _start_ticks(pid: int) -> int | None:
    """Start time of a living process in clock ticks (proc(5), stat field 22), or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        # Our own child: collect it, so that its number can be used again.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        return None
    return int(fields[19])
