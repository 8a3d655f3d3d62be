"""What the logs of one boot say about it: TRUST, attestation steps f to i.

All of it follows from the manifest (which names every log by its SHA-256), the quoted PCRs, their
bank and the references, and from nothing else. A node that attests every half minute repeats
all four, so an ``ExaminedBoot`` may be given back to ``examine``: if it answers the same
question, it *is* the answer; if only a log that grows at run time has, its other parts are. What the
quote itself must prove (steps a to e) is no part of it and is proven every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catena.appraise.containerclaims import Contained, facts_together, judge_containers
from catena.appraise.containers import ReadRecord, read_record
from catena.appraise.explanation import Explanation, explain
from catena.appraise.facts import ClaimedFacts, ContainerFacts, claimed_facts
from catena.appraise.indices import CertifiedIndex, UnrecordedIndex, expected_indices
from catena.appraise.logs import Logs, check_contents, read_entries, read_logs
from catena.appraise.measured import MeasuredEvent, firmware_events, ima_events
from catena.appraise.recorded import before_any, before_any_in, check_record
from catena.appraise.reference import References
from catena.appraise.replayed import ProvenIma, check_extended, check_replay, unproven
from catena.evidence import LogEntry
from catena.formats.nodeapi import Reason
from catena.formats.tcglog import EventLog
from catena.ids import HashAlg, Sha256Hex
from catena.measure import facts as boot_facts
from catena.measure import grammar
from catena.measure.facts import BootFacts
from catena.measure.quirks import Quirk, Quirks
from catena.measure.reading import read_events
from catena.measure.replay import Replay, replay, reset_value


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware log that was found sound in one bank; ``stated`` are its PCRs for references.

    ``quirks`` are the rules that recognise something in it, each once.
    """

    log: EventLog
    replay: Replay
    facts: BootFacts
    events: tuple[MeasuredEvent, ...]
    stated: Mapping[int, bytes]
    quirks: tuple[Quirk, ...]


@dataclass(frozen=True, slots=True)
class IndexedRecord:
    """What the record in one NV index says as far as it is proven, judged."""

    nv_index: int
    record: ReadRecord
    contained: Contained


@dataclass(frozen=True, slots=True)
class ExaminedBoot:
    """A boot whose logs explain the quoted PCRs; the first five fields are the question.

    ``entry`` is the firmware log's line of the manifest. IMA's log ran ``ima_ahead`` entries
    ahead of the quote, which covers ``ima``: ``runtime`` has those entries as events. ``record``
    is what the gate's record says as far as it is proven, None without one; ``indexed`` has the
    records that NV indices hold, in the server's order.
    """

    manifest: tuple[LogEntry, ...]
    pcrs: tuple[bytes, ...]
    indices: tuple[CertifiedIndex, ...]
    bank: HashAlg
    references: References
    entry: LogEntry
    firmware: Firmware
    ima: ProvenIma
    ima_ahead: int
    runtime: tuple[MeasuredEvent, ...]
    opaque_events: int
    explanation: Explanation
    claimed: ClaimedFacts
    record: ReadRecord | None
    contained: Contained
    indexed: tuple[IndexedRecord, ...]
    containers: ContainerFacts

    @property
    def records(self) -> tuple[tuple[ReadRecord, Contained], ...]:
        """Every record, that of a PCR first."""
        first = () if self.record is None else ((self.record, self.contained),)
        return (*first, *((one.record, one.contained) for one in self.indexed))

    @property
    def container_reasons(self) -> tuple[Reason, ...]:
        """Everything that speaks against the containers, of all records."""
        indexed = (reason for one in self.indexed for reason in one.contained.reasons)
        return (*self.contained.reasons, *indexed)

    @property
    def ima_covered(self) -> int:
        """How many entries of IMA's log the quote covers."""
        return self.ima.entries

    @property
    def sha256(self) -> Sha256Hex:
        """The firmware log, by digest."""
        return Sha256Hex(self.entry.sha256)


@dataclass(frozen=True, slots=True)
class Question:
    """What is examined: PCRs that a quote has proven, the manifest bound to it, certified indices."""

    manifest: tuple[LogEntry, ...]
    pcrs: tuple[bytes, ...]
    bank: HashAlg
    references: References
    indices: tuple[CertifiedIndex, ...] = ()

    def is_answered_by(self, known: ExaminedBoot) -> bool:
        """Whether ``known`` is the answer. References are the same only if nothing reloaded them."""
        return (
            known.references is self.references
            and known.bank is self.bank
            and known.pcrs == self.pcrs
            and known.manifest == self.manifest
            and known.indices == self.indices
        )

    def shares_firmware_with(self, known: ExaminedBoot) -> bool:
        """Whether the firmware log was examined in this bank, whatever else has changed."""
        return (
            known.bank is self.bank
            and known.entry in self.manifest
            and known.references.quirks == self.references.quirks
        )


def examine(
    question: Question, contents: Mapping[str, bytes], known: ExaminedBoot | None = None
) -> ExaminedBoot:
    """Steps f to i.

    ``contents`` maps SHA-256 to content. It must hold what the manifest names, unless ``known``
    answers the question; what it holds must be what it is named. Raises a ``Refusal``.
    """
    if known is not None and question.is_answered_by(known):
        check_contents(question.manifest, contents)
        return known
    same = known is not None and question.shares_firmware_with(known)
    return _examine(question, contents, known if same else None)


