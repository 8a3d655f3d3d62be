"""A release on disk: four files in one folder.

====================  ==========================================================
``release.dsse.json``  ``ReleaseManifest``, signed by the release key
``uki.efi``            the unified kernel image, signed by db
``root.squashfs``      the root file system
``disk.img``           the whole disk, sparse: ESP, root, hash tree
====================  ==========================================================
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from catena.errors import NotFound, UsageError
from catena.formats.dsse import MAX_ENVELOPE
from catena.formats.references import VerityRoot

MANIFEST = "release.dsse.json"
UKI = "uki.efi"
ROOT_IMAGE = "root.squashfs"
DISK = "disk.img"
FILES = (UKI, ROOT_IMAGE, DISK)

ROOT_PARAMETER = "catena.root="
DEFAULT_COMMAND_LINE = (
    "console=ttyS0 quiet panic=5 lockdown=integrity"
    " systemd.gpt_auto=0 systemd.import_credentials=0"
    " systemd.mask=systemd-pcrphase.service systemd.mask=systemd-pcrphase-sysinit.service"
)
"""No partition is mounted and no credential taken because it is there, whoever put it there; no
program extends PCR 11 without a log. A corrupt block panics the kernel, which then restarts."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,62}")
_CHUNK = 1024 * 1024


class IncompleteRelease(NotFound):
    """A folder that lacks a file of a release."""

    code = "incomplete-release"
    remedy = "Build the release again, or copy the whole folder."


class UnusableName(UsageError):
    """A release name or version that could be misread in logs, paths or URLs."""

    code = "unusable-release-name"
    remedy = "Use up to 63 of a-z, 0-9, dot, underscore, plus and hyphen, not first a sign."


class UnusableCommandLine(UsageError):
    """A kernel command line that cannot be embedded or would contradict the release."""

    code = "unusable-command-line"
    remedy = "Give one line of printable ASCII without catena.root=, which the build adds."


def check_name(text: str) -> None:
    """Refuse unclear release names and versions. Raises ``UnusableName``."""
    if _NAME.fullmatch(text) is None:
        raise UnusableName("release name or version is not usable", got=ascii(text[:80]))


def command_line(base: str, root: VerityRoot) -> str:
    """The embedded command line: the caller's words and the root. Raises ``UnusableCommandLine``."""
    if not (base.isascii() and base.isprintable()) or ROOT_PARAMETER in base:
        raise UnusableCommandLine("kernel command line is not usable", got=ascii(base[:200]))
    return f"{base.strip()} {root_parameter(root)}".strip()


def root_parameter(root: VerityRoot) -> str:
    """What the initrd needs to open the root: root hash, salt and number of blocks."""
    return f"{ROOT_PARAMETER}{root.root_hash},{root.salt},{root.data_blocks}"


def sha256_of(path: Path) -> bytes:
    """SHA-256 of a file. Raises ``IncompleteRelease``."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                digest.update(chunk)
    except OSError as error:
        raise IncompleteRelease(f"cannot read {path.name}: {error.strerror}") from error
    return digest.digest()


def read_file(path: Path, limit: int = MAX_ENVELOPE) -> bytes:
    """A file of the release, at most ``limit`` bytes. Raises ``IncompleteRelease``."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise IncompleteRelease(f"cannot read {path.name}: {error.strerror}") from error
