r"""IMA binary run-time measurements (Linux ``security/integrity/ima/ima_fs.c``, canonical order).

``/sys/kernel/security/ima/binary_runtime_measurements`` is a sequence of entries, little-endian::

    PCR u32 | template digest 20 (SHA-1) | name length u32 | template name | template data

Template data of ``ima`` is ``digest 20 | path length u32 | path``; of every other template it is
``length u32`` and then fields, each ``length u32 | value``. What is extended into a bank other
than SHA-1 is that bank's hash over the template data; the SHA-1 ``template digest`` in the log
is never used for it. An all-zero template digest marks a violation: the kernel then extends
0xFF throughout, so the entry proves nothing about a file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import msgspec

from catena.errors import FormatError
from catena.ids import PCR_COUNT, HashAlg

MAX_LOG = 64 * 1024 * 1024
MAX_ENTRIES = 262_144
"""Entries that ``parse`` holds at once; ``measurements`` walks through a log of any length."""

MAX_TEMPLATE_NAME = 64
MAX_TEMPLATE_DATA = 64 * 1024
MAX_FIELDS = 16

BUFFER_FIELD = 2
"""Where an ``ima-buf`` has the buffer that was measured."""

_OLD_TEMPLATE = "ima"
_SHA1_SIZE = 20
_OLD_PATH_SIZE = 256
_VIOLATION = bytes(_SHA1_SIZE)
_HEADER = struct.Struct("<I20sI")
_U32 = struct.Struct("<I")
_TEMPLATE_NAME = re.compile(rb"[!-~]+")


class ImaEntry(msgspec.Struct, frozen=True):
    """One measurement. Only ``template_data``, and so ``fields``, is hashed.

    ``template_digest`` and ``template_name`` are *untrusted*: an ``ima-buf`` can be passed off as
    an ``ima-ng``. A violation proves none of its fields.

    ``fields`` of ``ima``: digest, path. Of ``ima-ng``: algorithm ``:`` NUL digest, path NUL;
    ``ima-sig`` adds the signature (may be empty), ``ima-buf`` the measured buffer.
    """

    index: int
    pcr: int
    template_digest: bytes
    template_name: str
    template_data: bytes
    fields: tuple[bytes, ...]

    @property
    def is_violation(self) -> bool:
        """True if the kernel could not measure a stable file (open writers, ToMToU)."""
        return self.template_digest == _VIOLATION

    @property
    def path(self) -> str:
        """The file or event name, undecodable bytes escaped; *untrusted* until replayed."""
        return self.fields[1].rstrip(b"\0").decode("utf-8", "backslashreplace")

    @property
    def file_digest(self) -> tuple[str, bytes]:
        """Algorithm name and digest of the file's content; the name is empty if it has none."""
        if self.template_name == _OLD_TEMPLATE:
            return HashAlg.SHA1.value, self.fields[0]
        algorithm, separator, digest = self.fields[0].partition(b":\0")
        if not separator:
            return "", self.fields[0]
        return algorithm.decode("ascii", "backslashreplace"), digest


def parse(data: bytes) -> tuple[ImaEntry, ...]:
    """Parse a whole log; it may be empty. Raises ``FormatError`` with an offset."""
    if len(data) > MAX_LOG:
        raise _fault("log is too large", 0, f"at most {MAX_LOG}", len(data))
    return tuple(entries(data))


def entries(data: bytes, start: int = 0, index: int = 0) -> Iterator[ImaEntry]:
    """The entries from ``start`` on, one at a time; the one at ``start`` is number ``index``.

    Raises ``FormatError`` when it comes to the entry at fault.
    """
    while start < len(data):
        if index == MAX_ENTRIES:
            raise _fault("log has too many entries", start, f"at most {MAX_ENTRIES}")
        entry, start = _entry(data, start, index)
        yield entry
        index += 1


def measurements(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes | None, int]]:
    """PCR, hashed bytes and end of each entry from ``start`` on, one at a time.

    The bytes are what the kernel hashes into a bank other than SHA-1, None for a violation.
    Fields are not looked at: this is for replaying logs that are too long to hold. Raises
    ``FormatError`` when it comes to the entry at fault.
    """
    size = len(data)
    unpack, length = _HEADER.unpack_from, _U32.unpack_from
    while start < size:
        at = start + 28
        if at > size:
            raise _fault("entry header runs past the end", start)
        pcr, digest, name_size = unpack(data, start)
        name = data[at : at + name_size]
        at += name_size
        if pcr >= PCR_COUNT or name_size > MAX_TEMPLATE_NAME or name == b"ima" or at + 4 > size:
            entry, end = _entry(data, start, 0)
            content = hashed(entry)
        else:
            (content_size,) = length(data, at)
            end = at + 4 + content_size
            if content_size > MAX_TEMPLATE_DATA or end > size:
                _entry(data, start, 0)  # names the fault
            content = data[at + 4 : end]
        yield pcr, None if digest == _VIOLATION else content, end
        start = end


