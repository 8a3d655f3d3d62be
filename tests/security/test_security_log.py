"""Every forged log that TRUST names, made from a real one and judged from end to end.

The node signs what it sends, which a hostile node can: quote, manifest and PCRs all fit the
forged log, except where the case is about sending another log than the TPM measured. What must
come out is the refusal's code, or an untrusted verdict with the reason's.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest

from appraise.forged import (
    CORPUS,
    SHA256,
    Boot,
    Exchange,
    codes,
    encode_log,
    judge,
    measured,
    rebuilt,
)
from catena.errors import Refusal
from catena.formats import tcglog
from catena.formats.efi import parse_variable
from catena.formats.tcglog import STARTUP_LOCALITY, Event, EventType
from changed import replace

CCEL = (
    CORPUS / "eventlogs" / ("google+go-eventlog__testdata__eventlogs__ccel__cos-113-intel-tdx.bin")
)

Events = list[Event]


def separator_of(pcr: int, events: Events) -> int:
    return next(
        i for i, e in enumerate(events) if e.pcr == pcr and e.type == EventType.EV_SEPARATOR
    )


def retyped_separator(events: Events) -> Events:
    at = separator_of(4, events)
    return [
        *events[:at],
        replace_event(events[at], type=EventType.EV_EFI_ACTION),
        *events[at + 1 :],
    ]


def retyped_measurement(events: Events) -> Events:
    at = separator_of(7, events) - 1
    return [*events[:at], replace_event(events[at], type=EventType.EV_SEPARATOR), *events[at + 1 :]]


def late_configuration(events: Events) -> Events:
    late = next(e for e in events if e.pcr == 7 and parse_variable(e.data).name == "db")
    return [*events, late]


def late_driver(events: Events) -> Events:
    kind = EventType.EV_EFI_BOOT_SERVICES_DRIVER
    return [*events, measured(2, kind, b"an option ROM that ran too late")]


def without_separator(events: Events) -> Events:
    at = separator_of(5, events)
    return [*events[:at], *events[at + 1 :]]


def doubled_separator(events: Events) -> Events:
    at = separator_of(5, events)
    return [*events[:at], events[at], *events[at:]]


def error_separator(events: Events) -> Events:
    at = separator_of(6, events)
    error = measured(6, EventType.EV_SEPARATOR, b"\1\0\0\0")
    return [*events[:at], error, *events[at + 1 :]]


def hidden_measurement(events: Events) -> Events:
    at = separator_of(4, events)
    return [*events[:at], measured(4, EventType.EV_NO_ACTION, b"nothing happened"), *events[at:]]


def locality(value: bytes, at: int) -> Callable[[Events], Events]:
    def change(events: Events) -> Events:
        digests = {bank: bytes(bank.size) for bank in events[0].digests}
        data = STARTUP_LOCALITY + value
        told = Event(0, 0, EventType.EV_NO_ACTION, digests, data, 0)
        return [*events[:at], told, *events[at:]]

    return change


def skipped_bank(events: Events) -> Events:
    at = separator_of(7, events) - 1
    others = {bank: digest for bank, digest in events[at].digests.items() if bank != SHA256}
    return [*events[:at], replace_event(events[at], digests=others), *events[at + 1 :]]


def measured_twice(events: Events) -> Events:
    at = separator_of(7, events)
    first = next(e for e in events if e.pcr == 7 and parse_variable(e.data).name == "db")
    other = measured(7, first.type, first.data[:-1] + bytes([first.data[-1] ^ 1]))
    return [*events[:at], other, *events[at:]]


def replace_event(event: Event, **changes: object) -> Event:
    fields = {name: getattr(event, name) for name in FIELDS}
    return Event(**{**fields, **changes})


FIELDS = ("index", "pcr", "type", "digests", "data", "offset")

REFUSED = {
    "separator retyped": (retyped_separator, "retyped-event"),
    "event retyped as a separator": (retyped_measurement, "retyped-event"),
    "key variable after the separator": (late_configuration, "event-after-separator"),
    "driver after the separator": (late_driver, "event-after-separator"),
    "separator missing": (without_separator, "missing-separator"),
    "separator doubled": (doubled_separator, "doubled-separator"),
    "separator after an error": (error_separator, "error-separator"),
    "measurement hidden as EV_NO_ACTION": (hidden_measurement, "extended-no-action"),
    "locality that no platform has": (locality(b"\2", 0), "forged-startup-locality"),
    "locality told in two bytes": (locality(b"\3\0", 0), "forged-startup-locality"),
    "locality told too late": (locality(b"\0", 12), "forged-startup-locality"),
    "event that skips the quoted bank": (skipped_bank, "missing-digest"),
    "key variable measured twice": (measured_twice, "contradictory-variable"),
}


def refusal(boot: Boot, references) -> str:
    """The code with which evidence about ``boot`` is refused, and held against its node."""
    with pytest.raises(Refusal) as caught:
        judge(Exchange(boot).evidence(), references)
    assert caught.value.remedy
    return caught.value.code


@pytest.mark.parametrize("case", REFUSED)
def test_a_forged_log_is_refused_by_name(boot, references, case):
    forge, code = REFUSED[case]
    assert refusal(rebuilt(boot, forge), references) == code


def test_a_bank_that_firmware_never_extended_is_refused(boot, references):
    """All-zero PCRs 0–7, and a log of what the operating system alone measured."""

    def only_later(events: Events) -> Events:
        return [event for event in events if event.pcr > 7]

    assert refusal(rebuilt(boot, only_later), references) == "bank-never-extended"
    # The same with PCR values that are not zero, which no event explains.
    hostile = replace(rebuilt(boot, only_later), values=boot.values)
    assert refusal(hostile, references) == "pcr-unexplained"


def test_a_locality_that_the_tpm_did_not_start_at_is_refused(boot, references):
    """Well-formed and in its place, but PCR 0 of this boot started from zero."""
    forged = rebuilt(boot, locality(b"\3", 0))
    assert refusal(replace(forged, values=boot.values), references) == "pcr-unexplained"


def test_data_edited_under_its_digest_proves_nothing(boot, references):
    """SecureBoot edited to say "on" in a boot with Secure Boot off keeps the digest of "off"."""

    def switched_off(events: Events) -> Events:
        at = next(i for i, e in enumerate(events) if e.pcr == 7)
        data = events[at].data[:-1] + b"\0"
        return [*events[:at], measured(7, events[at].type, data), *events[at + 1 :]]

    off = rebuilt(boot, switched_off)
    events = list(tcglog.parse(off.log).events[1:])
    at = next(i for i, e in enumerate(events) if e.pcr == 7)
    events[at] = replace_event(events[at], data=events[at].data[:-1] + b"\1")
    lie = replace(off, log=encode_log(off.log, events))
    appraisal = judge(Exchange(lie).evidence(), references)
    assert not appraisal.facts.secure_boot
    assert {"policy:secure-boot", "unclaimed-event"} <= set(codes(appraisal))


def test_a_retyped_event_changes_no_claim(boot, references):
    """Types that decide nothing may lie: the claims rest on PCR and digest."""

    def claims(appraisal):
        return [(event.digest, event.claimed_by) for event in appraisal.events]

    events = list(tcglog.parse(boot.log).events[1:])
    odd = [
        replace_event(event, type=0x8000_0999) if event.pcr in {11, 12} else event
        for event in events
    ]
    honest = judge(Exchange(boot).evidence(), references)
    retyped = replace(boot, log=encode_log(boot.log, odd))
    assert claims(judge(Exchange(retyped).evidence(), references)) == claims(honest)


def test_a_ccel_is_no_log_of_a_tpm(boot, references):
    hostile = replace(boot, log=CCEL.read_bytes())
    assert refusal(hostile, references) == "log-foreign-format"


def overlong(offset: int, size: int, value: int) -> Callable[[bytes, int], bytes]:
    """Writes a huge count or length into the event at hand."""

    def change(log: bytes, start: int) -> bytes:
        at = start + offset
        return log[:at] + value.to_bytes(size, "little") + log[at + size :]

    return change


COUNTS = {
    "digest count": overlong(8, 4, 0xFFFF_FFFF),
    "digest count of one more": overlong(8, 4, 9),
    "PCR index": overlong(0, 4, 24),
}


@pytest.mark.parametrize("case", COUNTS)
def test_over_long_counts_are_refused(boot, references, case):
    start = tcglog.parse(boot.log).events[3].offset
    hostile = replace(boot, log=COUNTS[case](boot.log, start))
    assert refusal(hostile, references) == "log-unreadable"


def test_an_over_long_event_is_refused(boot, references):
    last = tcglog.parse(boot.log).events[-1]
    at = len(boot.log) - len(last.data) - 4
    hostile = replace(boot, log=boot.log[:at] + pack("<I", 0xFFFF_FFFF))
    assert refusal(hostile, references) == "log-unreadable"


def test_truncation_at_every_byte_is_refused(boot, references):
    """Inside an event it is no log. At an event's end (and up to three zeros of the next one's
    PCR index further, which read as padding) it is one, but does not explain the quoted PCRs.
    """
    ends = {event.offset for event in tcglog.parse(boot.log).events}
    for size in range(len(boot.log)):
        code = refusal(replace(boot, log=boot.log[:size]), references)
        padded = any(boot.log[end:size].strip(b"\0") == b"" for end in ends if 0 < end <= size)
        assert code == ("pcr-unexplained" if padded else "log-unreadable"), size
