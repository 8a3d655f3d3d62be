"""Programs of other projects: which package has them, and running them so that nothing stays.

A program runs in a process group of its own. When its time is up or its caller is interrupted,
the whole group is ended; when its caller dies, even by SIGKILL, the kernel ends the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catena.errors import Unavailable

_MAX_OUTPUT = 600
_GRACE_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Where mkfs lives, and what many users lack on PATH."""

# Looked up before any fork: between fork and exec only the call itself may run.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Tool:
    """A program on PATH, or a file at a fixed place, and the Debian package that has it."""

    name: str
    package: str

    def find(self) -> Path | None:
        """Where it is, or None if this machine lacks it."""
        if self.name.startswith("/"):
            return Path(self.name) if os.access(self.name, os.R_OK) else None
        places = os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
        found = shutil.which(self.name, path=places)
        return Path(found) if found else None

    def path(self) -> Path:
        """Where it is. Raises ``MissingTool``."""
        found = self.find()
        if found is None:
            raise MissingTool(self)
        return found


MKSQUASHFS = Tool("mksquashfs", "squashfs-tools")
MKFS_VFAT = Tool("mkfs.vfat", "dosfstools")
MCOPY = Tool("mcopy", "mtools")
MMD = Tool("mmd", "mtools")
ZSTD = Tool("zstd", "zstd")
EFI_STUB = Tool("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi")

BUILD_TOOLS = (MKSQUASHFS, MKFS_VFAT, MCOPY, MMD, ZSTD)
"""Everything that building a release runs."""


class MissingTool(Unavailable):
    """Programs or files that the work needs are not installed; the remedy installs them."""

    code = "missing-tool"

    def __init__(self, *missing: Tool) -> None:
        super().__init__(f"cannot find {', '.join(tool.name for tool in missing)}")
        # The one remedy that depends on what is missing.
        self.remedy = install_command(missing)  # type: ignore[misc]


class ToolFailed(Unavailable):
    """A program reported failure or did not end; its last words are what was got."""

    code = "tool-failed"
    remedy = "Read the program's message; a full disk or unreadable input are the usual causes."


def install_command(tools: Sequence[Tool]) -> str:
    """The one command that installs all of these."""
    packages = " ".join(sorted({tool.package for tool in tools}))
    return f"apt-get install --no-install-recommends {packages}"


def require(tools: Sequence[Tool]) -> None:
    """Find missing programs before any work is done. Raises ``MissingTool``."""
    missing = [tool for tool in tools if tool.find() is None]
    if missing:
        raise MissingTool(*missing)


def run(
    tool: Tool,
    arguments: Sequence[str | Path],
    *,
    content: bytes = b"",
    epoch: int | None = None,
    seconds: float | None = None,
    cwd: Path | None = None,
    within: Sequence[str | Path] = (),
) -> bytes:
    """What a program prints when it is given ``content``.

    ``epoch`` is the date it stamps (``SOURCE_DATE_EPOCH``), ``within`` a command that runs it,
    such as one that sets up its surroundings. Raises ``MissingTool``, or
    ``ToolFailed`` with the program's last words, also when it takes longer than ``seconds``.
    """
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    environment.pop("SOURCE_DATE_EPOCH", None)  # the caller's own date must not get in
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    try:
        result = complete(
            (*within, tool.path(), *arguments),
            content=content,
            environment=environment,
            seconds=seconds,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"{tool.name} took longer than {seconds:.0f} s") from error
    if result.returncode:
        said = result.stderr.strip() or result.stdout.strip()
        last = said.decode(errors="replace")[-_MAX_OUTPUT:]
        raise ToolFailed(f"{tool.name} failed with {result.returncode}", got=ascii(last))
    return result.stdout


def complete(
    command: Sequence[str | Path],
    *,
    content: bytes = b"",
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
    cwd: Path | None = None,
    on_our_death: signal.Signals = signal.SIGKILL,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end and collect its output; nothing of it outlives the call.

    Raises ``subprocess.TimeoutExpired``.
    """
    words = [str(word) for word in command]
    with subprocess.Popen(  # noqa: S603 - an argument list, no shell
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=die_with(os.getpid(), on_our_death),  # noqa: PLW1509 - only calls prctl
    ) as process:
        try:
            output, said = process.communicate(content, timeout=seconds)
        except BaseException:
            _end_group(process)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output, said)


def die_with(parent: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a new process must call so that the kernel sends it ``number`` when ``parent`` dies.

    Not guaranteed: that its own children die, too. They do if they ask for it themselves.
    """

    def bind() -> None:
        if _PRCTL is None:
            return
        _PRCTL(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the line above
            os._exit(128 + number)

    return bind


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, wait for its leader, then end what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
