"""The programs and files of other projects that the lab needs beyond those of a build."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path

from catena.osimage import tool
from catena.osimage.tool import Tool

QEMU = Tool("qemu-system-x86_64", "qemu-system-x86")
SWTPM = Tool("swtpm", "swtpm")
SWTPM_SETUP = Tool("swtpm_setup", "swtpm-tools")
SWTPM_LOCALCA = Tool("swtpm_localca", "swtpm-tools")
SOCAT = Tool("socat", "socat")
DEBOOTSTRAP = Tool("debootstrap", "debootstrap")
FIRMWARE_CODE = Tool("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "ovmf")
FIRMWARE_VARS = Tool("/usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf")
BUSYBOX = Tool("/bin/busybox", "busybox-static")
SYSTEMD_BOOT = Tool("/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi")
APT_CACHE = Tool("apt-cache", "apt")
APT_GET = Tool("apt-get", "apt")
DPKG_DEB = Tool("dpkg-deb", "dpkg")
TAR = Tool("tar", "tar")
UNSHARE = Tool("unshare", "util-linux")

RELEASE_TOOLS = (*tool.BUILD_TOOLS, tool.EFI_STUB)
MACHINE_TOOLS = (QEMU, SWTPM, SWTPM_SETUP, SWTPM_LOCALCA, SOCAT, FIRMWARE_CODE, FIRMWARE_VARS)
PROBE_TOOLS = (BUSYBOX, SYSTEMD_BOOT)
TREE_TOOLS = (DEBOOTSTRAP, APT_CACHE, APT_GET, DPKG_DEB, TAR, UNSHARE)

_APART = ("--mount", "--pid", "--fork", "--kill-child")
_PROBE_SECONDS = 10.0


def run(
    program: Tool, arguments: Sequence[str | Path], *, seconds: float, cwd: Path | None = None
) -> str:
    """Run a program to its end and return its standard output. Raises as ``tool.run`` does."""
    return tool.run(program, arguments, seconds=seconds, cwd=cwd).decode(errors="replace")


def run_apart(program: Tool, arguments: Sequence[str | Path], *, seconds: float) -> str:
    """As ``run``, for a program that mounts file systems and starts others on its way.

    It gets mount and process namespaces of its own: the kernel ends both with it, so that no
    mount and no process of it can stay behind, whoever is killed.
    """
    within = (UNSHARE.path(), *_APART) if _namespaces() else ()
    return tool.run(program, arguments, seconds=seconds, within=within).decode(errors="replace")


@functools.cache
def _namespaces() -> bool:
    """Whether namespaces can be had; who may not have them may not mount either."""
    try:
        done = tool.complete((UNSHARE.path(), *_APART, "true"), seconds=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
