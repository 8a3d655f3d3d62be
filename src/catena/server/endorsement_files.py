"""What a person names to be imported: files, zips and folders of certificates and revocation lists.

A vendor's bundle is one PEM file, a folder of DER files, or a zip of such a folder. Everything is
read on the machine of whoever imports; which of it is accepted says the server.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from catena.errors import FormatError, NotFound
from catena.formats.endorsements import MAX_CONTENT, NoEndorsements, split
from catena.service.views import EndorsementItem, RefusedEndorsement

SUFFIXES = frozenset({".cer", ".crl", ".crt", ".der", ".pem", ".zip"})
"""What is taken of a folder or a zip; a file that is named may have any."""

MAX_MEMBERS = 8192
MAX_BUNDLE = 64 * 1024 * 1024
BATCH_ITEMS = 1024
BATCH_BYTES = 12 * 1024 * 1024
"""Of one request: base64 makes a third more of it, and the server's ``max_body`` is 24 MiB."""

_ZIP = b"PK\x03\x04"


class NoBundle(NotFound):
    """A file or folder of certificates that cannot be read, or holds none."""

    code = "no-bundle"
    remedy = "Give files in DER or PEM, zips or folders of them; expand a .cab file first."


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was read, and the files that hold nothing of use."""

    items: tuple[EndorsementItem, ...]
    refused: tuple[RefusedEndorsement, ...]


def gather(paths: Sequence[Path]) -> Gathered:
    """Read what the paths name. Raises ``NoBundle``."""
    items: list[EndorsementItem] = []
    refused = []
    for name, data in _members(paths):
        try:
            items.extend(EndorsementItem(file=name, content=one) for one in _values(data))
        except FormatError as error:
            refused.append(
                RefusedEndorsement(
                    file=name, code=error.code, message=str(error), remedy=error.remedy
                )
            )
    if not items and not refused:
        raise NoBundle("no certificates and no revocation lists", got=str(paths[0])[:120])
    return Gathered(tuple(items), tuple(refused))


def batches(items: Iterable[EndorsementItem]) -> Iterator[tuple[EndorsementItem, ...]]:
    """The items in portions that one request may hold."""
    batch: list[EndorsementItem] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_ITEMS or size + len(item.content) > BATCH_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(item)
        size += len(item.content)
    if batch:
        yield tuple(batch)


def _values(data: bytes) -> tuple[bytes, ...]:
    values = split(data)
    if any(len(one) > MAX_CONTENT for one in values):
        raise NoEndorsements("too large", expected=f"at most {MAX_CONTENT} bytes")
    return values


def _members(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Every file by the name that is remembered of it; a path never becomes part of it."""
    left = MAX_BUNDLE
    for count, (name, data) in enumerate(_files(paths)):
        left -= len(data)
        if count >= MAX_MEMBERS or left < 0:
            raise NoBundle("too much to import at once", expected=f"{MAX_BUNDLE} bytes")
        yield name, data


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES)
            for one in inside:
                if one.is_file():
                    yield from _unpacked(f"{path.name}/{one.relative_to(path)}", _read(one))
        else:
            yield from _unpacked(path.name, _read(path))


def _unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    if not data.startswith(_ZIP):
        yield name[-512:], data
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist()[:MAX_MEMBERS]:
                if not info.is_dir() and Path(info.filename).suffix.lower() in SUFFIXES:
                    with archive.open(info) as member:
                        yield f"{name}:{info.filename}"[-512:], member.read(MAX_CONTENT + 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise NoBundle(f"{name} is a damaged zip") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BUNDLE + 1)
    except OSError as error:
        raise NoBundle(f"cannot read {path}: {error.strerror}") from error