def hashed(entry: ImaEntry) -> bytes:
    """What is hashed of an entry: the template data, in ``ima`` with the path padded."""
    if entry.template_name == _OLD_TEMPLATE:
        digest, path = entry.fields
        return digest + path.ljust(_OLD_PATH_SIZE, b"\0")
    return entry.template_data


def replay_digest(entry: ImaEntry, bank: HashAlg) -> bytes:
    """What the kernel extended into ``bank`` for this entry (``ima_calc_field_array_hash``)."""
    if entry.is_violation:
        return b"\xff" * bank.size
    return bank.digest(hashed(entry))


def encode(entry: ImaEntry) -> bytes:
    """The entry as the kernel writes it; parse() gives it back."""
    name = entry.template_name.encode("ascii")
    head = _u32(entry.pcr) + entry.template_digest + _u32(len(name)) + name
    if entry.template_name == _OLD_TEMPLATE:
        return head + entry.template_data
    return head + _u32(len(entry.template_data)) + entry.template_data


def encode_fields(*fields: bytes) -> bytes:
    """Template data of any template but ``ima``."""
    return b"".join(_u32(len(field)) + field for field in fields)


def _entry(data: bytes, start: int, index: int) -> tuple[ImaEntry, int]:
    """The entry at ``start`` and the offset behind it."""
    at = start + _HEADER.size
    if at > len(data):
        raise _fault("entry header runs past the end", start)
    pcr, digest, name_size = _HEADER.unpack_from(data, start)
    if pcr >= PCR_COUNT:
        raise _fault("PCR is out of range", start, f"below {PCR_COUNT}", pcr)
    name, at = _sized(data, at, name_size, MAX_TEMPLATE_NAME, "template name")
    if not _TEMPLATE_NAME.fullmatch(name):
        raise _fault("template name is not printable ASCII", start + _HEADER.size)
    if name == _OLD_TEMPLATE.encode():
        content, old, end = _old_template(data, at)
        return ImaEntry(index, pcr, digest, _OLD_TEMPLATE, content, old), end
    content, end = _field(data, at, MAX_TEMPLATE_DATA, "template data")
    fields = _fields(content, at + _U32.size)
    return ImaEntry(index, pcr, digest, name.decode(), content, fields), end


def _old_template(data: bytes, at: int) -> tuple[bytes, tuple[bytes, bytes], int]:
    """The template data of ``ima``, which has no length of its own, its fields and its end."""
    digest, end = _sized(data, at, _SHA1_SIZE, _SHA1_SIZE, "file digest")
    path, end = _field(data, end, _OLD_PATH_SIZE - 1, "path")
    return data[at:end], (digest, path), end


def _field(data: bytes, at: int, limit: int, what: str) -> tuple[bytes, int]:
    """Bytes behind their own length field at ``at``, and the offset behind them."""
    start = at + _U32.size
    if start > len(data):
        raise _fault(f"{what} length runs past the end", at)
    return _sized(data, start, _U32.unpack_from(data, at)[0], limit, what)


def _sized(data: bytes, start: int, size: int, limit: int, what: str) -> tuple[bytes, int]:
    end = start + size
    if size > limit:
        raise _fault(f"{what} is too long", start - _U32.size, f"at most {limit}", size)
    if end > len(data):
        raise _fault(f"{what} runs past the end", start)
    return data[start:end], end


def _fields(content: bytes, base: int) -> tuple[bytes, ...]:
    """The fields in ``content``, which lies at ``base`` of the log: at least digest and name."""
    fields: list[bytes] = []
    at = 0
    while at < len(content):
        try:
            field, at = _field(content, at, MAX_TEMPLATE_DATA, "field")
        except FormatError as error:
            error.offset += base
            raise
        fields.append(field)
    if not 2 <= len(fields) <= MAX_FIELDS:
        raise _fault("entry has a wrong number of fields", base, f"2 to {MAX_FIELDS}", len(fields))
    return tuple(fields)


def _fault(
    what: str, offset: int, expected: str | None = None, got: int | None = None
) -> FormatError:
    shown = None if got is None else f"{got}"
    return FormatError(f"IMA {what}", offset=offset, expected=expected, got=shown)


def _u32(value: int) -> bytes:
    return _U32.pack(value)
