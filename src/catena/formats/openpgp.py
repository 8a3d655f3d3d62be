"""The outside of OpenPGP messages (RFC 9580, sections 4.2, 5.6 and 6): armor, packets, compression.

What is in a signature or a key is left to the library that verifies it. This module bounds what
that library is given: which packets there are, how many, and how large they grow.

======================  =============================================================
armor                   ``-----BEGIN PGP KIND-----``, headers, an empty line, base64, ``=`` CRC-24
packet, old header      ``10tttttt``: tag, length of 1, 2 or 4 bytes, or until the end
packet, new header      ``11tttttt``: tag, length of 1, 2 or 5 bytes, or in partial chunks
compressed data (8)     algorithm u8: 0 none, 1 DEFLATE, 2 zlib, 3 bzip2; then packets
======================  =============================================================
"""

from __future__ import annotations

import base64
import binascii
import bz2
import zlib
from dataclasses import dataclass
from typing import Protocol

from catena.errors import FormatError
from catena.formats.reader import Reader

SIGNATURE, ONE_PASS, COMPRESSED, LITERAL = 2, 4, 8, 11
SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY = 5, 6, 7
"""Packet tags (section 5)."""
SIGNATURE_ARMOR, MESSAGE_ARMOR, KEY_ARMOR = "SIGNATURE", "MESSAGE", "PUBLIC KEY BLOCK"

MAX_INPUT = 256 * 1024
MAX_PACKETS = 1024
MAX_CHUNKS = 4096
MAX_INFLATED = MAX_INPUT
_LINE = 64
_CRC_START, _CRC_POLYNOMIAL = 0xB704CE, 0x1864CFB


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its tag, its content, and all of its bytes as they came."""

    tag: int
    body: bytes
    raw: bytes


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def parse(data: bytes) -> tuple[Packet, ...]:
    """Split binary OpenPGP data into packets. Raises ``FormatError``."""
    _check_size(data)
    reader = Reader(data, order="big")
    packets: list[Packet] = []
    while reader.remaining:
        if len(packets) == MAX_PACKETS:
            raise FormatError("too many OpenPGP packets", offset=reader.offset)
        packets.append(_packet(reader, data))
    return tuple(packets)


def inflate(packet: Packet) -> tuple[Packet, ...]:
    """The packets in a compressed data packet, which hold no other. Raises ``FormatError``."""
    algorithm, content = packet.body[:1], packet.body[1:]
    match algorithm:
        case b"\0":
            plain = content
        case b"\1":
            plain = _inflated(zlib.decompressobj(-zlib.MAX_WBITS), content)
        case b"\2":
            plain = _inflated(zlib.decompressobj(), content)
        case b"\3":
            plain = _inflated(bz2.BZ2Decompressor(), content)
        case _:
            raise FormatError("OpenPGP compression is not known", got=algorithm.hex())
    try:
        packets = parse(plain)
    except FormatError as error:
        error.offset = 0  # of the decompressed content
        raise
    if any(one.tag == COMPRESSED for one in packets):
        raise FormatError("OpenPGP data is compressed twice")
    return packets


def dearmor(data: bytes, kind: str) -> bytes:
    """Binary OpenPGP data as it is, or what is in armor of ``kind``. Raises ``FormatError``."""
    _check_size(data)
    if not data.lstrip().startswith(b"-----"):
        return data
    lines = [line.rstrip() for line in data.strip().splitlines()]
    first, last = (f"-----{word} PGP {kind}-----".encode() for word in ("BEGIN", "END"))
    if lines[0] != first or lines[-1] != last or b"" not in lines:
        raise FormatError("not OpenPGP armor of the kind asked for", expected=kind)
    headers = lines.index(b"")
    if not all(b": " in line for line in lines[1:headers]):
        raise FormatError("OpenPGP armor has a bad header")
    body = lines[headers + 1 : -1]
    checksum = body.pop() if body and body[-1].startswith(b"=") else b""
    content = _from_base64(b"".join(body))
    if checksum and _from_base64(checksum[1:]) != crc24(content):
        raise FormatError("OpenPGP armor's checksum does not fit its content")
    return content


def armor(content: bytes, kind: str) -> str:
    """``content`` in armor; ``dearmor`` gives it back."""
    text = base64.b64encode(content).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    checksum = "=" + base64.b64encode(crc24(content)).decode()
    return "\n".join((f"-----BEGIN PGP {kind}-----", "", *lines, checksum, f"-----END PGP {kind}-----", ""))  # fmt: skip


def crc24(content: bytes) -> bytes:
    """The checksum of armor (section 6.1), three bytes."""
    crc = _CRC_START
    for byte in content:
        crc = ((crc << 8) & 0xFFFFFF) ^ _CRC_TABLE[(crc >> 16) ^ byte]
    return crc.to_bytes(3, "big")


def _crc_step(value: int) -> int:
    crc = value << 16
    for _ in range(8):
        crc <<= 1
        if crc & 0x1000000:
            crc ^= _CRC_POLYNOMIAL
    return crc


_CRC_TABLE = tuple(_crc_step(value) for value in range(256))


def _packet(reader: Reader, data: bytes) -> Packet:
    start = reader.offset
    first = reader.uint(1, "OpenPGP packet")
    if not first & 0x80:
        raise FormatError("not an OpenPGP packet", offset=start, got=f"{first:#04x}")
    if first & 0x40:
        tag, body = first & 0x3F, _new_body(reader)
    else:
        tag, body = (first >> 2) & 0x0F, _old_body(reader, first & 3)
    return Packet(tag, body, data[start : reader.offset])


def _old_body(reader: Reader, kind: int) -> bytes:
    size = reader.remaining if kind == 3 else reader.uint(1 << kind, "OpenPGP packet length")
    return reader.take(size, "OpenPGP packet")


def _new_body(reader: Reader) -> bytes:
    chunks: list[bytes] = []
    while True:
        if len(chunks) == MAX_CHUNKS:
            raise FormatError("OpenPGP packet has too many chunks", offset=reader.offset)
        size, partial = _new_length(reader)
        chunks.append(reader.take(size, "OpenPGP packet"))
        if not partial:
            return b"".join(chunks)


def _new_length(reader: Reader) -> tuple[int, bool]:
    """The length of a packet or chunk, and whether another chunk follows (section 4.2.1)."""
    first = reader.uint(1, "OpenPGP packet length")
    if first < 192:
        return first, False
    if first < 224:
        return ((first - 192) << 8) + reader.uint(1, "OpenPGP packet length") + 192, False
    if first < 255:
        return 1 << (first & 0x1F), True
    return reader.uint(4, "OpenPGP packet length"), False


def _inflated(decompressor: _Decompressor, content: bytes) -> bytes:
    try:
        plain = decompressor.decompress(content, MAX_INFLATED)
    except (zlib.error, OSError, ValueError) as error:
        raise FormatError("OpenPGP data cannot be decompressed") from error
    if not decompressor.eof or decompressor.unused_data:
        raise FormatError(
            "OpenPGP data is truncated, goes on, or is too large",
            expected=f"at most {MAX_INFLATED} bytes",
        )
    return plain


def _from_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise FormatError("OpenPGP armor is not base64") from error


def _check_size(data: bytes) -> None:
    if len(data) > MAX_INPUT:
        raise FormatError(
            "OpenPGP data is too large", expected=f"at most {MAX_INPUT}", got=f"{len(data)}"
        )
