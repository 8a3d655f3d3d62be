r"""Canonical Event Logs (TCG Canonical Event Log Format 1.0), in the two encodings that exist.

**CEL-TLV**: records of type u8, length u32 and value, big-endian, one after the other::

    0 record number | 1 PCR or 2 NV index | 3 digests | content (another type)
    digests = type: TPM_ALG_ID, value: digest, for every bank

**CEL-JSON** as systemd writes it to ``/run/log/systemd/tpm2-measure.log``: a JSON text sequence
(RFC 7464: each object behind 0x1E and before a newline) without record numbers::

    {"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": hex}], "content_type": "systemd",
     "content": {"string": "enter-initrd", "eventType": "phase"}}

What is measured into an NV index has ``nv_index`` instead of ``pcr``. No digest covers a record's
content as such: which of its bytes were hashed is for its reader to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats.reader import Reader
from catena.ids import PCR_COUNT, HashAlg, hash_alg_from_tpm_id

MAX_LOG = 16 * 1024 * 1024
"""As much as evidence may carry of one log."""
MAX_RECORDS = 128 * 1024
MAX_CONTENT = 64 * 1024
MAX_ALGORITHMS = 8

RECORD_SEPARATOR = b"\x1e"
_RECNUM, _PCR, _NV_INDEX, _DIGESTS = range(4)
_HEAD = 5
_MAX_DIGESTS = 1024
_FIELD_KINDS = ((_RECNUM,), (_PCR, _NV_INDEX), (_DIGESTS,), range(_DIGESTS + 1, 256))
_FIELD_LIMITS = (8, 4, _MAX_DIGESTS, MAX_CONTENT)
_SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True)
class CelRecord:
    """One record. Exactly one of ``pcr`` and ``nv_index`` is set.

    ``content_type`` is the number of a TLV content, or the name of a JSON one; ``content`` the
    raw value. Both are *untrusted*.
    """

    index: int
    pcr: int | None
    nv_index: int | None
    digests: dict[HashAlg, bytes]
    content_type: str
    content: bytes
    offset: int

    @property
    def text(self) -> bytes:
        """The bytes that systemd hashes for its records: the ``string`` of their content."""
        if self.content_type != _SYSTEMD:
            return self.content
        try:
            return msgspec.json.decode(self.content, type=_SystemdContent).string.encode()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self.content


class _SystemdContent(msgspec.Struct, frozen=True):
    string: str


class _JsonDigest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    hash_alg: str
    digest: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})+\Z", max_length=128)]


class _JsonRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digests: Annotated[
        tuple[_JsonDigest, ...], msgspec.Meta(min_length=1, max_length=MAX_ALGORITHMS)
    ]
    content_type: Annotated[str, msgspec.Meta(max_length=64)]
    content: msgspec.Raw
    pcr: Annotated[int, msgspec.Meta(ge=0, lt=PCR_COUNT)] | None = None
    nv_index: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] | None = None
    recnum: Annotated[int, msgspec.Meta(ge=0)] | None = None


def parse_json(data: bytes) -> tuple[CelRecord, ...]:
    """Read a CEL-JSON sequence. Raises ``FormatError`` with the offset of the record at fault."""
    _check_size(data)
    records: list[CelRecord] = []
    offset = 0
    while offset < len(data):
        if data[offset : offset + 1] != RECORD_SEPARATOR:
            raise FormatError("no record separator", offset=offset, expected="0x1E")
        end = data.find(RECORD_SEPARATOR, offset + 1)
        end = len(data) if end < 0 else end
        _check_count(len(records), offset)
        records.append(_json_record(data[offset + 1 : end], len(records), offset))
        offset = end
    return tuple(records)


def parse_tlv(data: bytes) -> tuple[CelRecord, ...]:
    """Read a CEL-TLV log. Raises ``FormatError`` with an offset."""
    _check_size(data)
    reader = Reader(data, order="big")
    records: list[CelRecord] = []
    while reader.remaining:
        _check_count(len(records), reader.offset)
        records.append(_tlv_record(reader, len(records)))
    return tuple(records)


def complete_tlv(data: bytes) -> int:
    """How many bytes whole records take; what follows is the beginning of one more, cut short.

    For the writer of a log, who may have been interrupted. Raises ``FormatError`` for what can
    be no beginning of a record: a length above its limit.
    """
    _check_size(data)
    offset = 0
    while (end := record_end(data, offset)) is not None:
        offset = end
    return offset


def record_end(data: bytes, offset: int = 0) -> int | None:
    """Where the record at ``offset`` ends, or None if it is cut short (or if there is none).

    Raises ``FormatError`` for a length above its limit.
    """
    for limit in _FIELD_LIMITS:
        size = int.from_bytes(data[offset + 1 : offset + _HEAD], "big")
        if offset + _HEAD <= len(data) and size > limit:
            raise FormatError(
                "CEL field is too long", offset=offset, expected=f"at most {limit}", got=f"{size}"
            )
        offset += _HEAD + size
        if offset > len(data):
            return None
    return offset


def cut_content(data: bytes) -> bytes:
    """What there is of the content of a record that is cut short: maybe nothing.

    Raises ``FormatError`` if what is in front of it is no beginning of a record.
    """
    at = 0
    for kinds in _FIELD_KINDS:
        if at < len(data) and data[at] not in kinds:
            raise FormatError("CEL field is out of place", offset=at, got=f"type {data[at]}")
        size = int.from_bytes(data[at + 1 : at + _HEAD], "big")
        start, at = min(at + _HEAD, len(data)), min(at + _HEAD + size, len(data))
    return data[start:at]


def encode_tlv(record: CelRecord) -> bytes:
    """A record in CEL-TLV; ``parse_tlv`` gives it back, numbered by its place."""
    digests = b"".join(_tlv(alg.tpm_id, value) for alg, value in record.digests.items())
    place = (
        _tlv(_NV_INDEX, (record.nv_index or 0).to_bytes(4, "big"))
        if record.pcr is None
        else _tlv(_PCR, record.pcr.to_bytes(4, "big"))
    )
    number = _tlv(_RECNUM, record.index.to_bytes(8, "big"))
    content = _tlv(int(record.content_type), record.content)
    return number + place + _tlv(_DIGESTS, digests) + content


def _json_record(text: bytes, index: int, offset: int) -> CelRecord:
    if len(text) > MAX_CONTENT:
        raise FormatError("CEL record is too long", offset=offset, expected=f"{MAX_CONTENT}")
    try:
        record = msgspec.json.decode(text, type=_JsonRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"not a CEL-JSON record: {error}", offset=offset) from error
    if (record.pcr is None) == (record.nv_index is None):
        raise FormatError("CEL record needs one of pcr and nv_index", offset=offset)
    if record.recnum not in {None, index}:
        raise FormatError("CEL record is out of sequence", offset=offset, expected=f"{index}")
    digests: dict[HashAlg, bytes] = {}
    for one in record.digests:
        if one.hash_alg in set(HashAlg):
            _add(digests, HashAlg(one.hash_alg), bytes.fromhex(one.digest), offset)
    return CelRecord(
        index=index,
        pcr=record.pcr,
        nv_index=record.nv_index,
        digests=digests,
        content_type=record.content_type,
        content=bytes(record.content),
        offset=offset,
    )


def _tlv_record(reader: Reader, index: int) -> CelRecord:
    offset = reader.offset
    number = _number(_field(reader, _RECNUM, 8, "record number"))
    if number != index:
        raise FormatError(
            "CEL record is out of sequence", offset=offset, expected=f"{index}", got=f"{number}"
        )
    kind, value = _value(reader, 4, "PCR or NV index")
    if kind not in {_PCR, _NV_INDEX} or not value:
        raise FormatError("CEL record names neither PCR nor NV index", offset=offset)
    place = _number(value)
    if kind == _PCR and place >= PCR_COUNT:
        raise FormatError("CEL PCR is out of range", offset=offset, got=f"{place}")
    digests = _tlv_digests(_field(reader, _DIGESTS, _MAX_DIGESTS, "digests"), offset)
    content_type, content = _value(reader, MAX_CONTENT, "content")
    if content_type <= _DIGESTS:
        raise FormatError("CEL record has no content", offset=offset)
    return CelRecord(
        index=index,
        pcr=place if kind == _PCR else None,
        nv_index=place if kind == _NV_INDEX else None,
        digests=digests,
        content_type=str(content_type),
        content=content,
        offset=offset,
    )


def _tlv_digests(data: bytes, offset: int) -> dict[HashAlg, bytes]:
    reader = Reader(data, order="big")
    digests: dict[HashAlg, bytes] = {}
    count = 0
    while reader.remaining:
        count += 1
        if count > MAX_ALGORITHMS:
            raise FormatError("CEL record has too many digests", offset=offset)
        try:
            kind, value = _value(reader, 64, "digest")
        except FormatError as error:
            error.offset = offset
            raise
        bank = hash_alg_from_tpm_id(kind)
        if bank is not None:
            _add(digests, bank, value, offset)
    return digests


def _add(digests: dict[HashAlg, bytes], bank: HashAlg, value: bytes, offset: int) -> None:
    if bank in digests or len(value) != bank.size:
        raise FormatError(
            f"CEL {bank} digest",
            offset=offset,
            expected=f"{bank.size} bytes, once",
            got=f"{len(value)} bytes",
        )
    digests[bank] = value


def _field(reader: Reader, wanted: int, limit: int, what: str) -> bytes:
    offset = reader.offset
    kind, value = _value(reader, limit, what)
    if kind != wanted:
        raise FormatError(f"CEL {what}", offset=offset, expected=f"type {wanted}", got=f"{kind}")
    return value


def _value(reader: Reader, limit: int, what: str) -> tuple[int, bytes]:
    kind = reader.uint(1, f"CEL {what}")
    return kind, reader.sized(4, limit, f"CEL {what}")


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big")


def _tlv(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(1, "big") + len(value).to_bytes(4, "big") + value


def _check_size(data: bytes) -> None:
    if len(data) > MAX_LOG:
        raise FormatError("CEL is too large", expected=f"at most {MAX_LOG}", got=f"{len(data)}")


def _check_count(count: int, offset: int) -> None:
    if count == MAX_RECORDS:
        raise FormatError("CEL has too many records", offset=offset, expected=f"{MAX_RECORDS}")
