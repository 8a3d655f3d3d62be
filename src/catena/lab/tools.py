"""The programs and files of other projects that the lab needs, and who provides them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catena.errors import Unavailable


class MissingTool(Unavailable):
    """A program or firmware file that the work needs is not installed."""

    code = "missing-tool"

    def __init__(self, name: str, package: str) -> None:
        super().__init__(f"{name} is not installed")
        self.remedy = f"apt-get install --no-install-recommends {package}"  # type: ignore[misc]


class ToolFailed(Unavailable):
    """A program ended with an error; its own words are in the message."""

    code = "tool-failed"
    remedy = "The message above is the tool's own; `catena doctor` checks disk space and tools."


@dataclass(frozen=True, slots=True)
class Tool:
    """Something on this machine: a program on the path, or a file at a fixed place."""

    name: str
    package: str

    def path(self) -> Path:
        """Where it is. Raises ``MissingTool``."""
        found = self.name if self.name.startswith("/") else shutil.which(self.name)
        if found is None or not Path(found).exists():
            raise MissingTool(self.name, self.package)
        return Path(found)


QEMU = Tool("qemu-system-x86_64", "qemu-system-x86")
SWTPM = Tool("swtpm", "swtpm")
SWTPM_SETUP = Tool("swtpm_setup", "swtpm-tools")
SWTPM_LOCALCA = Tool("swtpm_localca", "swtpm-tools")
SOCAT = Tool("socat", "socat")
DEBOOTSTRAP = Tool("debootstrap", "debootstrap")
FIRMWARE_CODE = Tool("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "ovmf")
FIRMWARE_VARS = Tool("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf")
EFI_STUB = Tool("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi")
APT_GET = Tool("apt-get", "apt")
DPKG_DEB = Tool("dpkg-deb", "dpkg")
TAR = Tool("tar", "tar")
MKSQUASHFS = Tool("mksquashfs", "squashfs-tools")
VERITYSETUP = Tool("veritysetup", "cryptsetup-bin")
MKFS_VFAT = Tool("mkfs.vfat", "dosfstools")
MCOPY = Tool("mcopy", "mtools")

RELEASE_TOOLS = (MKSQUASHFS, VERITYSETUP, MKFS_VFAT, MCOPY, EFI_STUB)
MACHINE_TOOLS = (QEMU, SWTPM, SWTPM_SETUP, SWTPM_LOCALCA, SOCAT, FIRMWARE_CODE, FIRMWARE_VARS)
TREE_TOOLS = (DEBOOTSTRAP, APT_GET, DPKG_DEB, TAR)

_SAID = 600
"""Characters of a failed program's last words that go into the error."""


def run(
    tool: Tool, arguments: Sequence[str | Path], *, seconds: float, cwd: Path | None = None
) -> str:
    """Run a program to its end and return its standard output.

    Raises ``MissingTool``, or ``ToolFailed`` with the program's last words, also when it takes
    longer than ``seconds``.
    """
    command = [str(tool.path()), *map(str, arguments)]
    try:
        done = subprocess.run(  # noqa: S603 - arguments are ours, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"{tool.name} took longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_SAID:]
        raise ToolFailed(f"{tool.name} failed: {said}", got=f"exit status {done.returncode}")
    return done.stdout
