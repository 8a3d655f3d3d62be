"""Logs that grow while a system runs, entry by entry: IMA's files, and what systemd measured.

An entry's words are proven if its digest covers them, and only in a log that replays to a quoted
PCR. A violation of IMA proves no file: the kernel could not measure a stable one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from catena.formats import ima
from catena.formats.cel import CelRecord
from catena.formats.ima import ImaEntry
from catena.ids import HashAlg
from catena.measure.escape import escape

MAX_WORDS = 4096
MAX_KIND = 64

_BUFFER = "ima-buf"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. ``pcr`` is None for an NV index. ``kind`` (IMA's template) is *untrusted*.

    ``digest`` is of the file for IMA (``sha256:…``, without algorithm if it has none), of the
    record otherwise; ``words`` are a path or a text, *untrusted* unless ``proven``.
    """

    index: int
    pcr: int | None
    kind: str
    digest: str
    words: str
    proven: bool
    violation: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of a log, in order; ``unproven`` counts those whose words nothing covers."""

    format: str
    events: int
    unproven: int
    violations: int
    entries: tuple[Entry, ...]


def list_ima(log: Iterable[ImaEntry]) -> Listing:
    """The entries of an IMA log. Its own digests are SHA-1, and cover what other banks cover."""
    return _listing("ima", (_ima(entry) for entry in log))


def list_records(log: Iterable[CelRecord]) -> Listing:
    """The records of a canonical event log: proven are those whose text all banks cover."""
    return _listing("cel", (_record(record) for record in log))


def _listing(kind: str, found: Iterable[Entry]) -> Listing:
    entries = tuple(found)
    return Listing(
        format=kind,
        events=len(entries),
        unproven=sum(not one.proven for one in entries),
        violations=sum(one.violation for one in entries),
        entries=entries,
    )


def _ima(entry: ImaEntry) -> Entry:
    algorithm, digest = entry.file_digest
    covered = HashAlg.SHA1.digest(ima.hashed(entry)) == entry.template_digest
    return Entry(
        index=entry.index,
        pcr=entry.pcr,
        kind=escape(entry.template_name, MAX_KIND),
        digest=escape(f"{algorithm}:{digest.hex()}".removeprefix(":"), MAX_WORDS),
        words=escape(_ima_words(entry), MAX_WORDS),
        proven=covered and not entry.is_violation,
        violation=entry.is_violation,
    )


def _ima_words(entry: ImaEntry) -> str:
    """The path; of a measured buffer (a key, the command line of kexec) what it holds, too."""
    if entry.template_name != _BUFFER or len(entry.fields) <= ima.BUFFER_FIELD:
        return entry.path
    buffer = entry.fields[ima.BUFFER_FIELD]
    text = buffer.rstrip(b"\0").decode("ascii", "replace")
    return f"{entry.path}: {text if text.isascii() and text.isprintable() else buffer.hex()}"


def _record(record: CelRecord) -> Entry:
    digests = record.digests
    best = next((bank for bank in (HashAlg.SHA256, *HashAlg) if bank in digests), None)
    return Entry(
        index=record.index,
        pcr=record.pcr,
        kind=escape(record.content_type, MAX_KIND),
        digest="" if best is None else f"{best}:{digests[best].hex()}",
        words=escape(record.text.decode("utf-8", "backslashreplace"), MAX_WORDS),
        proven=bool(digests)
        and all(bank.digest(record.text) == digest for bank, digest in digests.items()),
    )
