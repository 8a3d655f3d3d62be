"""How far a node's container record is proven (TRUST, attestation step 5f).

The gate writes a record ahead and extends it after, so the file may run ahead of the quote: the
prefix that replays to the quoted value is *proven*, the rest is not even looked at and waits for
the next round. The replay starts where the firmware's log leaves the PCR, so that what other
software measured there has to be claimed like any other event.

Which PCR it is says the server (``References.container_pcr``), never the record. That a
record's content is bound to the PCR is checked on the way: its digest is over the content.
Of a record that an NV index holds, the same is true of the certified value (``indexed``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from catena.appraise.logs import UnreadableLog
from catena.appraise.refusal import AttestationRefusal
from catena.appraise.replayed import UnexplainedPcr
from catena.errors import FormatError
from catena.formats.cel import CelRecord, tlv_records
from catena.formats.containerlog import CONTENT
from catena.formats.recordindex import BANK, RecordIndex
from catena.ids import HashAlg

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_RECORDS = 128 * 1024
"""Records of one boot; with ``evidence.MAX_LOG`` this bounds the work of a replay."""


class UnexplainedRecord(UnexplainedPcr):
    """No prefix of the container record replays to the quoted PCR: cut, altered, or another boot's."""

    code = "container-record-unexplained"
    remedy = "Containers may have run unrecorded, or the record was edited: replace the node."


class AlteredRecord(AttestationRefusal):
    """A container record whose digest is not over its content."""

    code = "container-record-altered"
    remedy = "Somebody edited the record on the node: replace it."
    step = "f"


class ForeignRecord(AttestationRefusal):
    """A record for another place than the containers' PCR, or of other content."""

    code = "container-record-foreign"
    remedy = "Let the gate extend what `container_pcr` or `container_indices` of server.toml names."
    step = "f"


@dataclass(frozen=True, slots=True)
class ProvenRecord:
    """The first ``records`` records, ``size`` bytes with this ``sha256``, led from ``base`` to ``value``.

    They lie in ``pcr``, or in ``nv_index``.
    """

    bank: HashAlg
    pcr: int | None
    base: bytes
    value: bytes
    records: int = 0
    size: int = 0
    sha256: bytes = hashlib.sha256().digest()
    nv_index: int | None = None

    @property
    def register(self) -> str:
        """``PCR 15`` or ``NV index 0x01800f00``."""
        return register_name(self.pcr, self.nv_index)

    def follows(self, nothing: ProvenRecord) -> bool:
        """Whether both begin with the same PCR, or index, at the same value."""
        return self._begin() == nothing._begin()

    def _begin(self) -> tuple[object, ...]:
        return self.bank, self.pcr, self.nv_index, self.base


def before_any(bank: HashAlg, pcr: int, base: bytes) -> ProvenRecord:
    """Where every record begins: ``base`` is the PCR as the firmware's log leaves it."""
    return ProvenRecord(bank, pcr, base, base)


def before_any_in(index: RecordIndex) -> ProvenRecord:
    """Where every record in an NV index begins: behind its first write."""
    return ProvenRecord(BANK, None, index.base, index.base, nv_index=index.index)


def check_record(
    quoted: bytes, log: bytes, nothing: ProvenRecord, known: ProvenRecord | None
) -> tuple[ProvenRecord, bool]:
    """Step 5f: the prefix of ``log`` that leads from ``nothing`` to ``quoted``.

    ``known`` is what an earlier quote proved; it makes this cheaper and changes it in no other
    way. Whether ``log`` goes on from there is the second answer. Raises ``UnexplainedRecord``,
    ``AlteredRecord``, ``ForeignRecord`` or ``UnreadableLog``.
    """
    if known is not None and known.follows(nothing) and known.size <= len(log):
        hasher = hashlib.sha256(memoryview(log)[: known.size])
        if hasher.digest() == known.sha256:
            proven = _reach(known, log, quoted, hasher)
            if proven is not None:
                return proven, True
    proven = _reach(nothing, log, quoted, hashlib.sha256())
    if proven is None:
        raise UnexplainedRecord(
            f"no prefix of the container record replays to {nothing.register}", got=quoted.hex()
        )
    return proven, False


def proven_records(log: bytes, start: int, index: int, end: int) -> Iterator[tuple[CelRecord, int]]:
    """The records from ``start``, where number ``index`` begins, to ``end``, each with its own end.

    Both places must be proven, so every record between them is sound.
    """
    if start == end:
        return
    for record, place in tlv_records(log, start, index):
        yield record, place
        if place >= end:
            return


def _reach(start: ProvenRecord, log: bytes, quoted: bytes, so_far: _Hash) -> ProvenRecord | None:
    """Extend record by record until the value is ``quoted``. A hash chain has each value once.

    ``so_far`` has hashed the bytes before ``start``.
    """
    if start.value == quoted:
        return start
    value, hasher = start.value, start.bank.hasher
    try:
        for record, end in tlv_records(log, start.size, start.records):
            value = hasher(value + _checked(record, start)).digest()
            if value == quoted:
                so_far.update(memoryview(log)[start.size : end])
                return replace(
                    start,
                    value=value,
                    records=record.index + 1,
                    size=end,
                    sha256=so_far.digest(),
                )
    except FormatError as error:
        raise UnreadableLog(f"the container record is malformed: {error}") from error
    return None


def _checked(record: CelRecord, place: ProvenRecord) -> bytes:
    """The digest that was extended for a record. Raises if it is not one of the gate's."""
    if record.index >= MAX_RECORDS:
        raise UnreadableLog(
            "the container record has too many entries", expected=f"at most {MAX_RECORDS}"
        )
    told = (record.pcr, record.nv_index)
    if told != (place.pcr, place.nv_index) or record.content_type != str(CONTENT):
        raise ForeignRecord(
            f"record {record.index} is not the gate's",
            expected=f"content {CONTENT:#x} for {place.register}",
            got=f"content {int(record.content_type):#x} for {register_name(*told)}",
        )
    digest = place.bank.digest(record.content)
    if record.digests.get(place.bank) != digest:
        raise AlteredRecord(
            f"container record {record.index} does not hash to its {place.bank} digest",
            expected=digest.hex(),
            got=record.digests.get(place.bank, b"").hex() or "none",
        )
    return digest


def register_name(pcr: int | None, nv_index: int | None) -> str:
    """What people call the place of a record."""
    return f"PCR {pcr}" if nv_index is None else f"NV index {nv_index:#010x}"


def sha256_of(log: bytes, size: int) -> bytes:
    """SHA-256 of the first ``size`` bytes, without a copy of them."""
    return hashlib.sha256(memoryview(log)[:size]).digest()
