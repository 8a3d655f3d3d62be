"""External programs that a build runs, and what to do when one is missing or fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from enum import Enum

from catena.errors import Unavailable

_MAX_OUTPUT = 300
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
"""Where mkfs lives, and what many users lack on PATH."""


class Tool(Enum):
    """Program name and the Debian package that has it."""

    MKSQUASHFS = ("mksquashfs", "squashfs-tools")
    MKFS_VFAT = ("mkfs.vfat", "dosfstools")
    MCOPY = ("mcopy", "mtools")
    MMD = ("mmd", "mtools")
    ZSTD = ("zstd", "zstd")

    @property
    def program(self) -> str:
        """The name on PATH."""
        return self.value[0]

    @property
    def package(self) -> str:
        """The package to install."""
        return self.value[1]


class MissingTool(Unavailable):
    """A program that the build needs is not installed."""

    code = "missing-tool"
    remedy = "Install the packages: apt-get install squashfs-tools dosfstools mtools zstd"


class ToolFailed(Unavailable):
    """A program that the build ran reported failure."""

    code = "tool-failed"
    remedy = "Read the program's message; a full disk or unreadable input are the usual causes."


def require(tools: Sequence[Tool]) -> None:
    """Find missing programs before any work is done. Raises ``MissingTool``."""
    missing = [tool for tool in tools if _find(tool) is None]
    if missing:
        names = ", ".join(tool.program for tool in missing)
        packages = " ".join(sorted({tool.package for tool in missing}))
        raise MissingTool(f"cannot find {names}", expected=f"apt-get install {packages}")


def run(tool: Tool, arguments: Sequence[str], *, epoch: int | None = None) -> None:
    """Run a program, with ``epoch`` as the date it stamps (``SOURCE_DATE_EPOCH``).

    Raises ``MissingTool`` or ``ToolFailed``.
    """
    _run(tool, arguments, b"", epoch)


def run_filter(tool: Tool, arguments: Sequence[str], content: bytes) -> bytes:
    """What a program makes of ``content``. Raises ``MissingTool`` or ``ToolFailed``."""
    return _run(tool, arguments, content, None)


def _run(tool: Tool, arguments: Sequence[str], content: bytes, epoch: int | None) -> bytes:
    program = _find(tool)
    if program is None:
        raise MissingTool(f"cannot find {tool.program}", expected=f"apt-get install {tool.package}")
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    environment.pop("SOURCE_DATE_EPOCH", None)  # the caller's own date must not get in
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    result = subprocess.run(  # noqa: S603  a fixed program and an argument list, no shell
        [program, *arguments],
        check=False,
        input=content,
        capture_output=True,
        env=environment,
    )
    if result.returncode:
        last = result.stderr.decode(errors="replace").strip()[-_MAX_OUTPUT:]
        raise ToolFailed(f"{tool.program} failed with {result.returncode}", got=ascii(last))
    return result.stdout


def _find(tool: Tool) -> str | None:
    return shutil.which(
        tool.program, path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS))
    )
