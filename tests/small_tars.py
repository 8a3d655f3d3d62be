"""Tar archives of image layers, small enough to reason about.

A layer maps paths to what lies there::

    tar({"etc/": folder(), "etc/motd": file(b"hello"), "bin/sh": link("busybox"), "etc/.wh.old": whiteout()})

Everything is reproducible: no time, owners 0:0 unless they are given.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Member:
    """One entry of a layer's tar."""

    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    def info(self, path: str) -> tarfile.TarInfo:
        """The header of this entry, without a time."""
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = self.kind, self.mode, self.uid, self.gid
        info.size, info.linkname = len(self.content), self.target
        info.devmajor, info.devminor = self.device
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
            for name, value in self.xattrs.items()
        }
        return info


def file(content: bytes = b"", mode: int = 0o644, uid: int = 0, gid: int = 0, **xattrs) -> Member:
    return Member(content=content, mode=mode, uid=uid, gid=gid, **xattrs)


def folder(mode: int = 0o755, uid: int = 0, gid: int = 0) -> Member:
    return Member(tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def link(target: str) -> Member:
    return Member(tarfile.SYMTYPE, mode=0o777, target=target)


def hard_link(target: str, mode: int = 0o644) -> Member:
    return Member(tarfile.LNKTYPE, mode=mode, target=target)


def device(major: int, minor: int, mode: int = 0o600) -> Member:
    return Member(tarfile.CHRTYPE, mode=mode, device=(major, minor))


def fifo(mode: int = 0o644) -> Member:
    return Member(tarfile.FIFOTYPE, mode=mode)


def whiteout() -> Member:
    """What lies at ``folder/.wh.name``."""
    return Member(mode=0)


Layer = Mapping[str, Member]


def tar(members: Layer | Sequence[tuple[str, Member]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The tar stream of a layer, entries in the order given."""
    pairs = members.items() if isinstance(members, Mapping) else members
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for path, member in pairs:
            archive.addfile(member.info(path), io.BytesIO(member.content))
    return out.getvalue()
