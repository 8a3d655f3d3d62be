r"""What is mounted at a container's root (proc(5), /proc/PID/mountinfo; overlayfs.rst).

::

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    id parent device root point options tags… - type source super-options

Blanks, tabs, newlines, backslashes and commas inside are octal (``\040``). An overlay names its folders
in the super options: ``lowerdir=`` top first, separated by colons (``\:`` is one inside a name), or
``lowerdir+=`` once for each; ``upperdir=``, ``workdir=``. Relative ones (podman's ``l/XXXX``, containerd's
``12/fs``, both used when the options get too long) were relative to where the runtime stood.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catena.containers.rootfs.refusals import ForeignMount
from catena.errors import FormatError

MAX_MOUNTINFO = 16 * 1024 * 1024
MAX_LOWERS = 512
LOCAL = frozenset(
    {"bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs"}
    | {"overlay", "ramfs", "squashfs", "tmpfs", "xfs", "zfs"}
)
"""File systems whose content only this machine's root can change; FUSE and network ones answer as
they like."""
_OCTAL = re.compile(r"\\([01][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line. ``options`` are the mount's, ``of_type`` the file system's own."""

    number: int
    root: str
    point: str
    options: tuple[str, ...]
    type: str
    of_type: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay's folders as the kernel was told them, bottom first; ``marks`` is the prefix of its attributes."""

    lowers: tuple[Path, ...]
    upper: Path | None
    marks: str


@dataclass(frozen=True, slots=True)
class MountTable:
    """A mount namespace: its lines by number, and the places that are mounted on, sorted.

    Nodes have thousands of mounts, and a start asks for a few: lines are taken apart when asked for.
    """

    lines: Mapping[int, str]
    points: tuple[str, ...]

    def mount(self, number: int) -> Mount | None:
        """The mount of this number. Raises ``FormatError``."""
        line = self.lines.get(number)
        return None if line is None else _mount(line)

    def first_inside(self, place: str) -> str | None:
        """Some place below ``place`` that is mounted on."""
        prefix = place.rstrip("/") + "/"
        at = bisect_right(self.points, prefix)
        found = self.points[at] if at < len(self.points) else ""
        return found if found.startswith(prefix) else None


def parse_mounts(text: str) -> MountTable:
    """The mounts of a mountinfo file. Raises ``FormatError``."""
    if len(text) > MAX_MOUNTINFO:
        raise FormatError("mountinfo is too long")
    lines: dict[int, str] = {}
    points = []
    for line in text.split("\n"):
        if line:
            fields = line.split(" ", 5)
            if len(fields) != 6 or not fields[0].isdecimal():
                raise FormatError("line of mountinfo", got=ascii(line[:64]))
            lines[int(fields[0])] = line
            points.append(_plain(fields[4]))
    return MountTable(lines, tuple(sorted(points)))


def _mount(line: str) -> Mount:
    own, dash, more = line.partition(" - ")
    fields, rest = own.split(" "), more.split(" ")
    if not dash or len(fields) < 6 or len(rest) != 3:
        raise FormatError("line of mountinfo", got=ascii(line[:64]))
    return Mount(
        number=int(fields[0]),
        root=_plain(fields[3]),
        point=_plain(fields[4]),
        options=tuple(fields[5].split(",")),
        type=rest[0],
        of_type=tuple(_plain(one) for one in rest[2].split(",")),
    )


def _plain(text: str) -> str:
    """Text without its octal escapes."""
    if "\\" not in text:
        return text
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def mount_of(descriptor: int, mounts: MountTable) -> Mount:
    """The mount that an open file lies on. Raises ``ForeignMount`` for one that is not listed."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "mnt_id":
            found = mounts.mount(int(value))
            if found is not None:
                return found
    raise ForeignMount("the folder lies on a mount that this process cannot see")


def check_folder(descriptor: int, mounts: MountTable) -> None:
    """Refuse a folder that lies on no local file system, is mapped to other owners, or has mounts inside."""
    place = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    mount = mount_of(descriptor, mounts)
    if mount.type not in LOCAL:
        raise ForeignMount(
            "files lie on a file system that is not local", got=ascii(mount.type[:32])
        )
    if "idmapped" in mount.options:
        raise ForeignMount("the mount gives files other owners (idmapped)")
    inside = mounts.first_inside(place)
    if inside is not None:
        raise ForeignMount(
            "something is mounted inside the root file system", got=ascii(inside[-128:])
        )


def overlay_of(mount: Mount) -> Overlay:
    """The folders of an overlay mount. Raises ``ForeignMount`` for forms that no runtime uses."""
    lowers = _lowers(mount)
    upper = next((Path(one[9:]) for one in mount.of_type if one.startswith("upperdir=")), None)
    if not lowers or len(lowers) > MAX_LOWERS:
        raise ForeignMount("an overlay without a usable number of layers", got=str(len(lowers)))
    base = _base(mount, upper)
    return Overlay(
        lowers=tuple(base / one for one in reversed(lowers)),
        upper=None if upper is None else base / upper,
        marks="user.overlay." if "userxattr" in mount.of_type else "trusted.overlay.",
    )


def _lowers(mount: Mount) -> list[str]:
    """The lower folders, top first."""
    added = [
        one.removeprefix("lowerdir+=") for one in mount.of_type if one.startswith("lowerdir+=")
    ]
    listed = [one.removeprefix("lowerdir=") for one in mount.of_type if one.startswith("lowerdir=")]
    data = any(one.startswith("datadir+=") for one in mount.of_type)
    if data or len(listed) > 1 or (added and listed):
        raise ForeignMount("an overlay with layers of data only, or listed twice")
    names = added or [one for text in listed for one in _split(text)]
    if "" in names:
        raise ForeignMount("an overlay with layers of data only")
    return names


def _split(text: str) -> list[str]:
    """At colons that no backslash precedes; a backslash stands for the letter behind it."""
    names, current, letters = [], "", iter(text)
    for letter in letters:
        if letter == ":":
            names.append(current)
            current = ""
        else:
            current += next(letters, "") if letter == "\\" else letter
    return [*names, current]


def _base(mount: Mount, upper: Path | None) -> Path:
    """Where relative folders start: containerd stands in ``snapshots`` and gives an absolute upper folder
    ``snapshots/N/fs``; containers/storage stands in ``overlay`` and mounts at ``overlay/ID/merged``.
    """
    if upper is not None and upper.is_absolute():
        return upper.parent.parent
    return Path(mount.point).parent.parent
