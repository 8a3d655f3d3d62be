r"""IMA run-time measurements as text (Linux ``security/integrity/ima``, ``*_measurements_show``).

``/sys/kernel/security/ima/ascii_runtime_measurements`` has one line for each entry::

    PCR  template digest in hex (SHA-1)  template name  field  field …

====================  =====================================================================
template              fields
====================  =====================================================================
``ima``               SHA-1 in hex, path
``ima-ng``            ``algorithm:hex``, path
``ima-ngv2``          ``type:algorithm:hex``, path
``ima-sig``           as ``ima-ng``, signature in hex (may be missing)
``ima-sigv2``         as ``ima-ngv2``, signature in hex (may be missing)
``ima-modsig``        as ``ima-sig``, ``algorithm:hex`` and hex of an appended signature
``ima-buf``           as ``ima-ng``, buffer in hex
====================  =====================================================================

Text says less than the binary log: unprintable characters of a path are written in another way.
So the entry that ``parse`` makes of a line is checked against the line's template digest, and a
line that does not lead back to it is kept, with ``ImaEntry.template_data`` as it was made.
"""

from __future__ import annotations

import re

from catena.errors import FormatError
from catena.formats import ima
from catena.formats.ima import ImaEntry
from catena.ids import PCR_COUNT

MAX_LINE = 128 * 1024

_LINE = re.compile(rb" ?(\d{1,2}) ([0-9a-f]{40}) ([!-~]{1,64}) ")
_OLD_DIGEST = re.compile(rb"([0-9a-f]{40}) (.*)", re.DOTALL)
_DIGEST = re.compile(rb"((?:[a-z]+:)?[a-z0-9-]+):((?:[0-9a-f]{2})+) (.*)", re.DOTALL)
_MODSIG = re.compile(
    rb"(.*) ((?:[0-9a-f]{2})*) (?:([a-z0-9-]+):((?:[0-9a-f]{2})+))? ((?:[0-9a-f]{2})*)", re.DOTALL
)
_LAST_HEX = re.compile(rb"(.*) ((?:[0-9a-f]{2})*)", re.DOTALL)

_PLAIN = frozenset({b"ima-ng", b"ima-ngv2"})
_SIGNED = frozenset({b"ima-sig", b"ima-sigv2"})
_APPENDED = b"ima-modsig"
_BUFFER = b"ima-buf"
_OLD = b"ima"


def parse(data: bytes) -> tuple[ImaEntry, ...]:
    """Read a whole log; it may be empty. Raises ``FormatError`` with the offset of the line."""
    if len(data) > ima.MAX_LOG:
        raise FormatError("IMA log is too large", expected=f"{ima.MAX_LOG}", got=f"{len(data)}")
    entries: list[ImaEntry] = []
    offset = 0
    while offset < len(data):
        end = data.find(b"\n", offset)
        line = data[offset : len(data) if end < 0 else end]
        if len(entries) == ima.MAX_ENTRIES:
            raise _fault("log has too many entries", offset, f"at most {ima.MAX_ENTRIES}")
        entries.append(_entry(line, len(entries), offset))
        offset += len(line) + 1
    return tuple(entries)


def _entry(line: bytes, index: int, offset: int) -> ImaEntry:
    if len(line) > MAX_LINE:
        raise _fault("line is too long", offset, f"at most {MAX_LINE}")
    head = _LINE.match(line)
    if head is None:
        raise _fault("line does not start with PCR, digest and template", offset)
    pcr, template = int(head[1]), head[3]
    if pcr >= PCR_COUNT:
        raise _fault("PCR is out of range", offset, f"below {PCR_COUNT}")
    rest = line[head.end() :]
    fields = _old_fields(rest) if template == _OLD else _fields(template, rest)
    if fields is None:
        raise _fault("line does not have its template's fields", offset, template.decode())
    content = _old_content(fields) if template == _OLD else ima.encode_fields(*fields)
    digest = _unhex(head[2])
    return ImaEntry(index, pcr, digest, template.decode(), content, fields)


def _old_fields(rest: bytes) -> tuple[bytes, ...] | None:
    match = _OLD_DIGEST.fullmatch(rest)
    return None if match is None else (_unhex(match[1]), match[2])


def _old_content(fields: tuple[bytes, ...]) -> bytes:
    digest, path = fields
    return digest + len(path).to_bytes(4, "little") + path


def _fields(template: bytes, rest: bytes) -> tuple[bytes, ...] | None:
    """The fields as the kernel has them in binary, or None."""
    match = _DIGEST.fullmatch(rest)
    if match is None:
        return None
    digest = match[1] + b":\0" + _unhex(match[2])
    if template in _PLAIN:
        return digest, match[3] + b"\0"
    if template == _APPENDED:
        return _appended_fields(digest, match[3])
    last = _LAST_HEX.fullmatch(match[3])
    if template in _SIGNED and (last is None or not (last[2] or match[3].endswith(b" "))):
        return digest, match[3] + b"\0", b""  # tools strip the blank before an empty signature
    if template not in {*_SIGNED, _BUFFER} or last is None:
        return None
    return digest, last[1] + b"\0", _unhex(last[2])


def _appended_fields(digest: bytes, rest: bytes) -> tuple[bytes, ...] | None:
    """The fields of ``ima-modsig``: signature, then digest and signature of a signed appendix.

    Each of the three may be empty; its blank is there all the same.
    """
    match = _MODSIG.fullmatch(rest)
    if match is None:
        return None
    path, signature, algorithm, inner, appended = match.groups()
    inner_digest = b"" if algorithm is None else algorithm + b":\0" + _unhex(inner)
    return digest, path + b"\0", _unhex(signature), inner_digest, _unhex(appended)


def _unhex(text: bytes) -> bytes:
    return bytes.fromhex(text.decode())


def _fault(what: str, offset: int, expected: str | None = None) -> FormatError:
    return FormatError(f"IMA {what}", offset=offset, expected=expected)
