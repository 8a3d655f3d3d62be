"""Content in folders of the shape ``sha256/<hex>``: OCI layouts, and containerd's content store."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from catena.containers.images.blobs import AlteredBlob, MissingBlob
from catena.errors import FormatError, Unavailable
from catena.formats import oci
from catena.ids import ImageDigest

_ALGORITHM = "sha256"
_CHUNK = 1024 * 1024


class StoreUnusable(Unavailable):
    """A folder of images that cannot be read or written."""

    code = "image-store-unusable"
    remedy = "Check that the folder exists, that you may write to it, and that the disk has room."


class BlobFolder:
    """Content by digest in one or more folders; the first that has it answers.

    Links are not followed and only regular files are read, so that a name cannot lead elsewhere.
    """

    __slots__ = ("_folders",)

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def read(self, digest: str, limit: int) -> bytes:
        """Checked content. Raises ``MissingBlob``, ``AlteredBlob`` or ``FormatError`` beyond ``limit``."""
        with self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(content) > limit:
            raise FormatError(
                "content is too large", expected=f"at most {limit} bytes", got=f"{size}"
            )
        check_digest(content, digest)
        return content

    def open(self, digest: str) -> BinaryIO:
        """Unchecked content as a stream. Raises ``MissingBlob``."""
        name = oci.parse_digest(digest).partition(":")[2]
        for folder in self._folders:
            if (file := _open(folder / _ALGORITHM / name)) is not None:
                return file
        raise MissingBlob("no folder has this content", got=digest)

    def has(self, digest: str) -> bool:
        """Whether there is content of this name; *unchecked*."""
        try:
            self.open(digest).close()
        except MissingBlob:
            return False
        return True

    def add(self, content: bytes) -> ImageDigest:
        """Store content durably; its digest. Raises ``StoreUnusable``."""
        digest = oci.digest_of(content)
        self.add_stream((content,), digest, len(content))
        return digest

    def add_stream(self, chunks: Iterable[bytes], digest: str, size: int) -> None:
        """Store content that has to be ``size`` bytes and hash to ``digest``, or nothing of it.

        Raises ``AlteredBlob`` or ``StoreUnusable``.
        """
        name = oci.parse_digest(digest).partition(":")[2]
        target = self._folders[0] / _ALGORITHM / name
        with replacing(target, 0o644) as file:
            found, left = hashlib.sha256(), size
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    break
                found.update(chunk)
                file.write(chunk)
            if left or found.hexdigest() != name:
                raise AlteredBlob(
                    "content is not what its digest says",
                    expected=f"{digest}, {size} bytes",
                    got=f"sha256:{found.hexdigest()}, {size - left} bytes",
                )


def check_digest(content: bytes, digest: str) -> None:
    """Refuse content that is not ``digest``'s. Raises ``AlteredBlob``."""
    if (found := oci.digest_of(content)) != digest:
        raise AlteredBlob("content is not what its digest says", expected=digest, got=found)


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """A stream in pieces."""
    while chunk := file.read(_CHUNK):
        yield chunk


@contextmanager
def replacing(target: Path, mode: int) -> Iterator[BinaryIO]:
    """A new file that takes its place, durably, when all went well. Raises ``StoreUnusable``."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".new-", dir=target.parent)
    except OSError as error:
        raise StoreUnusable(f"cannot write {target.name[:80]}: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor has no path
            os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(target)
        _sync_folder(target.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreUnusable(f"cannot write {target.name[:80]}: {error.strerror}") from error
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> BinaryIO | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")  # noqa: PTH123  a descriptor has no path
