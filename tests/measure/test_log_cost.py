"""What a log costs to read is bounded by its size: no input below 1 MB takes 1 s or 64 MB.

Each input is made to be as much work as its format allows: the smallest entries there are, as
many as fit; a tail that looks like padding; text nested as deep as it gets.
"""

from __future__ import annotations

import struct
import time
import tracemalloc

import pytest

from catena.errors import FormatError
from catena.formats import cel, ima
from catena.measure.logfile import replay_all

MEBIBYTE = 1024 * 1024
MAX_SECONDS = 1.0
MAX_MEMORY = 64 * MEBIBYTE


def sha1_event(data: bytes = b"", event_type: int = 0) -> bytes:
    return struct.pack("<II20sI", 0, event_type, b"x" * 20, len(data)) + data


def agile_event(data: bytes = b"") -> bytes:
    return struct.pack("<IIIH20sI", 0, 0, 1, 4, b"x" * 20, len(data)) + data


SPEC_ID = b"Spec ID Event03\0" + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, 4, 20, 0)
AGILE = sha1_event(SPEC_ID, event_type=3)


def ima_entry(template: bytes, content: bytes) -> bytes:
    return struct.pack("<I20sI", 10, b"x" * 20, len(template)) + template + content


def ima_of_fields(count: int) -> bytes:
    data = ima.encode_fields(*[b""] * count)
    return ima_entry(b"ima-ng", struct.pack("<I", len(data)) + data)


def cel_record(index: int) -> bytes:
    return cel.encode_tlv(cel.CelRecord(index, 0, None, {}, "4", b"", 0))


def cel_json(content: bytes, algorithm: bytes = b"x", digest: bytes = b"00") -> bytes:
    return (
        b'\x1e{"pcr":0,"digests":[{"hashAlg":"%s","digest":"%s"}],' % (algorithm, digest)
        + b'"content_type":"systemd","content":%s}' % content
    )


def filled(piece: bytes) -> bytes:
    """As many of ``piece`` as fit."""
    return piece * (MEBIBYTE // len(piece))


ASCII_LINE = b"10 " + b"0" * 40 + b" ima-sig sha1:00 "
NESTED = b"[" * 30_000 + b"]" * 30_000

HOSTILE = {
    "tcg2-tiny-events": AGILE + agile_event() * 4095,
    "tcg2-too-many-events": AGILE + filled(agile_event())[:1_000_000],
    "tcg2-zero-events-and-zero-tail": AGILE + agile_event() * 4000 + agile_event(bytes(850_000)),
    "tcg2-zero-tail-too-short": AGILE + agile_event() * 4000 + agile_event(bytes(850_000))[:-1],
    "tcg12-zero-events-and-zero-tail": sha1_event() * 4000 + sha1_event(bytes(900_000)),
    "tcg12-ones-tail": sha1_event() * 4000 + sha1_event(b"\xff" * 900_000),
    "ima-tiny-entries": filled(ima_of_fields(2)),
    "ima-most-fields": filled(ima_of_fields(16)),
    "ima-old-template": filled(ima_entry(b"ima", bytes(24))),
    "ima-text-short-lines": filled(b"10 " + b"0" * 40 + b" ima-ng sha1:00 \n"),
    "ima-text-blanks": filled(ASCII_LINE + b"00 " * 40_000 + b"\n"),
    "ima-text-odd-hex": filled(ASCII_LINE + b"0" * 120_001 + b"\n"),
    "ima-text-appended": filled(
        ASCII_LINE.replace(b"sig", b"modsig") + b"00 " * 40_000 + b"x:" + b"0" * 9 + b"\n"
    ),
    "ima-text-no-newline": ASCII_LINE + b"0" * 900_000,
    "cel-tlv-tiny-records": b"".join(map(cel_record, range(16384))),
    "cel-json-tiny-records": filled(cel_json(b"0")),
    "cel-json-deep": filled(cel_json(NESTED)),
    "cel-json-deep-text": filled(
        cel_json(b'{"string":"a","x":%s}' % NESTED, b"sha256", b"00" * 32)
    ),
    "cel-json-separators": b"\x1e" * MEBIBYTE,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_log_costs_little_time_and_memory(name):
    wire = HOSTILE[name]
    assert len(wire) <= MEBIBYTE
    assert cpu_seconds(wire) < MAX_SECONDS
    assert peak_memory(wire) < MAX_MEMORY


def cpu_seconds(wire: bytes) -> float:
    start = time.process_time()
    replay_or_refuse(wire)
    return time.process_time() - start


def peak_memory(wire: bytes) -> int:
    tracemalloc.start()
    try:
        replay_or_refuse(wire)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def replay_or_refuse(wire: bytes) -> None:
    try:
        replay_all(wire)
    except FormatError as refused:
        assert 0 <= refused.offset <= len(wire)  # noqa: PT017 - either outcome is allowed
