"""Replaying logs to PCR values: the only thing that ties a log to a quote.

Extending is ``PCR = H(PCR ‖ digest)`` from the reset value (TPM 2.0 Part 1, clause 17). A replay
says what the PCRs *would* hold if the log were the whole truth; the log is proven only once
these values equal quoted ones, and even then only its digests and their order within each PCR.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from catena.formats.ima import ImaEntry, replay_digest
from catena.formats.tcglog import NO_ACTION, STARTUP_LOCALITY, Event, EventLog, EventType
from catena.ids import PCR_COUNT, HashAlg

IMA_PCR = 10
DYNAMIC_PCRS = range(17, 23)
HCRTM_LOCALITY = 4
_HCRTM = int(EventType.EV_EFI_HCRTM_EVENT)

_AGGREGATED_PCRS = {HashAlg.SHA1: range(8)}
_AGGREGATED_PCRS_SINCE_5_8 = range(10)


@dataclass(frozen=True, slots=True)
class Replay:
    """PCRs 0–23 after the log: reset values where nothing was extended.

    ``extended`` are the PCRs some event extended in this bank. ``startup_locality`` is the last
    byte of PCR 0's reset value if the log says that it was not 0.
    """

    bank: HashAlg
    pcrs: dict[int, bytes]
    extended: frozenset[int]
    startup_locality: int | None


def replay(log: EventLog, bank: HashAlg) -> Replay:
    """Replay ``log`` in ``bank``. ``EV_NO_ACTION`` never extends.

    An event without a digest in ``bank`` leaves it alone, as firmware that does not know the
    bank does; ``measure.grammar`` refuses such logs. PCRs 17–22 reset to ones at power-on and
    to zeros by the dynamic launch, without which nothing can extend them.
    """
    locality = startup_locality(log)
    pcrs: dict[int, bytes] = {}
    hasher = bank.hasher
    zero = bytes(bank.size)
    if locality is not None:
        pcrs[0] = zero[:-1] + bytes([locality])
    extended: set[int] = set()
    for event in log.events:
        digest = event.digests.get(bank)
        if digest is not None and event.type != NO_ACTION:
            pcr = event.pcr
            pcrs[pcr] = hasher(pcrs.get(pcr, zero) + digest).digest()
            extended.add(pcr)
    values = {pcr: pcrs.get(pcr) or reset_value(pcr, bank) for pcr in range(PCR_COUNT)}
    return Replay(bank, values, frozenset(extended), locality)


def reset_value(pcr: int, bank: HashAlg) -> bytes:
    """A PCR's value after power-on at locality 0 (PC Client Platform TPM Profile, 4.6.2)."""
    return (b"\xff" if pcr in DYNAMIC_PCRS else b"\0") * bank.size


def startup_locality(log: EventLog) -> int | None:
    """What the log says PCR 0 started from, or None for zero (PFP 1.06, 10.4.5.3).

    Unauthenticated: PCR 0 replays to the quoted value only if it is true.
    """
    for event in log.events:
        if event.pcr == 0:
            if is_startup_locality(event):
                return _told(event)
            if event.type == _HCRTM:
                return HCRTM_LOCALITY
    return None


def told_locality(log: EventLog) -> int | None:
    """The locality of the log's StartupLocality event, if there is one."""
    return next((_told(event) for event in log.events if is_startup_locality(event)), None)


def _told(event: Event) -> int | None:
    return event.data[len(STARTUP_LOCALITY)] if len(event.data) > len(STARTUP_LOCALITY) else None


def is_startup_locality(event: Event) -> bool:
    """True for an event that claims to tell the startup locality, well-formed or not."""
    return event.type == NO_ACTION and event.data.startswith(STARTUP_LOCALITY)


def replay_ima(entries: Iterable[ImaEntry], bank: HashAlg) -> dict[int, bytes]:
    """The PCRs that ``entries`` extend, each from zero.

    A kernel that lacks a bank's hash when IMA starts (SHA-384 as a module) extends the SHA-1
    digest padded with zeros into it. That is no stronger than SHA-1 and not replayed here.
    """
    pcrs: dict[int, bytes] = {}
    zero = bytes(bank.size)
    for entry in entries:
        value = pcrs.get(entry.pcr, zero)
        pcrs[entry.pcr] = bank.digest(value + replay_digest(entry, bank))
    return pcrs


def extend(bank: HashAlg, digests: Iterable[bytes]) -> bytes:
    """A PCR's value after ``digests``, from zero (TPM 2.0 Part 1, 11.4.8)."""
    value = bytes(bank.size)
    for digest in digests:
        value = bank.digest(value + digest)
    return value


def boot_aggregate(pcrs: Mapping[int, bytes], bank: HashAlg) -> bytes:
    """File digest of IMA's first entry: the hash over the boot PCRs as the kernel found them.

    PCRs 0–7 for SHA-1, 0–9 for other banks since Linux 5.8 (``ima_calc_boot_aggregate``).
    """
    selected = _AGGREGATED_PCRS.get(bank, _AGGREGATED_PCRS_SINCE_5_8)
    return bank.digest(b"".join(pcrs[pcr] for pcr in selected))