def _examine(
    question: Question, contents: Mapping[str, bytes], known: ExaminedBoot | None
) -> ExaminedBoot:
    """Examine what ``known`` does not answer; it has the same firmware log in the same bank."""
    bank = question.bank
    firmware = known.firmware if known else None
    check_extended(question.pcrs)  # (f)
    logs = read_logs(question.manifest, contents, bank, firmware.log if firmware else None)
    replayed = firmware.replay if firmware else replay(logs.boot, bank)
    ima, pcr = known.ima if known else unproven(bank), question.references.container_pcr
    elsewhere = logs.record is not None or question.references.container_indices
    proven = check_replay(question.pcrs, logs, replayed, ima, pcr if elsewhere else None)
    indexed = _indexed(question, logs, replayed, known.indexed if known else ())
    record = _record(question, logs, replayed, known.record if known else None)
    contained = judge_containers(
        record.account if record else None, question.references.container_policies, pcr
    )
    firmware = firmware or examine_firmware(logs.boot, replayed, question.references.quirks)
    runtime = _runtime(logs, proven, known, replayed)
    events = (*firmware.events, *runtime)
    same = known if known and known.references is question.references else None
    if same is not None and same.runtime is runtime:
        explanation = same.explanation
    else:
        explanation = explain(events, question.references, bank, firmware.stated)  # (i)
    return ExaminedBoot(
        manifest=question.manifest,
        pcrs=question.pcrs,
        indices=question.indices,
        bank=bank,
        references=question.references,
        entry=logs.boot_entry,
        firmware=firmware,
        ima=proven,
        ima_ahead=logs.ima_entries - proven.entries,
        runtime=runtime,
        opaque_events=sum(event.extends and not event.bound for event in events),
        explanation=explanation,
        claimed=claimed_facts(explanation, firmware.quirks),
        record=record,
        contained=contained,
        indexed=indexed,
        containers=facts_together((contained, *(one.contained for one in indexed))),
    )


def _record(
    question: Question, logs: Logs, replayed: Replay, known: ReadRecord | None
) -> ReadRecord | None:
    """What ran in containers, from where the firmware's log leaves the PCR to the quoted value."""
    if logs.record is None:
        return None
    pcr = question.references.container_pcr
    nothing = before_any(question.bank, pcr, replayed.pcrs[pcr])
    place = known.place if known else None
    proven, goes_on = check_record(question.pcrs[pcr], logs.record, nothing, place)
    return read_record(logs.record, nothing, proven, known if goes_on else None)


def _indexed(
    question: Question, logs: Logs, replayed: Replay, known: Sequence[IndexedRecord]
) -> tuple[IndexedRecord, ...]:
    """What ran in containers by the records in NV indices, each up to its certified value."""
    references, pcr = question.references, question.references.container_pcr
    values = expected_indices(
        question.indices,
        references,
        logs,
        quoted=question.pcrs[pcr],
        base=replayed.pcrs[pcr],
        bank=question.bank,
    )
    before = {one.nv_index: one.record for one in known}
    found = []
    for index, value in values.items():
        log = logs.indexed.get(index.index)
        if log is None and value != index.base:
            raise UnrecordedIndex(f"{index} has records, and the evidence has none")
        nothing, last = before_any_in(index), before.get(index.index)
        place, log = last.place if last else None, log or b""
        proven, goes_on = check_record(value, log, nothing, place)
        record = read_record(log, nothing, proven, last if goes_on else None)
        contained = judge_containers(
            record.account, references.container_policies, pcr, index.index
        )
        found.append(IndexedRecord(index.index, record, contained))
    return tuple(found)


def _runtime(
    logs: Logs, proven: ProvenIma, known: ExaminedBoot | None, replayed: Replay
) -> tuple[MeasuredEvent, ...]:
    """What IMA measured. Entries that were proven before are not read again."""
    if known is not None and known.ima == proven:
        return known.runtime
    log = logs.ima[: proven.size]
    if known is None or proven.size < known.ima.size or not known.ima.begins(log):
        return ima_events(logs.boot, replayed, read_entries(log))
    news = read_entries(log, known.ima.size, known.ima.entries)
    return (*known.runtime, *ima_events(logs.boot, replayed, news))


def examine_firmware(log: EventLog, replayed: Replay, quirks: Quirks) -> Firmware:
    """Steps g and h: what a firmware log says in the bank of its replay. Raises a ``Refusal``."""
    bank = replayed.bank
    readings = read_events(log, bank)
    facts = boot_facts.read(log, bank, readings)  # (g)
    grammar.check(log, bank, quirks)  # (h)
    events = firmware_events(readings, bank, quirks)
    odd = {event.quirk.id: event.quirk for event in events if event.quirk is not None}
    return Firmware(log, replayed, facts, events, _stated(events, replayed), tuple(odd.values()))


def _stated(events: Sequence[MeasuredEvent], replayed: Replay) -> Mapping[int, bytes]:
    """The PCRs as references state them: without what a quirk rule accounts for.

    A key set says what keys measure into PCR 7; that this firmware also measures a remark there
    is the quirk's to explain. All else must be there, in order.
    """
    odd = {event.pcr for event in events if event.is_quirk}
    if not odd:
        return replayed.pcrs
    bank, values = replayed.bank, dict(replayed.pcrs)
    for pcr in odd:
        value = reset_value(pcr, bank)
        for event in events:
            if event.pcr == pcr and event.extends and not event.is_quirk:
                value = bank.digest(value + bytes.fromhex(event.digest))
        values[pcr] = value
    return values
